//! From the tree of texts to typed values: every setting is known, has the right type and range,
//! and its references are resolved. The types' own JSON Schema says what is right.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::error::{ConfigError, Place};
use super::references::{has_reference, resolve};
use super::schema::{self, Kind};
use super::sections::Usage;
use super::tree::{Node, Value, join};
use super::{HIDDEN, Variables};

/// What came of a tree.
pub(super) struct Shaped {
    /// The values, which deserialize into the types unless there are errors.
    pub(super) values: Json,
    /// What is wrong.
    pub(super) errors: Vec<ConfigError>,
    /// Paths whose references were left as they are, since the process does not use them.
    pub(super) unresolved: BTreeSet<String>,
}

/// Checks and converts a tree.
pub(super) fn shape(tree: &Node, usage: &Usage, variables: &Variables) -> Shaped {
    let mut reader = Reader { usage, variables, errors: Vec::new(), unresolved: BTreeSet::new() };
    let values = reader.section(tree, schema::root(), "", &tree.place);
    Shaped { values, errors: reader.errors, unresolved: reader.unresolved }
}

struct Reader<'a> {
    usage: &'a Usage,
    variables: &'a Variables,
    errors: Vec<ConfigError>,
    unresolved: BTreeSet<String>,
}

impl Reader<'_> {
    fn error(&mut self, place: &Place, path: &str, message: String) {
        self.errors.push(ConfigError { place: place.clone(), path: path.to_owned(), message });
    }

    fn section(&mut self, node: &Node, schema: &'static Json, path: &str, outer: &Place) -> Json {
        let place = if node.place.is_built_in() { outer } else { &node.place };
        let mut object = Map::new();
        for entry in node.entries() {
            let path = join(path, &entry.key);
            match schema::member(schema, &entry.key) {
                None => {
                    let message = unknown_setting(&entry.key, schema);
                    self.error(&entry.key_place, &path, message);
                }
                Some(member) => {
                    if let Some(value) = self.value(&entry.node, member, &path, place) {
                        object.insert(entry.key.clone(), value);
                    }
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.get(name).is_none_or(|node| node.value == Value::Null) {
                self.error(place, &join(path, name), "is required".to_owned());
            }
        }
        Json::Object(object)
    }

    fn value(
        &mut self,
        node: &Node,
        schema: &'static Json,
        path: &str,
        outer: &Place,
    ) -> Option<Json> {
        let schema = schema::resolve(schema);
        match (schema::kind(schema), &node.value) {
            (_, Value::Null) => None,
            (Kind::Section | Kind::Map, Value::Map(_)) => {
                Some(self.section(node, schema, path, outer))
            }
            (Kind::List, Value::List(items)) => Some(self.list(items, schema, path)),
            (Kind::Section | Kind::Map, _) => {
                self.error(&node.place, path, format!("expected settings, found {}", found(node)));
                None
            }
            (Kind::List, _) => {
                self.error(&node.place, path, format!("expected a list, found {}", found(node)));
                None
            }
            (kind, Value::Text(text)) => self.scalar(node, text, kind, schema, path),
            (kind, _) => {
                let message = format!("expected {}, found {}", expected(kind), found(node));
                self.error(&node.place, path, message);
                None
            }
        }
    }

    fn list(&mut self, items: &[Node], schema: &'static Json, path: &str) -> Json {
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if item.value == Value::Null {
                self.error(&item.place, &path, "is empty".to_owned());
            }
            let value = self.value(item, &schema["items"], &path, &item.place);
            // An item that is wrong keeps its place, so that later checks name the right index.
            list.extend(value.or_else(|| match schema::kind(schema::resolve(&schema["items"])) {
                Kind::Section => Some(Json::Object(Map::new())),
                Kind::Text => Some(Json::String(String::new())),
                _ => None,
            }));
        }
        Json::Array(list)
    }

    fn scalar(
        &mut self,
        node: &Node,
        raw: &str,
        kind: Kind,
        schema: &Json,
        path: &str,
    ) -> Option<Json> {
        let secret = schema::is_secret(schema);
        if !self.usage.uses(path) && (secret || has_reference(raw)) {
            self.unresolved.insert(path.to_owned());
            return match kind {
                Kind::Text if secret => Some(Json::from(HIDDEN)),
                Kind::Text => Some(Json::from(raw)),
                _ => None,
            };
        }
        let resolved = match resolve(raw, self.variables) {
            Ok(text) => text,
            Err(_) if self.usage.is_optional(path) => return None,
            Err(message) => {
                self.error(&node.place, path, message);
                return None;
            }
        };
        match typed(&resolved, kind, schema) {
            Ok(value) => Some(value),
            Err(problem) => {
                // A resolved reference may be a secret that was put in the wrong place.
                let shown = if secret { HIDDEN } else { raw };
                self.error(&node.place, path, problem.replace(FOUND, shown));
                None
            }
        }
    }
}

