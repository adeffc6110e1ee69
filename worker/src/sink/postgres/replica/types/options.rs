//! What the choice of a type depends on beside the schema.

use std::collections::BTreeMap;

use cdc_shared::config::{BinaryForm, SourceConfig, SourceType as Source};

use super::pg_type::PgType;

/// What a value of an enum becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EnumHandling {
    /// Text: a new label needs nothing.
    #[default]
    Text,
    /// An enum type of the target, named as at the source.
    Create {
        /// Schema that the type lives in.
        schema: String,
        /// The target's table; MySQL's enums have no name of their own, they become
        /// `{table}_{column}`.
        table: String,
    },
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeOptions {
    /// The kind of source: names like TIME mean something else in each.
    pub source: Source,
    /// How enums are kept.
    pub enums: EnumHandling,
    /// How bytes are sent.
    pub binary: BinaryForm,
    /// What the target has.
    pub target: TargetTypes,
}

impl TypeOptions {
    /// For a source as it is configured, and what [`TargetTypes::QUERY`] found.
    pub fn new(source: &SourceConfig, enums: EnumHandling, target: TargetTypes) -> Self {
        Self { source: source.source_type, enums, binary: source.binary_form(), target }
    }
}

/// Types that not every PostgreSQL has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetTypes {
    /// `server_version_num`; 0 is taken for new.
    pub version: i32,
    /// Schema of each type of an extension that is installed, by the type's name.
    pub extensions: BTreeMap<String, String>,
}

/// Types of extensions that the sink can write.
const EXTENSION_TYPES: [&str; 8] =
    ["hstore", "citext", "ltree", "geometry", "geography", "vector", "halfvec", "sparsevec"];

impl TargetTypes {
    /// Finds them: rows of type name and schema. The version is `SHOW server_version_num`.
    pub const QUERY: &str = "SELECT t.typname::text, n.nspname::text \
        FROM pg_catalog.pg_extension e \
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass \
         AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_type'::regclass \
        JOIN pg_catalog.pg_type t ON t.oid = d.objid \
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
        WHERE t.typname IN ('hstore', 'citext', 'ltree', 'geometry', 'geography', 'vector', \
                            'halfvec', 'sparsevec')";

    /// The nearest type that this server has: itself nearly always.
    pub(super) fn nearest(&self, pg_type: PgType) -> PgType {
        match pg_type {
            PgType::Array(item) => PgType::Array(Box::new(self.nearest(*item))),
            PgType::Numeric(Some(digits)) => {
                let has_such = self.version == 0 || self.version >= 150_000;
                let usual = (0..=i64::from(digits.precision)).contains(&digits.scale.into());
                PgType::Numeric((usual || has_such).then_some(digits))
            }
            PgType::Other { schema: None, name, modifier }
                if EXTENSION_TYPES.contains(&name.as_str()) =>
            {
                match self.extensions.get(&name) {
                    Some(schema) => PgType::Other { schema: Some(schema.clone()), name, modifier },
                    None => without_extension(&name),
                }
            }
            other => other,
        }
    }
}

/// What holds the values of an extension's type where the extension is not installed.
fn without_extension(name: &str) -> PgType {
    match name {
        "hstore" => PgType::Jsonb,
        "geometry" | "geography" => PgType::Bytea,
        "vector" => PgType::Array(Box::new(PgType::Float8)),
        "halfvec" => PgType::Array(Box::new(PgType::Float4)),
        _ => PgType::Text,
    }
}
