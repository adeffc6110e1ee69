//! The JSON Schema of the configuration: what our own check reads, and what editors get.

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::{HIDDEN, PipelineConfig};

static SCHEMA: LazyLock<Json> = LazyLock::new(|| schemars::schema_for!(PipelineConfig).to_value());

/// The schema of the types, as our own check reads it.
pub(super) fn root() -> &'static Json {
    &SCHEMA
}

/// Follows a `$ref` and looks through "or null".
pub(super) fn resolve(schema: &'static Json) -> &'static Json {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return resolve(&SCHEMA["$defs"][name]);
    }
    let other_than_null = schema["anyOf"]
        .as_array()
        .and_then(|kinds| kinds.iter().find(|kind| kind["type"] != "null"));
    other_than_null.map_or(schema, resolve)
}

/// What a (resolved) schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    Choice,
    List,
    /// Named settings.
    Section,
    /// Free names.
    Map,
}

/// What a (resolved) schema describes.
pub(super) fn kind(schema: &Json) -> Kind {
    let name = schema["type"].as_str().or_else(|| {
        schema["type"].as_array()?.iter().filter_map(Json::as_str).find(|name| *name != "null")
    });
    match name {
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some("array") => Kind::List,
        Some("object") if schema["properties"].is_object() => Kind::Section,
        Some("object") => Kind::Map,
        _ if choices(schema).next().is_some() => Kind::Choice,
        _ => Kind::Text,
    }
}

/// The allowed values of a choice.
pub(super) fn choices(schema: &Json) -> impl Iterator<Item = &str> {
    let documented = schema["oneOf"].as_array().into_iter().flatten();
    let plain = schema["enum"].as_array().into_iter().flatten();
    documented
        .flat_map(|one| {
            // Variants without a comment of their own are one `enum` among the documented ones.
            let several = one["enum"].as_array().into_iter().flatten();
            one["const"].as_str().into_iter().chain(several.filter_map(Json::as_str))
        })
        .chain(plain.filter_map(Json::as_str))
}

/// Whether a (resolved) schema is that of a secret.
pub(super) fn is_secret(schema: &Json) -> bool {
    schema["writeOnly"] == true
}

/// The schema of one key of a (resolved) section or map.
pub(super) fn member(schema: &'static Json, key: &str) -> Option<&'static Json> {
    let named = schema["properties"].get(key);
    named.or_else(|| Some(&schema["additionalProperties"]).filter(|free| free.is_object()))
}

/// The JSON Schema for editors, as text: `config/pipeline.schema.json`.
///
/// It differs from the types in what an editor sees before references are resolved: wherever a
/// number or truth value stands, a `${…}` may stand too, and passed-on properties may be any
/// scalar.
pub fn editor_schema() -> String {
    let mut schema = SCHEMA.clone();
    schema["title"] = json!("CDC pipeline");
    // The platform file has the same schema and no pipeline in it.
    if let Some(top) = schema.as_object_mut() {
        top.remove("required");
    }
    for_editors(&mut schema);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn for_editors(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(for_editors),
        Json::Object(object) => {
            if let Some(Json::String(text)) = object.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            if object.remove("x-overrides").is_some() {
                object.insert(
                    "additionalProperties".to_owned(),
                    json!({ "type": ["string", "number", "boolean", "null"] }),
                );
            }
            let default = object.get("default");
            if default.is_some_and(|default| {
                default.is_object() || default.is_null() || default == HIDDEN
            }) {
                object.remove("default");
            }
            for value in object.values_mut() {
                for_editors(value);
            }
            allow_references(object);
        }
        _ => {}
    }
}

/// Lets a reference stand where the type is no text.
fn allow_references(object: &mut serde_json::Map<String, Json>) {
    let is_plain = |name: &Json| name == "integer" || name == "number" || name == "boolean";
    let applies = match object.get("type") {
        Some(Json::Array(names)) => names.iter().any(is_plain) && !names.contains(&json!("string")),
        Some(name) => is_plain(name),
        None => false,
    };
    let described = object.contains_key("const") || object.contains_key("anyOf");
    if !applies || described {
        return;
    }
    let mut own = std::mem::take(object);
    for key in ["description", "default"] {
        if let Some(value) = own.remove(key) {
            object.insert(key.to_owned(), value);
        }
    }
    let reference = json!({ "type": "string", "pattern": "\\$\\{" });
    object.insert("anyOf".to_owned(), json!([own, reference]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_SCHEMA=1 cargo test -p cdc-shared schema_for_editors` rewrites the file.
    #[test]
    fn the_schema_for_editors_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/pipeline.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, editor_schema()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == editor_schema(),
            "config/pipeline.schema.json is not current: run `make schema`"
        );
    }

    #[test]
    fn references_may_stand_for_numbers() {
        let schema: Json = serde_json::from_str(&editor_schema()).unwrap();
        let port = &schema["$defs"]["SourceConfig"]["properties"]["port"];
        assert_eq!(port["anyOf"][0]["maximum"], 65535);
        assert_eq!(port["anyOf"][1]["type"], "string");
        assert!(!editor_schema().contains("x-overrides"));
    }
}
