//! What Kafka Connect says of a connector, in words for a person.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line of a reason that is shown.
const LINE: usize = 300;
/// Most causes of a reason that are shown.
const CAUSES: usize = 3;

/// State of a connector and its tasks, as Connect reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// The connector itself.
    #[serde(default)]
    pub connector: TaskStatus,
    /// Its tasks.
    #[serde(default)]
    pub tasks: Vec<TaskStatus>,
}

/// State of a connector or of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Number of the task; absent for the connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// `RUNNING`, `FAILED`, `UNASSIGNED`, `PAUSED`, `STOPPED`, `RESTARTING`.
    #[serde(default)]
    pub state: String,
    /// Stack trace of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A state, seen by somebody who waits for the connector to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Connector and tasks run.
    Running,
    /// Something failed, with its reason.
    Failed(String),
    /// Paused or stopped by an operator.
    Held(String),
    /// On its way.
    NotYet(String),
}

impl ConnectorStatus {
    /// See [`Settled`].
    pub fn settled(&self) -> Settled {
        let all = || std::iter::once(&self.connector).chain(&self.tasks);
        if let Some(failed) = all().find(|part| part.state == "FAILED") {
            return Settled::Failed(failed.reason());
        }
        if matches!(self.connector.state.as_str(), "PAUSED" | "STOPPED") {
            return Settled::Held(self.connector.state.to_lowercase());
        }
        if !self.tasks.is_empty() && all().all(|part| part.state == "RUNNING") {
            return Settled::Running;
        }
        Settled::NotYet(self.describe())
    }

    /// Whether the connector or a task has failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.settled(), Settled::Failed(_))
    }

    /// One line: the states of connector and tasks.
    pub fn describe(&self) -> String {
        let state = |s: &str| if s.is_empty() { "unknown".to_owned() } else { s.to_lowercase() };
        let mut text = format!("connector {}", state(&self.connector.state));
        if self.tasks.is_empty() {
            text.push_str(", no task yet");
        }
        for task in &self.tasks {
            let _ = write!(text, ", task {} {}", task.id.unwrap_or(0), state(&task.state));
        }
        text
    }
}

impl TaskStatus {
    fn reason(&self) -> String {
        self.trace.as_deref().map_or_else(|| "no reason given".to_owned(), first_lines)
    }
}

/// The sentences of a Java stack trace without its frames: the first, and the innermost causes.
pub fn first_lines(trace: &str) -> String {
    let sentences: Vec<&str> = trace
        .lines()
        .filter(|line| !line.starts_with("\tat ") && !line.trim_start().starts_with("... "))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let Some((first, rest)) = sentences.split_first() else { return "no reason given".to_owned() };
    let causes: Vec<&str> =
        rest.iter().filter_map(|line| line.strip_prefix("Caused by: ")).collect();
    // Lines that are neither frames nor causes belong to the first message.
    let more = rest.iter().take_while(|line| !line.starts_with("Caused by: ")).take(CAUSES);
    let innermost = causes.iter().skip(causes.len().saturating_sub(CAUSES));
    let mut lines = vec![sentence(first)];
    lines.extend(more.map(|line| sentence(line)));
    for cause in innermost {
        let cause = sentence(cause);
        if !lines.iter().any(|line| line.ends_with(&cause)) {
            lines.push(format!("because: {cause}"));
        }
    }
    lines.join("\n  ")
}

/// A line without the package of the exception's class, and of bounded length.
fn sentence(line: &str) -> String {
    let line = match line.split_once(": ") {
        Some((class, message)) if is_class(class) => {
            format!("{}: {message}", class.rsplit('.').next().unwrap_or(class))
        }
        None if is_class(line) => line.rsplit('.').next().unwrap_or(line).to_owned(),
        _ => line.to_owned(),
    };
    match line.char_indices().nth(LINE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

fn is_class(text: &str) -> bool {
    text.contains('.') && text.chars().all(|c| c.is_alphanumeric() || "._$".contains(c))
}

/// The complaints in the answer of Connect's validation.
pub(super) fn complaints(answer: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for config in answer["configs"].as_array().into_iter().flatten() {
        let name = config["value"]["name"].as_str().unwrap_or("?");
        for error in config["value"]["errors"].as_array().into_iter().flatten() {
            if let Some(error) = error.as_str() {
                found.push((name.to_owned(), first_lines(error)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(connector: &str, tasks: &[(&str, Option<&str>)]) -> ConnectorStatus {
        ConnectorStatus {
            connector: TaskStatus { state: connector.into(), ..TaskStatus::default() },
            tasks: tasks
                .iter()
                .zip(0..)
                .map(|((state, trace), id)| TaskStatus {
                    id: Some(id),
                    state: (*state).into(),
                    trace: trace.map(Into::into),
                })
                .collect(),
        }
    }

    #[test]
    fn both_the_connector_and_its_task_must_run() {
        assert_eq!(status("RUNNING", &[("RUNNING", None)]).settled(), Settled::Running);
        assert!(matches!(status("RUNNING", &[]).settled(), Settled::NotYet(_)));
        assert!(matches!(
            status("RUNNING", &[("UNASSIGNED", None)]).settled(),
            Settled::NotYet(text) if text == "connector running, task 0 unassigned"
        ));
        assert_eq!(
            status("PAUSED", &[("PAUSED", None)]).settled(),
            Settled::Held("paused".to_owned())
        );
        assert!(matches!(ConnectorStatus::default().settled(), Settled::NotYet(_)));
    }

    #[test]
    fn a_failure_is_told_by_its_causes_without_frames() {
        let trace = "org.apache.kafka.connect.errors.ConnectException: An exception occurred\n\
            \tat io.debezium.X.run(X.java:3)\n\t... 5 more\n\
            Caused by: io.debezium.DebeziumException: wrapped\n\tat a.b.C.d(C.java:1)\n\
            Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed\n\
            \tat a.b.C.d(C.java:1)\n";
        let Settled::Failed(reason) = status("RUNNING", &[("FAILED", Some(trace))]).settled()
        else {
            panic!("a failed task")
        };
        assert_eq!(
            reason,
            "ConnectException: An exception occurred\n  because: DebeziumException: wrapped\n  \
             because: PSQLException: FATAL: password authentication failed"
        );
        assert_eq!(first_lines(""), "no reason given");
        assert_eq!(first_lines("java.lang.NullPointerException"), "NullPointerException");
    }

    #[test]
    fn complaints_carry_the_field() {
        let answer = serde_json::json!({"error_count": 1, "configs": [
            {"value": {"name": "database.hostname", "errors": ["no such host"]}},
            {"value": {"name": "slot.name", "errors": []}},
        ]});
        assert_eq!(
            complaints(&answer),
            [("database.hostname".to_owned(), "no such host".to_owned())]
        );
        assert!(complaints(&Value::Null).is_empty());
    }
}
