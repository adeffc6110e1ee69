//! The topmost layer: `CDC_` variables, nested by `__`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{ConfigError, Place};
use super::schema::{self, Kind};
use super::shape::nearest;
use super::tree::{Entry, Node, Value};
use super::{Variables, references};

/// What the name of every setting's variable begins with.
const PREFIX: &str = "CDC_";

/// Variables that begin like settings and are something else: ports of `deploy/local`, and
/// switches of tests, benches and demo.
const OTHER_PREFIXES: &[&str] = &["CDC_LOCAL_", "CDC_TEST_", "CDC_BENCH_", "CDC_DEMO_"];

/// Variables that stand for arguments of commands.
const ARGUMENTS: &[&str] = &["CDC_PIPELINE", "CDC_PLATFORM_CONFIG", "CDC_SINK"];

/// The variables as a layer. Variables that the files refer to (`${CDC_…}`) are no settings, nor
/// are empty ones.
pub(super) fn layer(variables: &Variables, files: &[&Node], errors: &mut Vec<ConfigError>) -> Node {
    let mut referred = BTreeSet::new();
    for file in files {
        file.each_text(&mut |text| {
            referred.extend(references::variable_names(text).map(str::to_owned));
        });
    }
    let mut root = Node::empty(place("environment"));
    for (name, value) in variables {
        let Some(setting) = name.strip_prefix(PREFIX) else { continue };
        let other = OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || ARGUMENTS.contains(&name.as_str());
        if value.is_empty() || other {
            continue;
        }
        match node_for(setting, value, name) {
            Ok(node) => root.merge(node),
            Err(_) if referred.contains(name) => {}
            Err(message) => {
                errors.push(ConfigError { place: place(name), path: String::new(), message });
            }
        }
    }
    root
}

fn place(name: &str) -> Place {
    Place { source: Arc::from(name), line: 0 }
}

/// The tree that one variable stands for.
fn node_for(setting: &str, value: &str, name: &str) -> Result<Node, String> {
    let mut schema = schema::root();
    let mut keys = Vec::new();
    for segment in setting.split("__") {
        let key = match schema::kind(schema) {
            Kind::Section => segment.to_ascii_lowercase(),
            // Properties have dots where a variable's name has underscores.
            Kind::Map => segment.to_ascii_lowercase().replace('_', "."),
            _ => return Err(unknown(name)),
        };
        schema = schema::resolve(schema::member(schema, &key).ok_or_else(|| unknown(name))?);
        keys.push(key);
    }
    let value = match schema::kind(schema) {
        Kind::List if schema::kind(schema::resolve(&schema["items"])) == Kind::Section => {
            return Err(
                "cannot be set by a variable: refer to one in the file as ${VAR}".to_owned()
            );
        }
        Kind::List => Value::List(
            value
                .split(',')
                .map(|item| Node { place: place(name), value: Value::Text(item.trim().to_owned()) })
                .collect(),
        ),
        Kind::Section | Kind::Map => {
            return Err(format!("is a group of settings: name one of them, as {name}__…"));
        }
        _ => Value::Text(value.to_owned()),
    };
    let leaf = Node { place: place(name), value };
    Ok(keys.into_iter().rev().fold(leaf, |node, key| Node {
        place: place(name),
        value: Value::Map(vec![Entry { key, key_place: place(name), node }]),
    }))
}

fn unknown(name: &str) -> String {
    let names = names();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("no such setting; did you mean {near}?"),
        None => "no such setting".to_owned(),
    }
}

/// The variable of every setting.
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    collect(schema::root(), "CDC", "_", &mut names);
    names
}

fn collect(schema: &'static Json, name: &str, separator: &str, names: &mut Vec<String>) {
    for (key, member) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{name}{separator}{}", key.to_ascii_uppercase());
        let member = schema::resolve(member);
        match schema::kind(member) {
            Kind::Section => collect(member, &name, "__", names),
            Kind::Map => {}
            Kind::List if schema::kind(schema::resolve(&member["items"])) == Kind::Section => {}
            _ => names.push(name),
        }
    }
}
