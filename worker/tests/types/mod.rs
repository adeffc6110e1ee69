//! Types of the mirror, against a real server, with records that a real Debezium sent.
//!
//! `recorded/` holds, for each set of connector modes, the schemas and records of a table with a
//! column of every type, and the source's own text of every value. The records are written through
//! `unnest` into a table made of the types that we choose, and read back as text.

mod arrays;
mod defaults;
mod mysql_source;
mod postgres_source;
pub(crate) mod recorded;
