use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Two topics: partitions 0 and 1 are of the first, 2 of the second.
const TOPICS: [usize; 3] = [0, 0, 1];

fn id(transaction: usize) -> TransactionId {
    TransactionId::of(&format!("{transaction}:7"))
}

/// One thing that arrives.
#[derive(Clone, Debug)]
enum Arrival {
    /// Partition, offset, transaction and place in it.
    Record(usize, i64, Option<(usize, i64)>),
    Begin(i64, usize),
    End(i64, usize, [u64; 2]),
}

/// What a connector wrote: a log for each partition, and the marks as the last.
#[derive(Clone, Debug, Default)]
struct Logs {
    logs: [Vec<Arrival>; 4],
}

impl Logs {
    fn record(&mut self, partition: usize, label: Option<(usize, i64)>) {
        let offset = self.logs[partition].len() as i64;
        self.logs[partition].push(Arrival::Record(partition, offset, label));
    }

    fn mark(&mut self, mark: impl FnOnce(i64) -> Arrival) {
        let offset = self.logs[3].len() as i64;
        self.logs[3].push(mark(offset));
    }

    /// A transaction whose records go to these partitions.
    fn transaction(&mut self, number: usize, partitions: &[usize]) {
        self.mark(|offset| Arrival::Begin(offset, number));
        let mut counts = [0; 2];
        for (order, partition) in (1..).zip(partitions) {
            self.record(*partition, Some((number, order)));
            counts[TOPICS[*partition]] += 1;
        }
        self.mark(|offset| Arrival::End(offset, number, counts));
    }

    /// Rows of a snapshot, and so many transactions; from the one `again` all are sent once more.
    fn of(snapshot: &[usize], transactions: &[Vec<usize>], again: Option<usize>) -> Self {
        let mut logs = Self::default();
        for partition in snapshot {
            logs.record(*partition, None);
        }
        for (number, partitions) in transactions.iter().enumerate() {
            logs.transaction(number, partitions);
        }
        let repeated = transactions.iter().enumerate().skip(again.unwrap_or(usize::MAX));
        for (number, partitions) in repeated {
            logs.transaction(number, partitions);
        }
        logs
    }

    fn len(&self) -> usize {
        self.logs.iter().map(Vec::len).sum()
    }
}

type Out = Vec<(Vec<(usize, Vec<(i64, Option<usize>)>)>, Option<i64>)>;

fn take(assembler: &mut Assembler<(i64, Option<usize>)>, patient: bool, out: &mut Out) {
    while let Some(group) = assembler.next(patient) {
        let runs = group.runs.into_iter().map(|(partition, run)| (partition, run.records));
        out.push((runs.collect(), group.end));
    }
}

fn arrive(assembler: &mut Assembler<(i64, Option<usize>)>, arrival: &Arrival) {
    match *arrival {
        Arrival::Record(partition, offset, of) => {
            let label = of.map(|(number, order)| Label { transaction: id(number), order });
            assembler.record(partition, offset, label.as_ref(), |run| {
                run.push((offset, of.map(|(number, _)| number)));
            });
        }
        Arrival::Begin(offset, number) => assembler.begin(offset, id(number)),
        Arrival::End(offset, number, counts) => {
            assembler.end(offset, id(number), vec![(0, counts[0]), (1, counts[1])]);
        }
    }
}

/// Feeds the logs from `from` on, in an order that `choices` make, and takes whatever comes out.
fn run(logs: &Logs, from: [usize; 4], horizon: Horizon, choices: &[usize]) -> Out {
    let mut assembler = Assembler::new(&TOPICS, horizon);
    let (mut at, mut out) = (from, Out::new());
    let mut choices = choices.iter().cycle();
    while at.iter().zip(&logs.logs).any(|(at, log)| *at < log.len()) {
        let log = choices.next().unwrap() % 4;
        if let Some(arrival) = logs.logs[log].get(at[log]) {
            at[log] += 1;
            arrive(&mut assembler, arrival);
            take(&mut assembler, true, &mut out);
        }
    }
    for (partition, log) in logs.logs[..3].iter().enumerate() {
        assembler.reached(partition, log.len() as i64);
    }
    assembler.marks_reached(logs.logs[3].len() as i64);
    take(&mut assembler, false, &mut out);
    assert_eq!((assembler.waiting(), assembler.pending()), (None, 0));
    out
}

fn history() -> impl Strategy<Value = (Vec<usize>, Vec<Vec<usize>>)> {
    (vec(0_usize..3, 0..6), vec(vec(0_usize..3, 1..6), 1..12))
}

/// Offsets of a partition in the order in which they came out.
fn offsets(out: &Out, partition: usize) -> Vec<i64> {
    let runs = out.iter().flat_map(|(runs, _)| runs).filter(|(of, _)| *of == partition);
    runs.flat_map(|(_, records)| records.iter().map(|(offset, _)| *offset)).collect()
}

