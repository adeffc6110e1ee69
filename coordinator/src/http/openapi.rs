//! The interface as an `OpenAPI` document, made from the types that the handlers take and give.

use std::sync::LazyLock;

use cdc_shared::api::{
    AUDIT_PATH, COMMAND_PATH, CommandReply, CommandRequest, DLQ_PATH, ErrorBody, HEALTH_PATH,
    HEARTBEAT_PATH, Heartbeat, HeartbeatReply, LETTER_PATH, SCALING_PATH, SCHEMAS_PATH,
    STATUS_PATH, TASKS_PATH, WATERMARKS_PATH, Watermarks,
};
use cdc_shared::audit::AuditTrail;
use cdc_shared::config::Role;
use cdc_shared::dlq::{LetterDetail, Letters};
use cdc_shared::schema::SchemaReport;
use cdc_shared::task::Tasks;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::error::CODES;
use crate::health::{HealthReport, StatusReport};
use crate::scaling::ScalingReport;

/// Path of the document (GET, without a token: it tells nothing of the pipeline).
pub(super) const OPENAPI_PATH: &str = "/v1/openapi.json";

const LETTER_QUERY: &[&str] = &[
    "sink",
    "topic",
    "partition",
    "offset",
    "error_type",
    "since_ms",
    "until_ms",
    "key",
    "state",
    "limit",
];

type Type = fn(&mut SchemaGenerator) -> Schema;

/// One thing to ask for.
struct Operation {
    method: &'static str,
    path: &'static str,
    role: Role,
    summary: &'static str,
    /// What may be asked with it, as in [`cdc_shared::dlq::LetterFilter`].
    query: &'static [&'static str],
    body: Option<Type>,
    answer: Type,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn look(path: &'static str, summary: &'static str, answer: Type) -> Operation {
    Operation { method: "get", path, role: Role::Reader, summary, query: &[], body: None, answer }
}

fn operations() -> Vec<Operation> {
    vec![
        look(HEALTH_PATH, "What is wrong, how bad it is, and the way out", schema::<HealthReport>),
        look(STATUS_PATH, "The same with each partition", schema::<StatusReport>),
        look(TASKS_PATH, "What workers do beside delivering", schema::<Tasks>),
        look(SCHEMAS_PATH, "Schemas and every change of them", schema::<SchemaReport>),
        Operation { query: LETTER_QUERY, ..look(DLQ_PATH, "Dead letters", schema::<Letters>) },
        look(SCALING_PATH, "How many workers each sink should have", schema::<ScalingReport>),
        look(LETTER_PATH, "One dead letter, decoded", schema::<LetterDetail>),
        look(AUDIT_PATH, "The newest commands, newest first", schema::<AuditTrail>),
        Operation {
            method: "post",
            path: COMMAND_PATH,
            role: Role::Operator,
            summary: "Changes something; may be repeated",
            query: &[],
            body: Some(schema::<CommandRequest>),
            answer: schema::<CommandReply>,
        },
        Operation {
            method: "post",
            path: HEARTBEAT_PATH,
            role: Role::Worker,
            summary: "A worker tells how it is, and is told what it is to do",
            query: &[],
            body: Some(schema::<Heartbeat>),
            answer: schema::<HeartbeatReply>,
        },
        Operation {
            role: Role::Worker,
            ..look(WATERMARKS_PATH, "The watermarks of a sink", schema::<Watermarks>)
        },
    ]
}

/// The document, made when somebody first asks.
pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let failure = generator.subschema_for::<ErrorBody>();
    for operation in operations() {
        let described = describe(&operation, &failure, &mut generator);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    let mut definitions = generator.take_definitions(true);
    let codes: Map<String, Value> =
        CODES.iter().map(|(code, statuses)| ((*code).to_owned(), json!(statuses))).collect();
    if let Some(code) = definitions["ErrorBody"].pointer_mut("/properties/code") {
        code["x-codes"] = Value::Object(codes);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "CDC Platform: the coordinator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Fields may be added within /v1; none is removed or changes its meaning. \
                            Every failure has the shape of ErrorBody, with a stable code; the \
                            field x-codes of it lists them with their statuses.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": definitions,
        },
    })
}

fn describe(operation: &Operation, failure: &Schema, generator: &mut SchemaGenerator) -> Value {
    let content = |schema: &Schema| json!({"application/json": {"schema": schema}});
    let mut described = json!({
        "summary": operation.summary,
        "description": format!("Needs the role {}.", operation.role.name()),
        "operationId": operation_id(operation),
        "security": [{"token": []}, {}],
        "responses": {
            "200": {"description": "done", "content": content(&(operation.answer)(generator))},
            "default": {"description": "refused or failed", "content": content(failure)},
        },
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({"required": true, "content": content(&body(generator))});
    }
    let named = operation.path.split('/').filter_map(|part| part.strip_prefix('{'));
    let parameter = |name: &str, place: &str| {
        let required = place == "path";
        json!({"name": name, "in": place, "required": required, "schema": {"type": "string"}})
    };
    let in_path = named.map(|part| parameter(part.trim_end_matches('}'), "path"));
    let in_query = operation.query.iter().map(|name| parameter(name, "query"));
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    described
}

/// `get_health`, `post_commands`, `get_sinks_watermarks`.
fn operation_id(operation: &Operation) -> String {
    let parts = operation.path.split('/').skip(2).filter(|part| !part.starts_with('{'));
    std::iter::once(operation.method).chain(parts).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

    #[test]
    fn openapi_document_is_current() {
        let mut text = serde_json::to_string_pretty(&document()).unwrap();
        text.push('\n');
        if cdc_shared::config::process_variables().contains_key("UPDATE_SCHEMA") {
            std::fs::write(FILE, &text).unwrap();
        }
        let stored = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(stored == text, "docs/openapi.json is not what the code says: make schema");
    }

    #[test]
    fn every_code_of_a_refusal_is_listed() {
        fn sources(folder: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let is_test = path.to_string_lossy().contains("test");
                if path.is_dir() {
                    sources(&path, found);
                } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test {
                    found.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut texts = Vec::new();
        for folder in ["control", "http", "schema"] {
            sources(
                &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder),
                &mut texts,
            );
        }
        let mut codes = std::collections::BTreeSet::new();
        for text in &texts {
            for opening in ["refuse(", "code: ", "Self::new("] {
                for rest in text.split(opening).skip(1) {
                    // A status may come first.
                    let rest = rest.trim_start().trim_start_matches("StatusCode::");
                    let rest =
                        rest.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
                    let rest = rest.trim_start_matches(',').trim_start();
                    let code = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
                    codes.extend(code.filter(|code| !code.contains(' ')));
                }
            }
        }
        let listed: std::collections::BTreeSet<&str> =
            CODES.iter().map(|(code, _)| *code).collect();
        let missing: Vec<_> = codes.difference(&listed).collect();
        assert!(codes.len() > 20 && missing.is_empty(), "{missing:?} of {codes:?}");
    }

    /// Every path that worker, command line and coordinator share is in the document.
    #[test]
    fn every_shared_path_is_described() {
        let api = include_str!("../../../shared/src/api.rs");
        let paths: Vec<&str> = api.split('"').filter(|text| text.starts_with("/v1/")).collect();
        assert!(paths.len() > 6, "{paths:?}");
        let document = document();
        for path in paths {
            assert!(document["paths"].get(path).is_some(), "{path} is not described");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        found.push(reference.clone());
                    }
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let (document, mut found) = (document(), Vec::new());
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}
