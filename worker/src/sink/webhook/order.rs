//! Which event may be sent when, and how far everything is done.
//!
//! Events of one lane (one key) are sent one after the other in offset order; lanes run side by
//! side. Pure: no clock, no I/O.

use std::collections::{HashMap, VecDeque};

use cdc_shared::offset::NextOffset;

/// Names an event within one [`Order`].
pub(super) type Seq = u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Behind another event of its lane.
    Waiting,
    /// First of its lane, in the queue of those that may be sent.
    Ready,
    Sent,
    /// Sent, and by now needed no more: whatever its answer, it is done.
    SentSettled,
    /// Failed; sent again later.
    Delayed,
    /// Refused for good; holds its lane until it is settled.
    Rejected,
    Done,
}

#[derive(Debug)]
struct Entry<T> {
    offset: i64,
    lane: u64,
    state: State,
    /// The event behind this one in its lane.
    next: Option<Seq>,
    /// Gone once the event is done.
    event: Option<T>,
}

/// The events of one partition that are not durable yet, in offset order.
#[derive(Debug)]
pub(super) struct Order<T> {
    entries: VecDeque<Entry<T>>,
    /// [`Seq`] of the first entry.
    base: Seq,
    /// Last event of each lane that is not empty.
    lanes: HashMap<u64, Seq>,
    /// May hold events that were settled since.
    ready: VecDeque<Seq>,
    /// Nothing below is missing once the entries below are done.
    covered: NextOffset,
    durable: NextOffset,
}

