//! Settings as they were written: a tree of texts, each with its place.
//!
//! Scalars stay text, exactly as in the file: what a text means is decided by the setting it is
//! for. So `name: no` and `password: 0123` keep their spelling, and merging needs no types.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Options, Spanned};

use super::error::{ConfigError, Place};

/// A setting or a group of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Node {
    /// A map without entries.
    pub(super) fn empty(place: Place) -> Self {
        Self { place, value: Value::Map(Vec::new()) }
    }

    /// The entries of a map; nothing for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; nothing for anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where `path` (`sinks[0].postgres.port`) is written, or the nearest of what surrounds it.
    pub(super) fn place_of(&self, path: &str) -> &Place {
        let mut node = self;
        let mut place = &self.place;
        let mut rest = path;
        while let Some((next, after)) = node.step(rest) {
            node = next;
            rest = after;
            if !next.place.is_built_in() {
                place = &next.place;
            }
        }
        place
    }

    /// The node that a path leads to first, and the rest of the path. Names of properties have
    /// dots, so a whole path may be one key.
    fn step<'a>(&self, path: &'a str) -> Option<(&Node, &'a str)> {
        if let Some(node) = self.get(path) {
            return Some((node, ""));
        }
        if let Some(inner) = path.strip_prefix('[') {
            let (index, rest) = inner.split_once(']')?;
            let node = self.items().get(index.parse::<usize>().ok()?)?;
            return Some((node, rest.trim_start_matches('.')));
        }
        let (key, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        Some((self.get(key)?, rest.trim_start_matches('.')))
    }

    /// Calls `visit` with every text of the tree.
    pub(super) fn each_text(&self, visit: &mut dyn FnMut(&str)) {
        match &self.value {
            Value::Null => {}
            Value::Text(text) => visit(text),
            Value::List(items) => items.iter().for_each(|item| item.each_text(visit)),
            Value::Map(entries) => entries.iter().for_each(|entry| entry.node.each_text(visit)),
        }
    }

    /// Lays `over` on top: maps are merged key by key, anything else is replaced. An empty section
    /// (`kafka:`) leaves what is below; an empty value takes it away.
    pub(super) fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Map(below), Value::Map(entries)) => {
                self.place = over.place;
                for entry in entries {
                    match below.iter_mut().find(|own| own.key == entry.key) {
                        Some(own) => {
                            own.key_place = entry.key_place;
                            own.node.merge(entry.node);
                        }
                        None => below.push(entry),
                    }
                }
            }
            (Value::Map(_), Value::Null) => {}
            (_, value) => *self = Node { place: over.place, value },
        }
    }
}

/// Reads YAML. What is wrong is added to `errors`; an empty document is a map without entries.
pub(super) fn parse(source: &Arc<str>, text: &str, errors: &mut Vec<ConfigError>) -> Option<Node> {
    let top = Place { source: Arc::clone(source), line: 1 };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => {
            let mut reading = Reading { source, text, errors };
            let node = reading.node(raw, "");
            match node.value {
                Value::Map(_) => Some(node),
                Value::Null => Some(Node::empty(top)),
                _ => {
                    let message = "expected settings as `name: value`".to_owned();
                    errors.push(ConfigError { place: top, path: String::new(), message });
                    None
                }
            }
        }
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line() as u32);
            let message = format!("not YAML: {}", plain_message(&error));
            let place = Place { source: Arc::clone(source), line };
            errors.push(ConfigError { place, path: String::new(), message });
            None
        }
    }
}

/// The parser's message in one line, without the position that our errors begin with.
fn plain_message(error: &serde_yaml::Error) -> String {
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or_default();
    // What follows speaks to programmers, or repeats the place.
    let cut = [" at line ", "; use "].iter().filter_map(|end| message.find(end)).min();
    let cut = cut.unwrap_or(message.len());
    message[..cut].trim_end_matches([':', ' ']).to_owned()
}

fn options() -> Options {
    let mut options = Options::default();
    // Duplicates are found by us, so that all of them are reported.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.strict_booleans = true;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    options.with_snippet = false;
    options
}

