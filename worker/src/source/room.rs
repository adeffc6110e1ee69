//! A full partition is waited for before it is paused.
//!
//! A pause throws away what the client has prefetched of the partition, and to fetch it again takes
//! a round trip at least: a sink that only needs milliseconds for what it holds would wait most of
//! the time. But what the client holds of other partitions lies behind the records of this one, so
//! the wait is short, and ends at once when another one runs dry.

use std::time::{Duration, Instant};

use cdc_shared::offset::TopicPartition;

use super::slots::{Gate, Slot, Slots};

/// Longest wait. What is prefetched is about two halves of a partition's bound, and each of them
/// may wait once: others see their records at most so much later, three times over.
const PATIENCE: Duration = Duration::from_millis(50);

/// One partition that is full, and since when.
pub(crate) struct Room {
    pub(crate) tp: TopicPartition,
    epoch: u64,
    since: Instant,
}

/// What came of a wait so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// To be asked again.
    On,
    /// It may go on: there is room, or it is not fetched any more.
    Over,
    /// It must be paused.
    Vain,
}

impl Room {
    /// A wait that begins now.
    pub(crate) fn new(slot: &Slot, now: Instant) -> Self {
        Self { tp: slot.tp.clone(), epoch: slot.epoch, since: now }
    }

    /// How it stands. After [`Waiting::Vain`] the partition takes nothing until it has drained.
    pub(crate) fn look(&self, slots: &mut Slots, now: Instant) -> Waiting {
        let drained = match slots.current(&self.tp, self.epoch) {
            Some(slot) if slot.gate == Gate::Open => slot.flow.has_drained(),
            _ => true,
        };
        if drained {
            return Waiting::Over;
        }
        let patient = now.saturating_duration_since(self.since) < PATIENCE;
        if patient && !slots.iter_mut().any(|slot| slot.is_starving(now)) {
            return Waiting::On;
        }
        if let Some(slot) = slots.current(&self.tp, self.epoch) {
            slot.fill();
        }
        Waiting::Vain
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::{Budget, Flow};
    use super::super::record::Record;
    use super::super::slots::{Assignment, Offered};
    use super::*;
    use crate::status::SharedStatus;
    use cdc_shared::offset::NextOffset;

    /// Two partitions of at most 8 records: the first is full, the second has had 4.
    fn slots() -> (Slots, Assignment, Assignment, Room) {
        let budget = Budget::new(1 << 20, SharedStatus::default());
        let mut slots = Slots::default();
        let assigned = [(0, 8), (1, 4)].map(|(partition, records)| {
            let tp = TopicPartition::new("t", partition);
            let (mut slot, assignment) = Slot::new(tp, 1, Flow::new(8, budget.clone()));
            slot.opened(NextOffset::ZERO);
            for offset in 0..records {
                assert_eq!(slot.wants(offset), Offered::Taken);
                let _ = slot.take(Record::new(offset, 0, None, Some(b"v")));
            }
            assert!(slot.hand_over());
            slots.insert(slot);
            assignment
        });
        let [full, other] = assigned;
        let room = Room::new(slots.get("t", 0).unwrap(), Instant::now());
        (slots, full, other, room)
    }

    #[test]
    fn a_full_partition_goes_on_when_it_has_drained() {
        let (mut slots, full, _other, room) = slots();
        assert_eq!(room.look(&mut slots, Instant::now()), Waiting::On);
        full.flow.leave(3, 3);
        assert_eq!(room.look(&mut slots, room.since), Waiting::On);
        full.flow.leave(1, 1);
        assert_eq!(room.look(&mut slots, room.since), Waiting::Over);
        assert_eq!(slots.get("t", 0).unwrap().wants(8), Offered::Taken);
    }

    #[test]
    fn a_slow_sink_ends_the_wait() {
        let (mut slots, full, _other, room) = slots();
        assert_eq!(room.look(&mut slots, room.since + PATIENCE), Waiting::Vain);
        full.flow.leave(1, 1);
        let slot = slots.get("t", 0).unwrap();
        assert_eq!(slot.gate, Gate::Full(NextOffset::after(7)));
        assert_eq!(slot.wants(8), Offered::Dropped, "it comes again from there");
    }

    #[test]
    fn a_partition_that_runs_dry_ends_the_wait_for_another() {
        let (mut slots, _full, other, room) = slots();
        other.flow.leave(3, 3);
        assert_eq!(room.look(&mut slots, room.since), Waiting::Vain);
    }

    #[test]
    fn a_quiet_partition_does_not() {
        let (mut slots, _full, other, mut room) = slots();
        other.flow.leave(4, 4);
        room.since += Duration::from_secs(2);
        assert_eq!(room.look(&mut slots, room.since), Waiting::On);
    }

    #[test]
    fn a_partition_that_is_held_is_not_waited_for() {
        let (mut slots, _full, _other, room) = slots();
        slots.get("t", 0).unwrap().hold();
        assert_eq!(room.look(&mut slots, room.since), Waiting::Over);
        assert_eq!(slots.get("t", 0).unwrap().gate, Gate::Held);
    }
}
