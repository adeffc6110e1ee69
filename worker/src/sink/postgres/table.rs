//! The events table: what is accepted, what is refused and by which words, what is created.
//!
//! A table that a person made in the specification's shape is taken as it is: the types of its
//! columns are read from the catalog and the statement casts to them. Judging is pure
//! ([`judge`]); reading ([`find`]) is one look at the catalog.

use tokio_postgres::GenericClient;

use super::batch::IsJsonb;
use super::name::{TableName, quote};

/// The five columns of the events table.
pub(super) const KEY: &str = "event_key";
/// See [`KEY`].
pub(super) const VALUE: &str = "event_value";
/// See [`KEY`].
pub(super) const TOPIC: &str = "source_topic";
/// See [`KEY`].
pub(super) const PARTITION: &str = "source_partition";
/// See [`KEY`].
pub(super) const OFFSET: &str = "source_offset";
/// What names an event: unique with `upsert`.
pub(super) const IDENTITY: [&str; 3] = [TOPIC, PARTITION, OFFSET];

/// A column that a table must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: &'static str,
    /// Types accepted, as `pg_type.typname`.
    pub(super) accepted: &'static [&'static str],
    /// The same for a person.
    pub(super) shown: &'static str,
    /// The type it is created with.
    pub(super) created: &'static str,
}

const JSONB_CAST: &str = "::pg_catalog.jsonb";

const TEXTS: &[&str] = &["text", "varchar"];

/// Columns of the events table. JSON is created as `jsonb` for the value (numbers keep every
/// digit, it can be queried and indexed) and as text for the key (kept as it was written).
const COLUMNS: [Wanted; 5] = [
    Wanted {
        name: KEY,
        accepted: &["text", "varchar", "jsonb", "json"],
        shown: "text, varchar, jsonb or json",
        created: "text",
    },
    Wanted {
        name: VALUE,
        accepted: &["text", "varchar", "jsonb", "json"],
        shown: "text, varchar, jsonb or json",
        created: "jsonb",
    },
    Wanted { name: TOPIC, accepted: TEXTS, shown: "text or varchar", created: "text NOT NULL" },
    Wanted {
        name: PARTITION,
        accepted: &["int4", "int8"],
        shown: "integer or bigint",
        created: "integer NOT NULL",
    },
    Wanted {
        name: OFFSET,
        accepted: &["int8", "int4"],
        shown: "bigint or integer",
        created: "bigint NOT NULL",
    },
];

/// A table as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// `pg_class.oid`.
    pub(super) oid: u32,
    /// `pg_class.relkind`.
    pub(super) kind: String,
    /// `pg_class.relpersistence`.
    pub(super) persistence: String,
    /// Columns in table order.
    pub(super) columns: Vec<Column>,
    /// Unique indexes that `ON CONFLICT` can use: name and columns.
    pub(super) unique: Vec<(String, Vec<String>)>,
}

/// A column as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Name.
    pub(super) name: String,
    /// Type as a person writes it.
    pub(super) shown: String,
    /// The same, of a domain the type behind it.
    pub(super) underlying: String,
    /// `pg_type.typname` of the type, or of what its domain is made of; empty for types that are
    /// not built in.
    pub(super) base: String,
    /// Most characters, for `varchar(n)`.
    pub(super) max_chars: Option<usize>,
    /// Whether NULL is refused.
    pub(super) required: bool,
    /// Whether the server fills it when an insert leaves it out.
    pub(super) filled: bool,
    /// Set where only the server may fill it.
    pub(super) computed: Option<Computed>,
}

/// How the server fills a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Computed {
    /// It counts: `GENERATED ALWAYS AS IDENTITY`.
    Identity,
    /// From other columns: `GENERATED ALWAYS AS (…) STORED`.
    Expression,
}

/// Why a table is not taken, and the statement that would cure it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    /// What is wrong: table, column, type found, types accepted.
    pub(super) why: String,
    /// What to do.
    pub(super) cure: String,
}

/// What of an accepted table the statement and the limits depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Cast of the key's text, empty for texts.
    pub(super) key_cast: &'static str,
    /// Cast of the value's text.
    pub(super) value_cast: &'static str,
    /// Largest offset that its column holds.
    pub(super) max_offset: i64,
    /// Longest topic name in characters.
    pub(super) max_topic: Option<usize>,
    /// Unique indexes over exactly (topic, partition, offset).
    pub(super) identity_indexes: Vec<String>,
}

