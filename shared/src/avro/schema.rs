//! Schema JSON: reading it, checking it, and finding the types that it names.

use std::collections::{BTreeMap, HashMap, HashSet};

use apache_avro::Schema;
use serde_json::{Map, Value as Json};

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is no JSON, or no Avro schema.
    #[error("schema {schema_id} is not a valid avro schema: {reason}")]
    Invalid {
        /// Id at the registry.
        schema_id: i32,
        /// What the parser says.
        reason: String,
    },
    /// A reference's text is no JSON.
    #[error("schema {schema_id}: its reference `{name}` is not a valid avro schema: {reason}")]
    InvalidReference {
        /// Id at the registry.
        schema_id: i32,
        /// Name of the reference.
        name: String,
        /// What the parser says.
        reason: String,
    },
    /// A type is used by name and defined nowhere.
    #[error(
        "schema {schema_id} uses the type `{name}`, which neither it nor its references define"
    )]
    Unknown {
        /// Id at the registry.
        schema_id: i32,
        /// Name as it is used.
        name: String,
    },
    /// Types inside types beyond 256.
    #[error("schema {schema_id} nests types more than {MAX_NESTING} deep")]
    TooDeep {
        /// Id at the registry.
        schema_id: i32,
    },
}

/// Deepest nesting of types that is compiled (a recursive type counts once).
pub(super) const MAX_NESTING: u32 = 256;

/// A type's definition and the namespace that surrounds it.
pub(super) struct Definition<'s> {
    pub(super) json: &'s Map<String, Json>,
    pub(super) namespace: String,
}

/// The JSON of a schema and of its references, checked by apache-avro.
pub(super) struct Source {
    pub(super) main: Json,
    pub(super) references: Vec<Json>,
}

impl Source {
    pub(super) fn read(
        schema_id: i32,
        schema: &str,
        references: &[(&str, &str)],
    ) -> Result<Self, SchemaError> {
        let invalid = |reason: String| SchemaError::Invalid { schema_id, reason };
        let main: Json =
            serde_json::from_str(schema).map_err(|error| invalid(error.to_string()))?;
        let mut parsed = Vec::with_capacity(references.len());
        for (name, json) in references {
            parsed.push(serde_json::from_str(json).map_err(|error| {
                SchemaError::InvalidReference {
                    schema_id,
                    name: (*name).to_owned(),
                    reason: format!("{error}"),
                }
            })?);
        }
        let source = Self { main, references: parsed };
        source.check().map_err(|error| invalid(error.to_string()))?;
        Ok(source)
    }

    /// Field defaults are taken out first: they have no part in decoding, and a default that
    /// only another Avro library can read must not hold a topic.
    fn check(&self) -> Result<(), apache_avro::Error> {
        let mut seen = HashSet::new();
        let references: Vec<String> = self
            .references
            .iter()
            .filter(|json| match json.as_object().and_then(|json| full_name(json, "")) {
                Some(name) => seen.insert(name),
                None => true,
            })
            .map(|json| without_defaults(json).to_string())
            .collect();
        let main = without_defaults(&self.main).to_string();
        Schema::parse_str_with_list(&main, &references).map(|_| ())
    }

    /// All named types by full name. Of two definitions of one name the first counts.
    pub(super) fn definitions(&self) -> HashMap<String, Definition<'_>> {
        let mut found = HashMap::new();
        for json in std::iter::once(&self.main).chain(&self.references) {
            collect(json, "", &mut found);
        }
        found
    }
}

fn without_defaults(json: &Json) -> Json {
    match json {
        Json::Array(items) => Json::Array(items.iter().map(without_defaults).collect()),
        Json::Object(object) => {
            let is_type = matches!(object.get("type"), Some(Json::String(kind)) if kind == "enum");
            let keep = |key: &&String| is_type || key.as_str() != "default";
            let entries = object.iter().filter(|(key, _)| keep(key));
            Json::Object(
                entries
                    .map(|(key, value)| match key.as_str() {
                        "type" | "fields" | "items" | "values" => {
                            (key.clone(), without_defaults(value))
                        }
                        _ => (key.clone(), value.clone()),
                    })
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn collect<'s>(json: &'s Json, namespace: &str, found: &mut HashMap<String, Definition<'s>>) {
    match json {
        Json::Array(branches) => {
            for branch in branches {
                collect(branch, namespace, found);
            }
        }
        Json::Object(object) => {
            let mut inner = namespace.to_owned();
            if let Some(name) = full_name(object, namespace) {
                namespace_of(&name).clone_into(&mut inner);
                found.entry(name).or_insert_with(|| Definition {
                    json: object,
                    namespace: namespace.to_owned(),
                });
            }
            if let Some(Json::Array(fields)) = object.get("fields") {
                for field in fields.iter().filter_map(|field| field.get("type")) {
                    collect(field, &inner, found);
                }
            }
            for key in ["type", "items", "values"] {
                if let Some(part @ (Json::Object(_) | Json::Array(_))) = object.get(key) {
                    collect(part, &inner, found);
                }
            }
        }
        _ => {}
    }
}

/// The full name that a record, enum or fixed gives itself; `None` for anything else.
pub(super) fn full_name(json: &Map<String, Json>, namespace: &str) -> Option<String> {
    if !matches!(json.get("type")?.as_str()?, "record" | "error" | "enum" | "fixed") {
        return None;
    }
    let name = json.get("name")?.as_str()?;
    let namespace = json.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
    Some(qualify(name, namespace))
}

/// A name as it is written, made full by the namespace around it.
pub(super) fn qualify(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// The namespace of a full name, empty if it has none.
pub(super) fn namespace_of(full_name: &str) -> &str {
    full_name.rsplit_once('.').map_or("", |(namespace, _)| namespace)
}

/// `connect.parameters` as text by name (Connect writes only text; others are kept as JSON).
pub(super) fn parameters(json: &Map<String, Json>) -> BTreeMap<String, String> {
    let Some(Json::Object(parameters)) = json.get("connect.parameters") else {
        return BTreeMap::new();
    };
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    parameters.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}
