//! The `postgres` sink in `write_mode: replica`: a typed mirror of the source's tables.

pub mod types;