impl<T> Order<T> {
    pub(super) fn new(start: NextOffset) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            covered: start,
            durable: start,
        }
    }

    /// Events that are not durable, done or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes the next event, above all others.
    pub(super) fn push(&mut self, offset: i64, lane: u64, event: T) {
        let seq = self.base + self.entries.len() as u64;
        let before = self.lanes.insert(lane, seq);
        let state = if let Some(before) = before.and_then(|before| self.entry(before)) {
            before.next = Some(seq);
            State::Waiting
        } else {
            self.ready.push_back(seq);
            State::Ready
        };
        self.entries.push_back(Entry { offset, lane, state, next: None, event: Some(event) });
    }

    /// Takes an event that needs no sending.
    pub(super) fn push_done(&mut self, offset: i64) {
        let state = State::Done;
        self.entries.push_back(Entry { offset, lane: 0, state, next: None, event: None });
    }

    /// Whether [`Order::start`] has one.
    pub(super) fn has_ready(&mut self) -> bool {
        while let Some(&seq) = self.ready.front() {
            if self.entry(seq).is_some_and(|entry| entry.state == State::Ready) {
                return true;
            }
            self.ready.pop_front();
        }
        false
    }

    /// The event to send next, which counts as sent from here on. Those that failed queue behind
    /// those that wait, so that one that always fails keeps no other from being tried.
    pub(super) fn start(&mut self) -> Option<(Seq, i64, &T)> {
        if !self.has_ready() {
            return None;
        }
        let seq = self.ready.pop_front()?;
        let entry = self.entry(seq)?;
        entry.state = State::Sent;
        let offset = entry.offset;
        entry.event.as_ref().map(|event| (seq, offset, event))
    }

    /// An event that is not done.
    pub(super) fn event(&mut self, seq: Seq) -> Option<&mut T> {
        self.entry(seq)?.event.as_mut()
    }

    /// A sent event was delivered; it is handed back.
    pub(super) fn done(&mut self, seq: Seq) -> Option<T> {
        match self.entry(seq)?.state {
            State::Sent | State::SentSettled => self.finish(seq),
            _ => None,
        }
    }

    /// A sent event failed and will be [`Order::retry`]ed. `Some`: it was settled meanwhile, so it
    /// is done instead and handed back.
    pub(super) fn delay(&mut self, seq: Seq) -> Option<T> {
        self.hold(seq, State::Delayed)
    }

    /// A sent event was refused and holds its lane until [`Order::settle`]. `Some` as in
    /// [`Order::delay`].
    pub(super) fn reject(&mut self, seq: Seq) -> Option<T> {
        self.hold(seq, State::Rejected)
    }

    fn hold(&mut self, seq: Seq, state: State) -> Option<T> {
        let entry = self.entry(seq)?;
        match entry.state {
            State::Sent => {
                entry.state = state;
                None
            }
            State::SentSettled => self.finish(seq),
            _ => None,
        }
    }

    /// A delayed event may be sent again. One that was settled meanwhile is left alone.
    pub(super) fn retry(&mut self, seq: Seq) {
        if let Some(entry) = self.entry(seq).filter(|entry| entry.state == State::Delayed) {
            entry.state = State::Ready;
            self.ready.push_back(seq);
        }
    }

    /// The event at `offset` needs no delivery any more. It is handed back unless it is under way
    /// or not known.
    pub(super) fn settle(&mut self, offset: i64) -> Option<T> {
        let index = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        let entry = self.entries.get_mut(index)?;
        match entry.state {
            State::Sent => {
                entry.state = State::SentSettled;
                None
            }
            State::SentSettled | State::Done => None,
            // The one before it releases the lane past it.
            State::Waiting => {
                entry.state = State::Done;
                entry.event.take()
            }
            State::Ready | State::Delayed | State::Rejected => {
                self.finish(self.base + index as u64)
            }
        }
    }

    /// Everything below `next` was pushed or has no effect.
    pub(super) fn cover(&mut self, next: NextOffset) {
        self.covered = self.covered.max(next);
    }

    /// The position below which everything is done, when it grew since the last call.
    pub(super) fn advance(&mut self) -> Option<NextOffset> {
        let mut reached = self.durable;
        while let Some(entry) = self.entries.front().filter(|entry| entry.state == State::Done) {
            reached = NextOffset::after(entry.offset);
            self.entries.pop_front();
            self.base += 1;
        }
        let first = self.entries.front().and_then(|entry| NextOffset::new(entry.offset));
        let covered = first.map_or(self.covered, |first| first.min(self.covered));
        reached = reached.max(covered);
        (reached > self.durable).then(|| {
            self.durable = reached;
            reached
        })
    }

    fn entry(&mut self, seq: Seq) -> Option<&mut Entry<T>> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Marks the first event of a lane done and makes its successor ready.
    fn finish(&mut self, seq: Seq) -> Option<T> {
        let entry = self.entry(seq)?;
        entry.state = State::Done;
        let event = entry.event.take();
        let lane = entry.lane;
        let mut next = entry.next;
        while let Some(after) = next {
            let Some(entry) = self.entry(after) else { break };
            if entry.state == State::Waiting {
                entry.state = State::Ready;
                self.ready.push_back(after);
                return event;
            }
            next = entry.next;
        }
        self.lanes.remove(&lane);
        event
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn next(offset: i64) -> NextOffset {
        NextOffset::new(offset).unwrap()
    }

    #[test]
    fn the_prefix_waits_for_the_first_that_is_missing() {
        let mut order = Order::new(next(10));
        for (offset, lane) in [(10, 1), (12, 2), (13, 1)] {
            order.push(offset, lane, offset);
        }
        let (first, _, _) = order.start().unwrap();
        let (second, offset, _) = order.start().unwrap();
        assert_eq!(offset, 12);
        assert!(order.start().is_none(), "13 is behind 10");
        order.done(second);
        assert_eq!(order.advance(), None);
        order.done(first);
        assert_eq!(order.advance(), Some(next(13)));
        let (third, ..) = order.start().unwrap();
        order.done(third);
        assert_eq!(order.advance(), Some(next(14)));
    }

    #[test]
    fn ranges_without_effect_count_up_to_the_first_that_is_missing() {
        let mut order = Order::new(next(0));
        order.cover(next(7));
        assert_eq!(order.advance(), Some(next(7)));
        order.push(9, 1, ());
        order.cover(next(20));
        assert_eq!(order.advance(), Some(next(9)));
        let (seq, ..) = order.start().unwrap();
        order.done(seq);
        assert_eq!(order.advance(), Some(next(20)));
    }

    #[test]
    fn a_rejected_event_holds_its_lane_and_the_prefix_until_it_is_settled() {
        let mut order = Order::new(next(0));
        for (offset, lane) in [(0, 1), (1, 1), (2, 2)] {
            order.push(offset, lane, offset);
        }
        let (bad, ..) = order.start().unwrap();
        let (other, ..) = order.start().unwrap();
        assert_eq!(order.reject(bad), None);
        order.done(other);
        assert!(!order.has_ready());
        assert_eq!(order.advance(), None);
        assert_eq!(order.settle(0), Some(0));
        assert_eq!(order.advance(), Some(next(1)));
        assert_eq!(order.start().map(|(_, offset, _)| offset), Some(1));
    }

    #[test]
    fn settling_what_is_under_way_keeps_the_lane_single() {
        let mut order = Order::new(next(0));
        order.push(0, 1, 'a');
        order.push(1, 1, 'b');
        order.push(2, 1, 'c');
        let (seq, ..) = order.start().unwrap();
        assert_eq!(order.settle(0), None);
        assert_eq!(order.settle(1), Some('b'));
        assert!(!order.has_ready());
        assert_eq!(order.delay(seq), Some('a'));
        assert_eq!(order.advance(), Some(next(2)));
        assert_eq!(order.start().map(|(_, offset, _)| offset), Some(2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { gap: i64, lane: u64 },
        PushDone,
        Cover,
        Start,
        Done(usize),
        Delay(usize),
        Retry(usize),
        Reject(usize),
        Settle(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3_i64, 0..4_u64).prop_map(|(gap, lane)| Step::Push { gap, lane }),
            1 => Just(Step::PushDone),
            1 => Just(Step::Cover),
            4 => Just(Step::Start),
            3 => any::<usize>().prop_map(Step::Done),
            2 => any::<usize>().prop_map(Step::Delay),
            2 => any::<usize>().prop_map(Step::Retry),
            1 => any::<usize>().prop_map(Step::Reject),
            1 => any::<usize>().prop_map(Step::Settle),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// What the tests know beside the tracker: a plain model of the promises.
    #[derive(Default)]
    struct Model {
        head: i64,
        lanes: BTreeMap<i64, u64>,
        open: BTreeSet<i64>,
        sent: BTreeMap<i64, Seq>,
        delayed: BTreeMap<i64, Seq>,
        started: BTreeSet<i64>,
        durable: i64,
    }

    fn pick(from: &BTreeMap<i64, Seq>, index: usize) -> Option<(i64, Seq)> {
        from.iter().nth(index % from.len().max(1)).map(|(offset, seq)| (*offset, *seq))
    }

    impl Model {
        fn started(&mut self, offset: i64, seq: Seq) {
            let lane = self.lanes[&offset];
            for other in self.sent.keys() {
                assert_ne!(self.lanes[other], lane, "two of one key in flight");
            }
            for open in self.open.range(..offset) {
                assert_ne!(self.lanes[open], lane, "{offset} overtakes {open}");
            }
            self.started.insert(offset);
            self.sent.insert(offset, seq);
        }

        fn check(&mut self, order: &mut Order<i64>) {
            if let Some(reached) = order.advance() {
                assert!(reached.get() > self.durable, "goes back");
                self.durable = reached.get();
            }
            let first = self.open.first().copied().unwrap_or(i64::MAX);
            assert!(self.durable <= first, "{} is past {first}", self.durable);
            assert!(self.durable <= self.head, "past what was offered");
        }
    }

    fn apply(step: &Step, order: &mut Order<i64>, model: &mut Model) {
        match *step {
            Step::Push { gap, lane } => {
                let offset = model.head + gap;
                order.push(offset, lane, offset);
                model.lanes.insert(offset, lane);
                model.open.insert(offset);
                model.head = offset + 1;
            }
            Step::PushDone => {
                order.push_done(model.head);
                model.head += 1;
            }
            Step::Cover => order.cover(next(model.head)),
            Step::Start => {
                if let Some((seq, offset, event)) = order.start() {
                    assert_eq!(*event, offset);
                    model.started(offset, seq);
                }
            }
            Step::Done(index) => {
                if let Some((offset, seq)) = pick(&model.sent, index) {
                    order.done(seq);
                    model.sent.remove(&offset);
                    model.open.remove(&offset);
                }
            }
            Step::Delay(index) => {
                if let Some((offset, seq)) = pick(&model.sent, index) {
                    order.delay(seq);
                    model.sent.remove(&offset);
                    model.delayed.insert(offset, seq);
                }
            }
            Step::Retry(index) => {
                if let Some((offset, seq)) = pick(&model.delayed, index) {
                    order.retry(seq);
                    model.delayed.remove(&offset);
                }
            }
            Step::Reject(index) => {
                if let Some((offset, seq)) = pick(&model.sent, index) {
                    order.reject(seq);
                    model.sent.remove(&offset);
                }
            }
            Step::Settle(index) => {
                let open = model.open.iter().nth(index % model.open.len().max(1)).copied();
                // One that is under way stays in the model until its answer.
                if let Some(offset) = open.filter(|offset| !model.sent.contains_key(offset)) {
                    order.settle(offset);
                    model.open.remove(&offset);
                    model.delayed.remove(&offset);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_course_yields_a_monotone_safe_prefix_in_order_per_key(steps in steps()) {
            let mut order = Order::new(next(0));
            let mut model = Model::default();
            for step in &steps {
                apply(step, &mut order, &mut model);
                model.check(&mut order);
            }
            // However it came to this: let the rest end well, and nothing is left.
            for offset in model.open.clone() {
                order.settle(offset);
            }
            for seq in model.sent.values() {
                order.done(*seq);
            }
            order.cover(next(model.head));
            order.advance();
            prop_assert_eq!(order.len(), 0);
            prop_assert!(order.lanes.is_empty());
            prop_assert_eq!(order.durable.get(), model.head);
        }
    }
}
