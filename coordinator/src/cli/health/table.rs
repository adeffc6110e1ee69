//! A JSON report as text for a person: fields as lines, lists of objects as tables.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::connect::first_lines;
use crate::source::bytes;

/// The report as text, without a line end.
pub(in crate::cli) fn outline(report: &Value) -> String {
    let mut text = String::new();
    match report {
        Value::Object(fields) => object(fields, 0, &mut text),
        other => text.push_str(&scalar(other)),
    }
    text.truncate(text.trim_end().len());
    text
}

fn object(fields: &Map<String, Value>, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    // The verdict first, then plain fields, then what has parts of its own.
    let rank = |name: &str, value: &Value| match value {
        _ if name == "verdict" => 0,
        Value::Object(_) | Value::Array(_) => 2,
        _ => 1,
    };
    for wanted in 0..3 {
        for (field, value) in fields.iter().filter(|(name, value)| rank(name, value) == wanted) {
            let name = field.replace('_', " ");
            match value {
                Value::Null => {}
                Value::Object(inner) if inner.is_empty() => {}
                Value::Object(inner) => {
                    let _ = writeln!(text, "{indent}{name}:");
                    object(inner, depth + 1, text);
                }
                Value::Array(items) => list(&name, items, depth, text),
                plain => {
                    let (field, value) = shown(field, plain);
                    let _ = writeln!(text, "{indent}{}: {value}", field.replace('_', " "));
                }
            }
        }
    }
}

fn list(name: &str, items: &[Value], depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    if items.is_empty() {
        let _ = writeln!(text, "{indent}{name}: none");
    } else if items.iter().all(Value::is_object) {
        let _ = writeln!(text, "{indent}{name}:");
        table(items, &format!("{indent}  "), text);
    } else {
        let items: Vec<String> = items.iter().map(scalar).collect();
        let _ = writeln!(text, "{indent}{name}: {}", items.join(", "));
    }
}

/// What tells one row of a table from another comes first, then how it is.
const LEADING: &[&str] =
    &["sink_id", "id", "name", "topic", "partition", "severity", "status", "state", "code"];

/// Columns without any value are left out; lists inside a row follow as tables of their own.
fn table(items: &[Value], indent: &str, text: &mut String) {
    let rows: Vec<Vec<(String, String)>> = items.iter().map(|item| flat("", item)).collect();
    let mut columns: Vec<(String, usize)> = Vec::new();
    for (name, value) in rows.iter().flatten() {
        let width = value.chars().count().max(name.chars().count());
        match columns.iter_mut().find(|(column, _)| column == name) {
            Some((_, widest)) => *widest = width.max(*widest),
            None => columns.push((name.clone(), width)),
        }
    }
    columns.sort_by_key(|(name, _)| LEADING.iter().position(|l| l == name).unwrap_or(usize::MAX));
    let mut line = |cell: &dyn Fn(&str) -> String| {
        let cells: Vec<String> =
            columns.iter().map(|(name, width)| format!("{:<width$}", cell(name))).collect();
        let _ = writeln!(text, "{indent}{}", cells.join("  ").trim_end());
    };
    line(&|name| name.replace('_', " ").to_uppercase());
    for row in &rows {
        line(&|name| {
            row.iter().find(|(field, _)| field == name).map_or("-", |(_, value)| value).to_owned()
        });
    }
    for item in items {
        inner_lists(item, indent, text);
    }
}

fn inner_lists(item: &Value, indent: &str, text: &mut String) {
    let who = LEADING.iter().find_map(|name| item[*name].as_str()).unwrap_or("");
    for (name, value) in item.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(items) if items.iter().any(Value::is_object) => {
                let _ = writeln!(text, "{indent}{who} {}:", name.replace('_', " "));
                table(items, &format!("{indent}  "), text);
            }
            _ => {}
        }
    }
}

/// The plain fields of an object, those of inner objects by a dotted name.
fn flat(prefix: &str, item: &Value) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (field, value) in item.as_object().into_iter().flatten() {
        let name = format!("{prefix}{field}");
        match value {
            Value::Null => {}
            Value::Object(_) => fields.extend(flat(&format!("{name}."), value)),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                fields.push((name, items.len().to_string()));
            }
            Value::Array(items) if items.is_empty() => {}
            Value::Array(items) => {
                fields.push((name, items.iter().map(scalar).collect::<Vec<_>>().join(",")));
            }
            plain => {
                let (name, value) = shown(&name, plain);
                fields.push((name, value));
            }
        }
    }
    fields
}

/// A field as a person reads it: points in time, amounts of bytes, causes instead of stack traces.
fn shown(name: &str, value: &Value) -> (String, String) {
    // Smaller numbers of milliseconds are durations.
    let moment = value.as_i64().filter(|ms| name.ends_with("_ms") && *ms > 100_000_000_000);
    if let Some(time) = moment.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        let name = name.trim_end_matches("_ms").to_owned();
        return (name, time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    }
    let text = match (value.as_i64(), value.as_str()) {
        (Some(count), _) if name.ends_with("_bytes") => bytes(count),
        (_, Some(trace)) if name.ends_with("trace") => first_lines(trace),
        _ => scalar(value),
    };
    (name.to_owned(), text)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_reads_as_lines_and_tables() {
        let report = json!({
            "pipeline_id": "demo",
            "at_ms": 1_700_000_000_000_i64,
            "sinks": [
                { "state": "running", "sink_id": "wh", "lag": { "records": 0 }, "holds": [
                    { "topic": "t", "partition": 1, "way_out": "cdc skip" }
                ] },
                { "state": "degraded", "sink_id": "analytics", "last_error": null, "holds": [] },
            ],
            "verdict": "degraded",
            "consumer_lag": [],
            "connect": { "state": "up", "retained_bytes": 2048, "tasks": ["RUNNING"] },
        });
        assert_eq!(
            outline(&report),
            "verdict: degraded\nat: 2023-11-14 22:13:20 UTC\npipeline id: demo\nconnect:\n  \
             retained bytes: 2.0 KiB\n  state: up\n  tasks: RUNNING\nconsumer lag: none\nsinks:\n  \
             SINK ID    STATE     HOLDS  LAG.RECORDS\n  \
             wh         running   1      0\n  \
             analytics  degraded  -      -\n  \
             wh holds:\n    TOPIC  PARTITION  WAY OUT\n    t      1          cdc skip"
        );
    }
}