/// Stands in a message for the text as it was written.
const FOUND: &str = "\u{1}";

fn typed(text: &str, kind: Kind, schema: &Json) -> Result<Json, String> {
    match kind {
        Kind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ => Err(format!("expected true or false, found `{FOUND}`")),
        },
        Kind::Integer => {
            let number: i64 =
                text.parse().map_err(|_| format!("expected a whole number, found `{FOUND}`"))?;
            in_range(number as f64, schema)?;
            Ok(Json::from(number))
        }
        Kind::Number => {
            let number: f64 = text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .ok_or_else(|| format!("expected a number, found `{FOUND}`"))?;
            in_range(number, schema)?;
            Ok(Json::from(number))
        }
        Kind::Choice => choice(text, schema),
        _ => checked_text(text, schema),
    }
}

fn choice(text: &str, schema: &Json) -> Result<Json, String> {
    if let Some(name) = schema::choices(schema).find(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(Json::from(name));
    }
    let names: Vec<_> = schema::choices(schema).collect();
    Err(format!("expected one of {}, found `{FOUND}`", names.join(", ")))
}

fn in_range(number: f64, schema: &Json) -> Result<(), String> {
    // u32 has no `maximum` in the schema, only a format.
    let by_format = (schema["format"] == "uint32").then_some(f64::from(u32::MAX));
    let least = schema["minimum"].as_f64();
    let most = schema["maximum"].as_f64().or(by_format);
    if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
        return Ok(());
    }
    Err(match (least, most) {
        (Some(least), Some(most)) if most <= least => format!("must be {least}, is {FOUND}"),
        (Some(least), Some(most)) => format!("must be from {least} to {most}, is {FOUND}"),
        (Some(least), None) => format!("must be at least {least}, is {FOUND}"),
        (None, most) => format!("must be at most {}, is {FOUND}", most.unwrap_or_default()),
    })
}

fn checked_text(text: &str, schema: &Json) -> Result<Json, String> {
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        return Err("must not be empty".to_owned());
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        return Err(format!("must have at most {most} characters, has {length}"));
    }
    if text.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    match schema["pattern"].as_str() {
        Some(pattern) => named(text, pattern).map(|()| Json::from(text)),
        None => Ok(Json::from(text)),
    }
}

/// Checks a name against one of our patterns, all of the form `^[first][rest]*$` or `^[rest]+$`.
fn named(text: &str, pattern: &str) -> Result<(), String> {
    let allows = |class: &str, c: char| {
        (class.contains("a-z") && c.is_ascii_lowercase())
            || (class.contains("A-Z") && c.is_ascii_uppercase())
            || (class.contains("0-9") && c.is_ascii_digit())
            || (class.contains("._-") && c == '.')
            || (class.contains("_-") && matches!(c, '_' | '-'))
    };
    let classes: Vec<_> = pattern.split(['[', ']']).collect();
    let first = classes.get(1).copied().unwrap_or_default();
    let rest = classes.get(3).copied().unwrap_or(first);
    let mut characters = text.chars();
    if characters.next().is_some_and(|c| allows(first, c)) && characters.all(|c| allows(rest, c)) {
        return Ok(());
    }
    let allowed = match (rest.contains("A-Z"), rest.contains("._-")) {
        (true, true) => "letters, digits, `.`, `_` and `-`",
        (true, false) => "letters, digits, `_` and `-`",
        (false, _) => "lower case letters, digits, `_` and `-`",
    };
    let reason = if text.contains('.') && !rest.contains('.') {
        "; a dot would let names of groups and topics collide"
    } else {
        ""
    };
    Err(format!("`{FOUND}` may only have {allowed}, and begin with a letter or digit{reason}"))
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text",
        Kind::Integer => "a whole number",
        Kind::Number => "a number",
        Kind::Boolean => "true or false",
        Kind::Choice => "one of its values",
        Kind::List => "a list",
        Kind::Section | Kind::Map => "settings",
    }
}

fn found(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "nothing",
        Value::Text(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "settings",
    }
}

fn unknown_setting(key: &str, schema: &Json) -> String {
    let names: Vec<&str> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    match nearest(key, names.iter().copied()) {
        Some(name) => format!("unknown setting; did you mean `{name}`?"),
        None => format!("unknown setting; known here: {}", names.join(", ")),
    }
}

/// The name that a misspelt one was probably meant to be.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
