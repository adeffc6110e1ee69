use std::collections::BTreeSet;
use std::sync::Arc;

use cdc_shared::api::Command;
use cdc_shared::dlq::FailedLetter;

use super::*;
use crate::control::commands::decide;
use crate::dlq::index::{Identity, Letter};

const NOW: i64 = 1_000_000;

fn chosen(partition: i32, offset: i64, topic_id: &str) -> Chosen {
    Chosen {
        identity: Identity {
            sink: "wh".into(),
            tp: TopicPartition::new("cdc.t", partition),
            topic_id: TopicId(topic_id.into()),
            offset,
        },
        letter: Arc::new(Letter {
            error_type: "http_400".into(),
            error_message: String::new(),
            attempts: Some(1),
            at_ms: 500,
            copies: 1,
            place: ("cdc.t.dlq".into(), 7, offset * 2),
            key: None,
        }),
        state: LetterState::Open,
        settled: None,
    }
}

/// Letters with what the control topic says of them, as the daemon would choose them.
fn known(control: &ControlState, letters: &[(i32, i64)], now_ms: i64) -> Known {
    let letters = letters.iter().map(|(partition, offset)| {
        let mut chosen = chosen(*partition, *offset, "id");
        let Identity { sink, tp, topic_id, .. } = &chosen.identity;
        let at = (*offset, chosen.letter.at_ms);
        if let Some(settled) = control.letter_settled(sink, tp, topic_id, at) {
            chosen.state = settled.fate.into();
            chosen.settled = Some((settled.by.clone(), settled.at_ms, settled.reason.clone()));
        }
        chosen
    });
    Known {
        sinks: [("wh".to_owned(), vec!["cdc.t".to_owned()])].into(),
        live: [("wh".to_owned(), BTreeSet::new())].into(),
        letters: letters.collect(),
        now_ms,
        ..Known::default()
    }
}

fn apply(control: &mut ControlState, changes: &[Change]) {
    for change in changes {
        let value = match change {
            Change::Put(record) => Some(serde_json::to_vec(record).unwrap()),
            Change::Remove(_) => None,
        };
        control.apply(control.offset(), &change.key(), value.as_deref()).unwrap();
    }
}

fn run(control: &mut ControlState, known: &Known, command: Command) -> Result<Effect, Refusal> {
    let effect = decide(&CommandRequest { by: "me".into(), command }, known, control)?;
    apply(control, &effect.changes);
    Ok(effect)
}

fn filter() -> LetterFilter {
    LetterFilter { sink: Some("wh".into()), ..LetterFilter::default() }
}

fn replay_all() -> Command {
    Command::Replay { filter: filter(), dry_run: false, rate: None }
}

fn drop_all() -> Command {
    Command::DropLetters { filter: filter(), reason: "junk".into() }
}

fn task(control: &ControlState) -> Task {
    control.tasks(Some("wh")).last().map(|&task| task.clone()).unwrap()
}

fn report(task: &Task, partition: i32, replayed: &[i64], failed: &[i64]) -> ReplayReport {
    let failed = failed.iter().map(|offset| FailedLetter {
        offset: *offset,
        code: "http_400".into(),
        message: "no".into(),
    });
    ReplayReport {
        task: task.id.clone(),
        topic: "cdc.t".into(),
        partition,
        replayed: replayed.to_vec(),
        superseded: Vec::new(),
        failed: failed.collect(),
    }
}

#[test]
fn a_replay_names_each_letter_by_partition_and_only_one_runs_at_a_time() {
    let mut control = ControlState::default();
    let known = known(&control, &[(0, 3), (0, 5), (2, 1)], NOW);
    let effect = run(&mut control, &known, replay_all()).unwrap();
    assert!(effect.message.ends_with("posted: 3 dead letters"), "{}", effect.message);
    let options = task(&control).kind.replay().cloned().unwrap();
    let letters: Vec<_> =
        options.partitions.iter().map(|p| (p.tp.partition, p.letters.clone())).collect();
    assert_eq!(
        letters,
        [(0, vec![LetterPlace(3, 7, 6), LetterPlace(5, 7, 10)]), (2, vec![LetterPlace(1, 7, 2)])]
    );
    let refused = run(&mut control, &known, replay_all()).unwrap_err();
    assert_eq!(refused.code, "replay_runs");
}