impl Layout {
    /// Which columns are `jsonb`.
    pub(super) fn is_jsonb(&self) -> IsJsonb {
        IsJsonb { key: self.key_cast == JSONB_CAST, value: self.value_cast == JSONB_CAST }
    }

    /// Why a batch of this topic up to this offset does not fit: a limit of the table, so no
    /// fault of its records.
    pub(super) fn misfit(&self, name: &TableName, topic: &str, offset: i64) -> Option<Refusal> {
        if self.max_topic.is_some_and(|max| topic.chars().count() > max) {
            return Some(Refusal {
                why: format!("column {TOPIC} of {name} is too short for the topic {topic}"),
                cure: retype(name, TOPIC, "text"),
            });
        }
        (offset > self.max_offset).then(|| Refusal {
            why: format!("column {OFFSET} of {name} is an integer, the topic is at {offset}"),
            cure: retype(name, OFFSET, "bigint"),
        })
    }
}

/// The statement that creates the events table. Only a table for `upsert` is unique over the
/// source of a row: without it a deliberate rewind appends again.
pub(super) fn create_statement(name: &TableName, upsert: bool) -> String {
    let unique = format!("PRIMARY KEY ({})", IDENTITY.join(", "));
    create_table(name, &COLUMNS, upsert.then_some(unique.as_str()))
}

/// The statement that creates a table.
pub(super) fn create_table(name: &TableName, columns: &[Wanted], key: Option<&str>) -> String {
    let columns = columns.iter().map(|c| format!("{} {}", quote(c.name), c.created));
    let parts: Vec<String> = columns.chain(key.map(str::to_owned)).collect();
    format!("CREATE TABLE {name} ({})", parts.join(", "))
}

/// Whether rows can go into the table, and how.
///
/// # Errors
/// The first thing that stands in the way.
pub(super) fn judge(name: &TableName, found: &Found, upsert: bool) -> Result<Layout, Refusal> {
    judge_columns(name, found, &COLUMNS)?;
    let identity_indexes = unique_over(found, &IDENTITY);
    if upsert && identity_indexes.is_empty() {
        let columns = IDENTITY.join(", ");
        return Err(Refusal {
            why: format!(
                "table {name} has no unique constraint on ({columns}), which upsert needs"
            ),
            cure: format!("ALTER TABLE {name} ADD UNIQUE ({columns}); or set upsert: false"),
        });
    }
    let base = |column: &str| column_of(found, column).map_or("", |c| c.base.as_str());
    Ok(Layout {
        key_cast: json_cast(base(KEY)),
        value_cast: json_cast(base(VALUE)),
        max_offset: if base(OFFSET) == "int4" { i64::from(i32::MAX) } else { i64::MAX },
        max_topic: column_of(found, TOPIC).and_then(|c| c.max_chars),
        identity_indexes,
    })
}

/// The names of the unique indexes over exactly these columns.
pub(super) fn unique_over(found: &Found, columns: &[&str]) -> Vec<String> {
    let same = |index: &[String]| {
        index.len() == columns.len() && columns.iter().all(|c| index.iter().any(|i| i == c))
    };
    found.unique.iter().filter(|(_, index)| same(index)).map(|(name, _)| name.clone()).collect()
}

/// The part of judging that every table of the sink shares.
///
/// # Errors
/// The first thing that stands in the way.
pub(super) fn judge_columns(
    name: &TableName,
    found: &Found,
    wanted: &[Wanted],
) -> Result<(), Refusal> {
    judge_kind(name, found)?;
    for want in wanted {
        judge_column(name, found, want)?;
    }
    let ours = |column: &Column| wanted.iter().any(|want| want.name == column.name);
    match found.columns.iter().find(|c| c.required && !c.filled && !ours(c)) {
        Some(column) => Err(Refusal {
            why: format!(
                "column {} of {name} is NOT NULL without a default, and the sink does not fill it",
                column.name
            ),
            cure: format!("ALTER TABLE {name} ALTER COLUMN {} DROP NOT NULL", quote(&column.name)),
        }),
        None => Ok(()),
    }
}

/// Whether it is a table that keeps its rows.
///
/// # Errors
/// What it is instead.
pub(super) fn judge_kind(name: &TableName, found: &Found) -> Result<(), Refusal> {
    if !matches!(found.kind.as_str(), "r" | "p") {
        let kind = match found.kind.as_str() {
            "v" | "m" => "a view",
            "f" => "a foreign table, whose writes are not in our transaction",
            _ => "no table",
        };
        return Err(Refusal {
            why: format!("{name} is {kind}"),
            cure: "name an ordinary or partitioned table".to_owned(),
        });
    }
    if found.persistence != "p" {
        return Err(Refusal {
            why: format!("table {name} is not logged: the server empties it after a crash"),
            cure: format!("ALTER TABLE {name} SET LOGGED"),
        });
    }
    Ok(())
}

