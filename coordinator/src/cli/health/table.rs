//! A JSON report as text for a person: fields as lines, lists of objects as tables.

use std::fmt::Write as _;

use serde_json::{Map, Value};

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
        _ if name == "status" => 0,
        Value::Object(_) | Value::Array(_) => 2,
        _ => 1,
    };
    for wanted in 0..3 {
        for (name, value) in fields.iter().filter(|(name, value)| rank(name, value) == wanted) {
            let name = name.replace('_', " ");
            match value {
                Value::Null => {}
                Value::Object(inner) if inner.is_empty() => {}
                Value::Object(inner) => {
                    let _ = writeln!(text, "{indent}{name}:");
                    object(inner, depth + 1, text);
                }
                Value::Array(items) => list(&name, items, depth, text),
                plain => {
                    let _ = writeln!(text, "{indent}{name}: {}", scalar(plain));
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

/// Columns in the order in which they first appear; those without any value are left out.
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
}

/// The plain fields of an object, those of inner objects by a dotted name.
fn flat(prefix: &str, item: &Value) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for (name, value) in item.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Null => {}
            Value::Object(_) => fields.extend(flat(&format!("{name}."), value)),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                fields.push((name, items.len().to_string()));
            }
            Value::Array(items) => {
                fields.push((name, items.iter().map(scalar).collect::<Vec<_>>().join(",")));
            }
            plain => fields.push((name, scalar(plain))),
        }
    }
    fields
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
            "sinks": [
                { "sink_id": "wh", "state": "running", "lag": { "records": 0 } },
                { "sink_id": "analytics", "state": "degraded", "last_error": null },
            ],
            "status": "degraded",
            "consumer_lag": [],
            "connect": { "status": "ok", "tasks": ["RUNNING"] },
        });
        assert_eq!(
            outline(&report),
            "status: degraded\npipeline id: demo\nconnect:\n  status: ok\n  tasks: RUNNING\n\
             consumer lag: none\nsinks:\n  LAG.RECORDS  SINK ID    STATE\n  \
             0            wh         running\n  -            analytics  degraded"
        );
    }
}
