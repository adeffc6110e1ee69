//! The statement that writes a batch.
//!
//! One statement, one round trip, one transaction of its own: the compare-and-set of the sink's
//! own record, and the rows only if it hit. Under READ COMMITTED a second writer waits for the
//! row of the record, sees what the first made of it, misses, and inserts nothing.

use super::config::{EventsOptions, Options};
use super::name::quote;
use super::table::{IDENTITY, KEY, Layout, OFFSET, PARTITION, TOPIC, VALUE};

/// What the record is expected to be; `$1` to `$7`, in the order of
/// [`super::progress::Step::expectation`].
pub(super) const EXPECTATION: &str = "pipeline_id = $1 AND sink_id = $2 AND topic = $3 \
    AND \"partition\" = $4 AND next_offset = $5 AND incarnation = $6 AND topic_id = $7";

/// Conditions and assignments of the compare-and-set; `$1` to `$12`, in the order of
/// [`super::progress::Step::parameters`].
pub(super) fn compare_and_set(options: &Options) -> String {
    format!(
        "UPDATE {} SET next_offset = $8, incarnation = $9, topic_id = $10, key_schema = $11, \
         value_schema = $12, updated_at = pg_catalog.now() WHERE {EXPECTATION}",
        options.progress
    )
}

/// Locks the record if it is what it is expected to be; `$1` to `$7` as above.
pub(super) fn hold(options: &Options) -> String {
    format!("SELECT FROM {} WHERE {EXPECTATION} FOR UPDATE", options.progress)
}

/// Moves the record alone.
pub(super) fn advance(options: &Options) -> String {
    compare_and_set(options)
}

/// Writes those of the rows `$3` (keys), `$4` (values), `$5` (offsets) of topic `$1` and partition
/// `$2` that are not there. Once is by the lock on the record, under which it runs.
pub(super) fn write_again(options: &EventsOptions, layout: &Layout) -> String {
    let columns = [KEY, VALUE, TOPIC, PARTITION, OFFSET].map(quote).join(", ");
    format!(
        "INSERT INTO {target} ({columns}) SELECT b.k{key_cast}, b.v{value_cast}, \
         $1::pg_catalog.text, $2::pg_catalog.int4, b.o \
         FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.text[]), \
         pg_catalog.unnest($4::pg_catalog.text[]), pg_catalog.unnest($5::pg_catalog.int8[])) \
         AS b(k, v, o) WHERE NOT EXISTS (SELECT FROM {target} AS e \
         WHERE e.source_topic = $1::pg_catalog.text AND e.source_partition = $2::pg_catalog.int4 \
         AND e.source_offset = b.o)",
        target = options.target,
        key_cast = layout.key_cast,
        value_cast = layout.value_cast,
    )
}

/// Moves the record and, if that hit, writes the rows `$13` (keys), `$14` (values), `$15`
/// (offsets). Answers with the number of records moved: 1, or 0 for a miss.
pub(super) fn write(options: &EventsOptions, layout: &Layout) -> String {
    let columns = [KEY, VALUE, TOPIC, PARTITION, OFFSET].map(quote).join(", ");
    let conflict = if options.upsert {
        let identity = IDENTITY.map(quote).join(", ");
        format!(
            " ON CONFLICT ({identity}) DO UPDATE SET {key} = EXCLUDED.{key}, \
             {value} = EXCLUDED.{value}",
            key = quote(KEY),
            value = quote(VALUE),
        )
    } else {
        String::new()
    };
    format!(
        "WITH moved AS ({cas} RETURNING 1), written AS (INSERT INTO {target} ({columns}) \
         SELECT b.k{key_cast}, b.v{value_cast}, $3, $4, b.o \
         FROM ROWS FROM (pg_catalog.unnest($13::pg_catalog.text[]), \
         pg_catalog.unnest($14::pg_catalog.text[]), pg_catalog.unnest($15::pg_catalog.int8[])) \
         AS b(k, v, o) WHERE EXISTS (SELECT FROM moved){conflict}) \
         SELECT pg_catalog.count(*) FROM moved",
        cas = compare_and_set(&options.common),
        target = options.target,
        key_cast = layout.key_cast,
        value_cast = layout.value_cast,
    )
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::PostgresSinkConfig;

    use super::*;

    fn statement(upsert: bool, key_cast: &'static str, value_cast: &'static str) -> String {
        let config = PostgresSinkConfig {
            target_table: Some(r#""S"."a""b""#.to_owned()),
            upsert,
            ..PostgresSinkConfig::default()
        };
        let options = EventsOptions::new("p", "s", &config).unwrap();
        let layout = Layout {
            key_cast,
            value_cast,
            max_offset: i64::MAX,
            max_topic: None,
            identity_indexes: Vec::new(),
        };
        write(&options, &layout)
    }

    #[test]
    fn rows_depend_on_the_compare_and_set() {
        let text = statement(true, "", "::pg_catalog.jsonb");
        assert!(text.contains(r#"UPDATE "S"."cdc_offsets" SET"#), "{text}");
        assert!(text.contains(r#"INSERT INTO "S"."a""b" ("event_key", "event_value","#), "{text}");
        assert!(text.contains("SELECT b.k, b.v::pg_catalog.jsonb, $3, $4, b.o"), "{text}");
        assert!(text.contains("WHERE EXISTS (SELECT FROM moved) ON CONFLICT"), "{text}");
        assert!(text.ends_with("SELECT pg_catalog.count(*) FROM moved"), "{text}");
    }

    #[test]
    fn without_upsert_the_insert_is_plain() {
        let text = statement(false, "::pg_catalog.json", "");
        assert!(!text.contains("ON CONFLICT"), "{text}");
        assert!(text.contains("SELECT b.k::pg_catalog.json, b.v, $3"), "{text}");
    }
}
