//! Iceberg tables for the worker: what needs Iceberg, Arrow and Parquet, and nothing of Kafka or of
//! the way a sink is driven.
//!
//! ```text
//! Change ─▸ rows.rs (cells into Arrow columns, by layout.rs, types/) ─▸ table/ ─▸ catalog/
//!                                                                       │ evolve.rs  (the schema)
//!                                                                       │ write.rs   (data files)
//!                                                                       └ commit.rs  (one snapshot)
//!                                              files: warehouse/ (folders, S3)
//! ```
//!
//! Data files and the offsets of the partitions that feed a table are in one snapshot of it, by
//! compare-and-set on the offsets inside every attempt ([`Commit`]). Two live writers of one
//! partition, a lost answer and a killed process have no second effect therefore.

mod catalog;
mod column;
mod encode;
mod error;
mod layout;
mod preview;
mod rows;
mod table;
mod text;
mod types;
mod upsert;
mod warehouse;

pub use self::catalog::{
    Catalog, Pointers, PostgresCatalog, RestCatalog, SqliteCatalog, TableName,
};
pub use self::error::{Kind, LakeError, Result};
pub use self::layout::{Layout, LayoutColumn, NoLayout};
pub use self::preview::ColumnPreview;
pub use self::rows::{BadValue, Rows, Segment};
pub use self::table::{
    Clean, Cleaned, Commit, Compact, Compacted, Expire, Expired, KeyedPart, Lake, LakeTable,
    Offsets, Outcome, Owner, Part, PartitionIndex, Scan, ScannedRows, SnapshotInfo,
};
pub use self::types::{Codec, FieldType, Fit, NumberForm, TypeOptions, Unit, Unmappable};
pub use self::upsert::{Half, LetterFate, Move, RawKey};
