//! Commands that a worker of the sink carries out: posted, then watched to their end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cdc_shared::api::{Command, TASKS_PATH};
use cdc_shared::config::PipelineConfig;
use cdc_shared::task::{Task, TaskKind, TaskStatus, TaskView, Tasks, VerifyOptions};

use super::args::{CompareArgs, TaskCommand, TaskCommandArgs};
use super::client::{Coordinator, read_as};
use super::load::load;
use super::operate::{client_config, topic_of};
use super::{Exit, Failure};
use crate::deploy;

/// What the coordinator answers, in messages.
const TASKS: &str = "list of tasks";
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// How long a coordinator, or every worker of the sink, may be away before watching ends.
const AWAY: Duration = Duration::from_secs(60);
/// Longest wait for the connector's snapshot.
const SNAPSHOT: Duration = Duration::from_secs(24 * 3600);
/// How often a snapshot that the connector gives up is asked for.
const SNAPSHOT_ATTEMPTS: u32 = 5;
/// How often an unchanged step is told again, with its rows.
const TOLD: Duration = Duration::from_secs(5);

/// `cdc verify`.
pub(super) async fn verify(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let config = client_config(&args.target)?;
    let coordinator = Coordinator::new(&config)?;
    let kind = TaskKind::Verify(options(args, &config, &args.table)?);
    let task = carry_out(&coordinator, &args.sink, kind).await?;
    report(args.json, &task)
}

/// `cdc resync`: the sink's half is a task, and what it leaves is written by a snapshot, which takes
/// the way of every change.
pub(super) async fn resync(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let config = client_config(&args.target)?;
    let coordinator = Coordinator::new(&config)?;
    let kind = TaskKind::Resync(options(args, &config, &args.table)?);
    let task = carry_out(&coordinator, &args.sink, kind).await?;
    let tables = task.end.iter().flat_map(|end| &end.tables);
    let poor: Vec<String> = tables
        .filter(|table| table.missing + table.changed + table.unsettled > 0)
        .map(|table| table.table.clone())
        .collect();
    let differs = task.end.as_ref().is_some_and(|end| end.status == TaskStatus::Differs);
    if poor.is_empty() || !differs {
        return report(args.json, &task);
    }
    if let Some(end) = &task.end {
        eprintln!("{end}");
    }
    let full = load(&args.target)?;
    super::progress(&format!("reading {} again from the source", poor.join(", ")));
    let mut attempts = 0;
    while let Err(failure) = deploy::snapshot(&full, &poor, Some(SNAPSHOT), &super::progress).await
    {
        attempts += 1;
        // Debezium 3.6 gives one up now and then on a busy table (a null pointer of its own).
        if failure.exit != Exit::Software || attempts == SNAPSHOT_ATTEMPTS {
            return Err(failure);
        }
        super::progress(&format!("{}: once more", failure.message));
    }
    let kind = TaskKind::Verify(options(args, &config, &poor)?);
    report(args.json, &carry_out(&coordinator, &args.sink, kind).await?)
}

fn options(
    args: &CompareArgs,
    config: &PipelineConfig,
    tables: &[String],
) -> Result<VerifyOptions, Failure> {
    let mut topics = Vec::new();
    for table in tables {
        topics.extend(topic_of(config, Some(table))?);
    }
    Ok(VerifyOptions { topics, timeout_seconds: args.timeout, show_values: args.show_values })
}

/// The result on standard output, and the exit code that it stands for.
pub(super) fn report(json: bool, task: &Task) -> Result<ExitCode, Failure> {
    let Some(end) = &task.end else {
        return Err(Failure::new(Exit::Software, format!("task {} has no end", task.id)));
    };
    super::print(json, task, end)?;
    Ok(end.status.exit_code().into())
}

/// Posts a task and tells how it goes until it has ended. Ctrl-C calls it off.
pub(super) async fn carry_out(
    coordinator: &Coordinator,
    sink: &str,
    kind: TaskKind,
) -> Result<Task, Failure> {
    let reply = coordinator.command(Command::StartTask { sink: sink.to_owned(), kind }).await?;
    let Some(id) = reply.task else {
        let message = "the coordinator is of an older version: it posted no task";
        return Err(Failure::new(Exit::Software, message));
    };
    follow(coordinator, sink, &id, &reply.message).await
}