fn judge_column(name: &TableName, found: &Found, want: &Wanted) -> Result<(), Refusal> {
    let Some(column) = column_of(found, want.name) else {
        let names: Vec<&str> = found.columns.iter().map(|c| c.name.as_str()).collect();
        return Err(Refusal {
            why: format!("table {name} has no column {} (it has {})", want.name, names.join(", ")),
            cure: format!("ALTER TABLE {name} ADD COLUMN {} {}", quote(want.name), want.created),
        });
    };
    if column.computed.is_some() {
        return Err(Refusal {
            why: format!("column {} of {name} is generated by the server", want.name),
            cure: format!("ALTER TABLE {name} ALTER COLUMN {} DROP EXPRESSION", quote(want.name)),
        });
    }
    if !want.accepted.contains(&column.base.as_str()) {
        let plain = want.created.trim_end_matches(" NOT NULL");
        return Err(Refusal {
            why: format!(
                "column {} of {name} is {}, accepted are {}",
                want.name, column.shown, want.shown
            ),
            cure: retype(name, want.name, plain),
        });
    }
    Ok(())
}

pub(super) fn column_of<'f>(found: &'f Found, name: &str) -> Option<&'f Column> {
    found.columns.iter().find(|column| column.name == name)
}

pub(super) fn retype(name: &TableName, column: &str, to: &str) -> String {
    let column = quote(column);
    format!("ALTER TABLE {name} ALTER COLUMN {column} TYPE {to} USING {column}::{to}")
}

fn json_cast(base: &str) -> &'static str {
    match base {
        "jsonb" => JSONB_CAST,
        "json" => "::pg_catalog.json",
        _ => "",
    }
}

const FIND_TABLE: &str = "SELECT c.oid, c.relkind::text, c.relpersistence::text \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1 AND c.relname = $2";

const FIND_COLUMNS: &str = "SELECT a.attname::text, \
    pg_catalog.format_type(a.atttypid, a.atttypmod), \
    CASE WHEN b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN b.typname::text ELSE '' END, \
    CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
    a.attnotnull OR t.typnotnull, \
    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, \
    a.attidentity = 'a', a.attgenerated <> '', \
    pg_catalog.format_type(b.oid, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END) \
    FROM pg_catalog.pg_attribute a \
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid) \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const FIND_UNIQUE: &str = "SELECT i.relname::text, ARRAY(SELECT a.attname::text \
    FROM pg_catalog.unnest(x.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, place) \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum \
    WHERE k.place <= x.indnkeyatts) \
    FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid \
    WHERE x.indrelid = $1 AND x.indisunique AND x.indisvalid AND x.indimmediate \
    AND x.indpred IS NULL AND x.indexprs IS NULL";

fn computed(identity: bool, expression: bool) -> Option<Computed> {
    match (identity, expression) {
        (_, true) => Some(Computed::Expression),
        (true, false) => Some(Computed::Identity),
        (false, false) => None,
    }
}

