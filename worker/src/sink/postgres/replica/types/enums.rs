//! Enum types of the target, made after those of the source.

use cdc_shared::avro::{Column, Type};
use cdc_shared::config::SourceType as Source;

use super::options::{EnumHandling, TypeOptions};
use super::pg_type::{PgType, quoted};

/// Longest name and longest label that PostgreSQL keeps, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// An enum type that a column needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumType {
    /// Its schema in the target.
    pub schema: String,
    /// Its name: the source's, which the connector sends in capitals, in small letters.
    pub name: String,
    /// Labels in the connector's order.
    pub labels: Vec<String>,
}

impl EnumType {
    /// For a column that holds an enum, or an array of one; `None` when enums are kept as text.
    pub(super) fn of(column: &Column, ty: &Type, options: &TypeOptions) -> Option<Self> {
        let EnumHandling::Create { schema, table } = &options.enums else { return None };
        let name = match (&column.source.type_name, options.source) {
            (Some(name), Source::Postgres) => local_name(name.trim_start_matches('_')),
            _ => format!("{table}_{}", column.name),
        };
        let labels = ty.parameters.get("allowed")?.split(',').map(str::to_owned).collect();
        Some(Self { schema: schema.clone(), name, labels })
    }

    /// The type itself.
    pub(super) fn pg_type(&self) -> PgType {
        let (schema, name) = (Some(self.schema.clone()), self.name.clone());
        PgType::Other { schema, name, modifier: None }
    }

    /// Whether PostgreSQL can keep name and labels as they are.
    pub(super) fn can_be_created(&self) -> bool {
        let fits = |text: &str| text.len() <= MAX_NAME_BYTES && !text.contains('\0');
        fits(&self.name) && self.labels.iter().all(|label| !label.is_empty() && fits(label))
    }

    /// `CREATE TYPE`.
    pub fn create_sql(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|label| literal(label)).collect();
        format!(
            "CREATE TYPE {}.{} AS ENUM ({})",
            quoted(&self.schema),
            quoted(&self.name),
            labels.join(", ")
        )
    }

    /// Statements that add the labels which the type, as found in the target (labels in order),
    /// does not have, each behind its neighbour. Labels that only the target has stay.
    pub fn add_labels_sql(&self, found: &[String]) -> Vec<String> {
        let mut statements = Vec::new();
        for (position, label) in self.labels.iter().enumerate() {
            if found.contains(label) {
                continue;
            }
            let before = position.checked_sub(1).and_then(|before| self.labels.get(before));
            let place = match (before, found.first()) {
                (Some(before), _) => format!(" AFTER {}", literal(before)),
                (None, Some(first)) => format!(" BEFORE {}", literal(first)),
                (None, None) => String::new(),
            };
            statements.push(format!(
                "ALTER TYPE {}.{} ADD VALUE IF NOT EXISTS {}{place}",
                quoted(&self.schema),
                quoted(&self.name),
                literal(label)
            ));
        }
        statements
    }
}

/// The name without the schema that stands before it when that is not in the search path.
pub(super) fn local_name(name: &str) -> String {
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    name.trim_matches('"').to_lowercase()
}

/// A text as SQL literal, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let quotes = text.replace('\'', "''");
    if text.contains('\\') {
        return format!("E'{}'", quotes.replace('\\', "\\\\"));
    }
    format!("'{quotes}'")
}
