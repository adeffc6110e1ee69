//! Which column types Debezium's PostgreSQL connector captures (3.6); the others it leaves out of
//! every record with no more than a line in Connect's log.

/// Base types it knows. Domains over them are captured as well, and most arrays of them
/// (`changed.rs` has the others).
const CAPTURED: &[&str] = &[
    "bool",
    "bit",
    "varbit",
    "int2",
    "int4",
    "int8",
    "oid",
    "float4",
    "float8",
    "numeric",
    "money",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "timetz",
    "interval",
    "bytea",
    "text",
    "varchar",
    "bpchar",
    "char",
    "name",
    "json",
    "jsonb",
    "xml",
    "uuid",
    "citext",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "point",
    "hstore",
    "ltree",
    "geometry",
    "geography",
    "vector",
    "halfvec",
    "sparsevec",
    "tsvector",
];

/// Whether a column of this type arrives. `base` is the type behind arrays and domains, `kind` its
/// `typtype` (`e` is an enum).
pub(super) fn is_captured(base: &str, kind: char) -> bool {
    kind == 'e' || CAPTURED.contains(&base)
}

#[cfg(test)]
mod tests {
    use super::is_captured;

    #[test]
    fn what_is_dropped_is_known() {
        assert!(is_captured("numeric", 'b') && is_captured("mood", 'e'));
        for (name, kind) in
            [("polygon", 'b'), ("tsquery", 'b'), ("address", 'c'), ("int4multirange", 'm')]
        {
            assert!(!is_captured(name, kind), "{name}");
        }
    }
}
