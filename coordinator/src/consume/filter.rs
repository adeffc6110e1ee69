//! Which events are shown.

use serde_json::Value;

/// Whether a key has every field that is wanted. Numbers and their text are the same: a 64-bit key
/// may be printed either way.
pub(crate) fn matches(wanted: &Value, key: &Value) -> bool {
    match (wanted, key) {
        (Value::Object(wanted), Value::Object(key)) => wanted
            .iter()
            .all(|(name, value)| key.get(name).is_some_and(|found| matches(value, found))),
        // A key of one column can be given by its value alone.
        (wanted, Value::Object(key)) if key.len() == 1 => {
            key.values().all(|found| matches(wanted, found))
        }
        (wanted, key) => wanted == key || plain(wanted) == plain(key),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_fields_or_its_only_value() {
        let key = json!({ "id": 7 });
        assert!(matches(&json!({ "id": 7 }), &key));
        assert!(matches(&json!({ "id": "7" }), &key));
        assert!(matches(&json!(7), &key));
        assert!(!matches(&json!(8), &key));
        assert!(!matches(&json!({ "other": 7 }), &key));
        let pair = json!({ "a": 1, "b": "x" });
        assert!(matches(&json!({ "b": "x" }), &pair));
        assert!(!matches(&json!(1), &pair));
        assert!(!matches(&json!(1), &Value::Null));
    }
}