/// What the parser hands over.
enum Raw {
    Null,
    Text(String),
    /// A number or a truth value: its spelling is taken from the file.
    Plain(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Turns what the parser handed over into nodes.
struct Reading<'a> {
    source: &'a Arc<str>,
    text: &'a str,
    errors: &'a mut Vec<ConfigError>,
}

impl Reading<'_> {
    fn node(&mut self, raw: Spanned<Raw>, path: &str) -> Node {
        let place = self.place(raw.referenced.line());
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Text(text) => Value::Text(text),
            Raw::Plain(text) => Value::Text(self.spelling(&raw.defined).unwrap_or(text)),
            Raw::List(items) => Value::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, &format!("{path}[{index}]")))
                    .collect(),
            ),
            Raw::Map(entries) => Value::Map(self.entries(entries, path)),
        };
        Node { place, value }
    }

    fn entries(&mut self, raw: Vec<(Spanned<String>, Spanned<Raw>)>, path: &str) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let key_place = self.place(key.referenced.line());
            let key = key.value;
            let path = join(path, &key);
            if let Some(sign) = self.dropped(&value, key_place.line) {
                let message = format!(
                    "YAML takes a `{sign}` at the beginning for itself: put the value in quotes"
                );
                let (place, path) = (key_place.clone(), path.clone());
                self.errors.push(ConfigError { place, path, message });
            }
            let mut node = self.node(value, &path);
            // What is written below its key is looked for at the key.
            node.place = key_place.clone();
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("given twice, first in line {}", first.key_place.line);
                self.errors.push(ConfigError { place: key_place, path, message });
                continue;
            }
            entries.push(Entry { key, key_place, node });
        }
        entries
    }

    /// The sign of a tag or an anchor that left nothing of a value: a password such as `!x1` would
    /// silently be none.
    fn dropped(&self, value: &Spanned<Raw>, line: u32) -> Option<char> {
        if !matches!(value.value, Raw::Null) {
            return None;
        }
        let line = self.text.lines().nth(line.checked_sub(1)? as usize)?;
        let (_, value) = line.split_once(": ")?;
        value.trim_start().chars().next().filter(|sign| matches!(sign, '!' | '&'))
    }

    fn place(&self, line: u64) -> Place {
        Place { source: Arc::clone(self.source), line: line as u32 }
    }

    fn spelling(&self, location: &serde_yaml::Location) -> Option<String> {
        let start = usize::try_from(location.span().byte_offset()?).ok()?;
        let length = usize::try_from(location.span().byte_len()?).ok()?;
        let text = self.text.get(start..start.checked_add(length)?)?.trim();
        (!text.is_empty() && !text.contains(['\n', '&', '!'])).then(|| text.to_owned())
    }
}

/// A dotted path with one more key.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let mut errors = Vec::new();
        let node = parse(&Arc::from("f.yaml"), text, &mut errors);
        (node, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn scalars_keep_their_spelling_and_line() {
        let (node, errors) = read(
            "a: no\nb: 0123\nc: 1_000\nd: 1.10\ne: true\nf: 0x1F\ng:\nh: \"x\"\ni: &z 07\nj: *z\n",
        );
        let node = node.unwrap();
        assert_eq!(errors, Vec::<String>::new());
        let texts: Vec<_> = node.entries().iter().map(|entry| entry.node.text()).collect();
        assert_eq!(
            texts,
            ["no", "0123", "1_000", "1.10", "true", "0x1F", "-", "x", "07", "07"]
                .map(|text| (text != "-").then_some(text))
        );
        assert_eq!(node.place_of("d").line, 4);
        assert_eq!(node.place_of("d.nothing").line, 4);
    }

    #[test]
    fn every_duplicate_key_is_reported() {
        let (_, errors) = read("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n");
        assert_eq!(
            errors,
            [
                "f.yaml:4: b.c: given twice, first in line 3",
                "f.yaml:5: a: given twice, first in line 1"
            ]
        );
    }

    #[test]
    fn broken_yaml_names_its_line() {
        for (text, line) in
            [("a: [1\nb: 2\n", 2), ("a: 'x\n", 1), ("a:\n\t- b\n", 2), ("a: *x\n", 1)]
        {
            let (node, errors) = read(text);
            assert!(node.is_none(), "{text:?}");
            assert!(errors[0].starts_with(&format!("f.yaml:{line}: not YAML: ")), "{errors:?}");
        }
        assert_eq!(read("- a\n").1, ["f.yaml:1: expected settings as `name: value`"]);
    }

    #[test]
    fn a_hostile_file_is_refused() {
        let levels = (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
        let bomb = "a0: &a0 [x, x]\n".to_owned() + &levels.collect::<Vec<_>>().concat();
        for text in ["[".repeat(100_000), "a: ".to_owned() + &"{b: ".repeat(100_000), bomb] {
            let (node, errors) = read(&text);
            assert!(node.is_none() && errors.len() == 1, "{errors:?}");
        }
    }

    #[test]
    fn a_layer_replaces_key_by_key() {
        let mut node = read("a: {x: 1, y: 2}\nl: [1]\ns:\n  k: v\n").0.unwrap();
        node.merge(read("a: {y: 3}\nl: [2, 3]\ns:\n").0.unwrap());
        assert_eq!(node.get("a").unwrap().get("x").unwrap().text(), Some("1"));
        assert_eq!(node.get("a").unwrap().get("y").unwrap().text(), Some("3"));
        assert_eq!(node.get("l").unwrap().items().len(), 2);
        assert_eq!(node.get("s").unwrap().get("k").unwrap().text(), Some("v"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n\\t]{0,80}|([a-c]: ?[\\[{*&!|>'\"$-]{0,3}[a-c1-3]{0,3}[\\]}'\"]{0,2}\\n? {0,3}){0,6}") {
            let (node, errors) = read(&text);
            prop_assert!(node.is_some() || !errors.is_empty());
        }
    }
}