proptest! {
    #[test]
    fn transactions_come_out_whole_and_in_the_order_of_their_commits(
        (snapshot, transactions) in history(),
        choices in vec(0_usize..4, 50..200),
    ) {
        prop_assume!((0..4).all(|log| choices.contains(&log)));
        let logs = Logs::of(&snapshot, &transactions, None);
        let out = run(&logs, [0; 4], Horizon::default(), &choices);
        let whole: Vec<_> = out.iter().filter(|(_, end)| end.is_some()).collect();
        prop_assert_eq!(whole.len(), transactions.len());
        for (number, (runs, _)) in whole.iter().enumerate() {
            let records: Vec<_> = runs.iter().flat_map(|(_, records)| records).collect();
            prop_assert_eq!(records.len(), transactions[number].len());
            prop_assert!(records.iter().all(|(_, of)| *of == Some(number)));
        }
        let alone = out.iter().filter(|(_, end)| end.is_none()).flat_map(|(runs, _)| runs);
        let alone: Vec<_> = alone.flat_map(|(_, records)| records).collect();
        prop_assert_eq!(alone.len(), snapshot.len());
        for (partition, log) in logs.logs[..3].iter().enumerate() {
            prop_assert_eq!(offsets(&out, partition), (0..log.len() as i64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_a_connector_sends_again_has_no_effect_and_stops_nothing(
        (snapshot, transactions) in history(),
        again in 0_usize..12,
        choices in vec(0_usize..4, 50..200),
    ) {
        prop_assume!((0..4).all(|log| choices.contains(&log)));
        let logs = Logs::of(&snapshot, &transactions, Some(again));
        let out = run(&logs, [0; 4], Horizon::default(), &choices);
        let mut seen = Vec::new();
        for (runs, end) in out.iter().filter(|(_, end)| end.is_some()) {
            let records: Vec<_> = runs.iter().flat_map(|(_, records)| records).collect();
            let number = records.first().and_then(|(_, of)| *of);
            if let Some(number) = number {
                prop_assert!(records.iter().all(|(_, of)| *of == Some(number)), "{end:?}");
                prop_assert!(records.len() >= transactions[number].len());
                seen.push(number);
            }
        }
        prop_assert_eq!(seen, (0..transactions.len()).collect::<Vec<_>>());
    }

    /// A session that begins anywhere, as after a rewind of one partition: everything that is left
    /// comes out once and in order, and nothing waits for ever.
    #[test]
    fn a_session_may_begin_where_positions_do_not_belong_together(
        (snapshot, transactions) in history(),
        from in [0_usize..20, 0..20, 0..20, 0..20],
        later in vec(vec(0_usize..3, 1..6), 0..4),
        seen in [0_usize..40, 0..40, 0..40, 0..40],
        choices in vec(0_usize..4, 50..200),
    ) {
        prop_assume!((0..4).all(|log| choices.contains(&log)));
        let before = Logs::of(&snapshot, &transactions, None);
        let ends = before.logs.each_ref().map(Vec::len);
        let mut logs = before.clone();
        for (number, partitions) in (transactions.len()..).zip(&later) {
            logs.transaction(number, partitions);
        }
        prop_assert!(logs.len() >= before.len());
        let from: Vec<usize> = from.iter().zip(ends).map(|(from, end)| *from.min(&end)).collect();
        let from: [usize; 4] = from.try_into().unwrap();
        // What was visible when the ends were asked for, in each log for itself; of what was
        // delivered before, the begin.
        let delivered = before.logs[..3].iter().zip(from).flat_map(|(log, from)| &log[..from]);
        let begun = delivered.filter_map(|arrival| match arrival {
            Arrival::Record(_, _, Some((number, _))) => Some(2 * number + 1),
            _ => None,
        });
        let least = begun.max().unwrap_or(0).max(from[3]);
        let marks = seen[3].clamp(least, ends[3]) as i64;
        let end = |log: usize| seen[log].clamp(from[log], ends[log]) as i64;
        let horizon = Horizon { marks: (marks, marks), partitions: (0..3).map(end).collect() };
        let out = run(&logs, from, horizon, &choices);
        for (partition, log) in logs.logs[..3].iter().enumerate() {
            let left: Vec<_> = (from[partition] as i64..log.len() as i64).collect();
            prop_assert_eq!(offsets(&out, partition), left);
        }
        // What began within the session is whole.
        let whole = out.iter().filter(|(_, end)| end.is_some_and(|end| end >= ends[3] as i64));
        for ((runs, _), expected) in whole.zip(&later) {
            let count: usize = runs.iter().map(|(_, records)| records.len()).sum();
            prop_assert_eq!(count, expected.len());
        }
    }
}

#[test]
fn a_record_that_was_given_up_is_not_waited_for() {
    let mut assembler = Assembler::new(&TOPICS, Horizon::default());
    let label = |order| Label { transaction: id(1), order };
    assembler.begin(0, id(1));
    assembler.record(0, 0, Some(&label(1)), |run| run.push((0, Some(1))));
    assembler.end(1, id(1), vec![(0, 2), (1, 1)]);
    assembler.record(2, 0, Some(&label(3)), |run| run.push((0, Some(1))));
    assert!(assembler.next(false).is_none(), "it began within the session");
    let waiting = Waiting::Records { transaction: id(1), topic: 0, counts: (1, 2) };
    assert_eq!(assembler.waiting(), Some(waiting));
    assembler.given_up(1, 5);
    let mut out = Out::new();
    take(&mut assembler, true, &mut out);
    assert_eq!(out.last().unwrap().1, Some(1));
    assert_eq!(assembler.closed_at(), Some(2));
}

#[test]
fn the_same_place_in_a_transaction_counts_once() {
    let mut assembler = Assembler::new(&TOPICS, Horizon::default());
    let label = |order| Label { transaction: id(1), order };
    assembler.begin(0, id(1));
    // Sent twice to one partition; what goes to the other one is still on its way.
    for offset in 0..2 {
        assembler.record(0, offset, Some(&label(1)), |run| run.push((offset, Some(1))));
    }
    assembler.end(1, id(1), vec![(0, 2)]);
    assert!(assembler.next(true).is_none());
    assembler.record(1, 0, Some(&label(2)), |run| run.push((0, Some(1))));
    assert_eq!(assembler.next(true).unwrap().end, Some(1));
}