/// Tells how a task that was posted goes until it has ended. Ctrl-C calls it off.
pub(super) async fn follow(
    coordinator: &Coordinator,
    sink: &str,
    id: &str,
    posted: &str,
) -> Result<Task, Failure> {
    eprintln!("{posted}");
    tokio::select! {
        ended = watch(coordinator, sink, id) => ended,
        _ = tokio::signal::ctrl_c() => {
            let cancel = Command::CancelTask { sink: sink.to_owned(), id: id.to_owned() };
            let reply = coordinator.command(cancel).await?;
            Err(Failure::new(Exit::TempFail, reply.message))
        }
    }
}

/// `cdc task …`.
pub(super) async fn task(args: &TaskCommandArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        TaskCommand::List(args) => {
            let config = client_config(&args.target)?;
            let (body, tasks): (_, Tasks) =
                Coordinator::new(&config)?.get_as(TASKS_PATH, TASKS).await?;
            let lines: Vec<String> = tasks.tasks.iter().map(line).collect();
            let text = if lines.is_empty() { "no tasks".to_owned() } else { lines.join("\n") };
            super::print(args.json, &body, &text)?;
            Ok(ExitCode::SUCCESS)
        }
        TaskCommand::Watch(args) => {
            let config = client_config(&args.target)?;
            report(args.json, &watch(&Coordinator::new(&config)?, &args.sink, &args.id).await?)
        }
        TaskCommand::Cancel(args) => {
            let config = client_config(&args.target)?;
            let (sink, id) = (args.sink.clone(), args.id.clone());
            let command = Command::CancelTask { sink, id };
            println!("{}", Coordinator::new(&config)?.command(command).await?.message);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// One task in one line.
fn line(view: &TaskView) -> String {
    let task = &view.task;
    let state = match (&task.end, &view.progress) {
        (Some(end), _) => end.message.clone(),
        (None, Some(progress)) => progress.step.clone(),
        (None, None) => waiting(view).to_owned(),
    };
    format!("{}  {}  by {}: {state}", task.id, task.sink, task.by)
}

fn waiting(view: &TaskView) -> &'static str {
    if view.sink_live && view.task.kind.replay().is_some() {
        "waits for the workers that own the letters' partitions (see cdc status)"
    } else if view.sink_live {
        "waits for the worker that owns the sink's first partition"
    } else {
        "waits: no worker of the sink lives"
    }
}

/// Tells how a task goes until it has ended.
async fn watch(coordinator: &Coordinator, sink: &str, id: &str) -> Result<Task, Failure> {
    let mut told = Told::default();
    let mut away: Option<Instant> = None;
    loop {
        let outcome = match coordinator.get(TASKS_PATH).await {
            Ok(body) => Ok(find(read_as(&body, TASKS)?, sink, id)?),
            Err(failure) => Err(failure),
        };
        let trouble = match outcome {
            Ok(view) => {
                if view.task.end.is_some() {
                    return Ok(view.task);
                }
                told.tell(&view);
                let message = format!("{id} {}", waiting(&view));
                (!view.sink_live).then(|| {
                    Failure::new(Exit::TempFail, message)
                        .hint(format!("start one; the task stays: cdc task watch {id}"))
                })
            }
            Err(failure) => Some(failure),
        };
        match trouble {
            None => away = None,
            Some(failure) if away.is_some_and(|since| since.elapsed() >= AWAY) => {
                return Err(failure);
            }
            Some(_) => away = away.or_else(|| Some(Instant::now())),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn find(tasks: Tasks, sink: &str, id: &str) -> Result<TaskView, Failure> {
    let found = tasks.tasks.into_iter().find(|view| view.task.id == id && view.task.sink == sink);
    found.ok_or_else(|| {
        Failure::new(Exit::Data, format!("sink {sink} has no task {id}")).hint("see cdc task list")
    })
}

/// What was told last, so that nothing is told twice.
#[derive(Default)]
struct Told {
    step: String,
    at: Option<Instant>,
    rows: u64,
}

impl Told {
    fn tell(&mut self, view: &TaskView) {
        let (step, rows) = match &view.progress {
            Some(progress) => (progress.step.clone(), progress.rows),
            None => (waiting(view).to_owned(), 0),
        };
        let again = self.at.is_none_or(|at| at.elapsed() >= TOLD) && rows != self.rows;
        if step == self.step && !again {
            return;
        }
        let what = if view.task.kind.replay().is_some() { "letters" } else { "rows" };
        let expected = view.progress.as_ref().map_or(0, |progress| progress.rows_expected);
        match (rows, expected) {
            (0, _) => eprintln!("{step} …"),
            (rows, 0) => eprintln!("{step} … {rows} {what}"),
            (rows, expected) => {
                eprintln!("{step} … {rows} {what} of about {}", expected.max(rows));
            }
        }
        *self = Self { step, at: Some(Instant::now()), rows };
    }
}