#[test]
fn what_cannot_be_replayed_is_refused_by_name() {
    let control = ControlState::default();
    let known = known(&control, &[(0, 3)], NOW);
    let code = |known: &Known, command| run(&mut control.clone(), known, command).unwrap_err().code;
    let foreign = vec![chosen(0, 3, "")];
    let other = Known { letters: foreign, ..known.clone() };
    assert_eq!(code(&other, replay_all()), "replay_unsupported");
    let nobody = Known { live: BTreeMap::new(), ..known.clone() };
    assert_eq!(code(&nobody, replay_all()), "no_worker");
    let again = LetterFilter { state: Some(LetterState::Replayed), ..filter() };
    let again = Command::Replay { filter: again, dry_run: false, rate: None };
    assert_eq!(code(&known, again), "invalid");
    let refused = known
        .resolve(&Command::DropLetters { filter: LetterFilter::default(), reason: String::new() });
    assert_eq!(refused.unwrap_err().code, "invalid", "no sink is named");
}

#[test]
fn a_replay_ends_when_every_letter_is_dealt_with_and_is_kept() {
    let mut control = ControlState::default();
    let known_before = known(&control, &[(0, 3), (0, 5), (2, 1)], NOW);
    run(&mut control, &known_before, replay_all()).unwrap();
    let task = task(&control);
    let one = [report(&task, 0, &[3], &[])];
    let found = progress(&control, &task, &one, NOW + 5).unwrap();
    assert_eq!((found.open, found.totals.replayed), (2, 1));
    apply(&mut control, &found.changes);
    // Its worker is gone; the next one only has the others.
    let rest = [report(&task, 0, &[], &[5]), report(&task, 2, &[1], &[])];
    let found = progress(&control, &task, &rest, NOW + 9).unwrap();
    assert_eq!((found.open, found.totals.replayed, found.totals.failed), (0, 2, 1));
    apply(&mut control, &found.changes);
    let ended = end(&task, found.totals, NOW + 9);
    assert_eq!(ended.status, TaskStatus::LeftOpen);
    assert_eq!(ended.letters.as_ref().unwrap().failures, ["cdc.t[0]@5: http_400: no"]);
    let change = tasks::finish(&control, "wh", &task.id, &ended).unwrap();
    apply(&mut control, &[change]);
    assert!(control.tasks(None)[0].kind.replay().unwrap().partitions.is_empty(), "kept in short");

    let known_after = known(&control, &[(0, 3), (0, 5), (2, 1)], NOW + 10);
    let effect = run(&mut control, &known_after, replay_all()).unwrap();
    let expected = format!("1 dead letters; 2 replayed already by {}", task.id);
    assert!(effect.message.ends_with(&expected), "{}", effect.message);
}

#[test]
fn a_dry_run_writes_nothing_down() {
    let mut control = ControlState::default();
    let known = known(&control, &[(0, 3)], NOW);
    let dry = Command::Replay { filter: filter(), dry_run: true, rate: Some(3) };
    run(&mut control, &known, dry).unwrap();
    let task = task(&control);
    let found = progress(&control, &task, &[report(&task, 0, &[3], &[])], NOW).unwrap();
    assert_eq!((found.open, found.changes), (0, Vec::new()));
    assert!(end(&task, found.totals, NOW).message.starts_with("1 dead letters would be replayed"));
}

#[test]
fn dropped_letters_stay_dropped_with_a_reason_and_a_line_of_audit() {
    let mut control = ControlState::default();
    let far = 3 * BLOCK + 1;
    let before = known(&control, &[(0, 3), (0, far)], NOW);
    let effect = run(&mut control, &before, drop_all()).unwrap();
    assert_eq!(effect.changes.len(), 3, "two blocks and the audit line");
    let after = known(&control, &[(0, 3), (0, far)], NOW + 1);
    assert!(after.letters.iter().all(|letter| letter.state == LetterState::Dropped));
    assert_eq!(after.letters[0].settled, Some(("me".into(), NOW, "junk".into())));
    let again = run(&mut control, &after, drop_all()).unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.message, "nothing to drop: of sink wh, 2 dropped already by me");
}

#[test]
fn what_settled_a_letter_last_is_all_that_is_kept() {
    let how = |fate, at_ms| Settled {
        fate,
        at_ms,
        by: "task".into(),
        reason: String::new(),
        offsets: Vec::new(),
    };
    let mut settled = Vec::new();
    put(&mut settled, &how(Fate::Dropped, 5), BTreeSet::from([1, 2]));
    put(&mut settled, &how(Fate::Replayed, 7), BTreeSet::from([2]));
    put(&mut settled, &how(Fate::Replayed, 8), BTreeSet::from([4]));
    let kept: Vec<_> = settled.iter().map(|s| (s.fate, s.at_ms, s.offsets.clone())).collect();
    assert_eq!(kept, [(Fate::Dropped, 5, vec![1]), (Fate::Replayed, 8, vec![2, 4])]);
}