/// Looks a table up in the catalog; `None` when there is none of that name.
pub(super) async fn find(
    client: &impl GenericClient,
    name: &TableName,
) -> Result<Option<Found>, tokio_postgres::Error> {
    let Some(table) = client.query_opt(FIND_TABLE, &[&name.schema, &name.table]).await? else {
        return Ok(None);
    };
    let oid: u32 = table.try_get(0)?;
    let mut columns = Vec::new();
    for row in client.query(FIND_COLUMNS, &[&oid]).await? {
        let base: String = row.try_get(2)?;
        let modifier: i32 = row.try_get(3)?;
        // The modifier of varchar(n) counts its own four bytes; -1 is without limit.
        let max_chars = usize::try_from(modifier - 4).ok().filter(|_| base == "varchar");
        columns.push(Column {
            name: row.try_get(0)?,
            shown: row.try_get(1)?,
            base,
            max_chars,
            required: row.try_get(4)?,
            filled: row.try_get(5)?,
            computed: computed(row.try_get(6)?, row.try_get(7)?),
            underlying: row.try_get(8)?,
        });
    }
    let mut unique = Vec::new();
    for row in client.query(FIND_UNIQUE, &[&oid]).await? {
        unique.push((row.try_get(0)?, row.try_get(1)?));
    }
    let (kind, persistence) = (table.try_get(1)?, table.try_get(2)?);
    Ok(Some(Found { oid, kind, persistence, columns, unique }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> TableName {
        TableName { schema: "public".to_owned(), table: "t".to_owned() }
    }

    fn column(name: &str, base: &str) -> Column {
        Column {
            name: name.to_owned(),
            shown: base.to_owned(),
            underlying: base.to_owned(),
            base: base.to_owned(),
            max_chars: None,
            required: false,
            filled: false,
            computed: None,
        }
    }

    fn found() -> Found {
        let types = ["text", "jsonb", "varchar", "int4", "int8"];
        Found {
            oid: 1,
            kind: "r".to_owned(),
            persistence: "p".to_owned(),
            columns: COLUMNS.iter().zip(types).map(|(c, base)| column(c.name, base)).collect(),
            unique: vec![(
                "t_key".to_owned(),
                vec![OFFSET.to_owned(), TOPIC.to_owned(), PARTITION.to_owned()],
            )],
        }
    }

    fn refusal(change: impl FnOnce(&mut Found)) -> Refusal {
        let mut table = found();
        change(&mut table);
        judge(&name(), &table, true).unwrap_err()
    }

    #[test]
    fn a_table_in_the_specified_shape_is_taken_as_it_is() {
        let layout = judge(&name(), &found(), true).unwrap();
        assert_eq!((layout.key_cast, layout.value_cast), ("", "::pg_catalog.jsonb"));
        assert_eq!(layout.identity_indexes, ["t_key"]);
        let mut other = found();
        other.columns.reverse();
        other.columns.push(column("loaded_at", "timestamptz"));
        assert_eq!(judge(&name(), &other, true).unwrap(), layout);
    }

    #[test]
    fn what_is_refused_is_named_with_its_cure() {
        let missing = refusal(|t| t.columns.retain(|c| c.name != VALUE));
        assert!(missing.why.contains("no column event_value"), "{}", missing.why);
        assert_eq!(missing.cure, r#"ALTER TABLE "public"."t" ADD COLUMN "event_value" jsonb"#);
        let wrong = refusal(|t| t.columns[3] = column(PARTITION, "text"));
        assert!(wrong.why.contains("source_partition of \"public\".\"t\" is text, accepted are"));
        assert!(wrong.cure.ends_with(r#"TYPE integer USING "source_partition"::integer"#));
        let unique = refusal(|t| t.unique[0].1.push(KEY.to_owned()));
        assert!(unique.cure.contains("ADD UNIQUE (source_topic, source_partition, source_offset)"));
        let extra = refusal(|t| {
            t.columns.push(Column { required: true, ..column("tenant", "int4") });
        });
        assert!(extra.why.contains("column tenant"), "{}", extra.why);
        assert!(
            refusal(|t| t.columns[0].computed = Some(Computed::Expression))
                .why
                .contains("generated")
        );
        assert!(refusal(|t| t.kind = "v".to_owned()).why.contains("view"));
        assert!(refusal(|t| t.persistence = "u".to_owned()).cure.contains("SET LOGGED"));
    }

    #[test]
    fn a_plain_insert_needs_no_unique_constraint() {
        let table = Found { unique: Vec::new(), ..found() };
        assert!(judge(&name(), &table, false).is_ok());
    }

    #[test]
    fn limits_of_the_table_are_no_fault_of_a_record() {
        let mut table = found();
        table.columns[2].max_chars = Some(4);
        table.columns[4].base = "int4".to_owned();
        let layout = judge(&name(), &table, true).unwrap();
        assert_eq!(layout.misfit(&name(), "four", i64::from(i32::MAX)), None);
        assert!(layout.misfit(&name(), "longer", 1).unwrap().cure.contains("TYPE text"));
        assert!(layout.misfit(&name(), "four", 1 << 31).unwrap().cure.contains("TYPE bigint"));
    }

    #[test]
    fn the_created_table_is_one_that_is_accepted() {
        assert_eq!(
            create_statement(&name(), true),
            r#"CREATE TABLE "public"."t" ("event_key" text, "event_value" jsonb, "source_topic" text NOT NULL, "source_partition" integer NOT NULL, "source_offset" bigint NOT NULL, PRIMARY KEY (source_topic, source_partition, source_offset))"#
        );
        assert!(!create_statement(&name(), false).contains("PRIMARY KEY"));
    }
}
