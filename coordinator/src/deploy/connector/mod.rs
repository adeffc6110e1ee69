//! The Debezium connector of a pipeline, as the flat map that Kafka Connect takes.
//!
//! Pure: from a checked configuration to properties. Three layers, later ones winning: what every
//! source has in common, what the kind of source needs, and the user's `connector_properties`.

mod common;
mod converter;
mod mysql;
mod postgres;

use std::collections::BTreeMap;

use cdc_shared::config::{PipelineConfig, SourceType};

pub use common::table_pattern;
pub use converter::converter_class;

/// Properties of a connector; what Kafka Connect calls its config.
pub type Properties = BTreeMap<String, String>;

/// The property by which a connector says whose it is. Connect keeps properties it does not know.
pub const PIPELINE_MARK: &str = "cdc.pipeline.id";
/// The property that names the pipeline's consumer group, so that no other pipeline takes it.
pub const GROUP_MARK: &str = "cdc.group.id";

/// Class of our Connect transform that keeps NULL apart from a column's default.
pub const KEEP_NULLS_CLASS: &str = "io.cdcplatform.connect.KeepNulls";

/// The Debezium connector class of a kind of source.
pub fn connector_class(source: SourceType) -> &'static str {
    match source {
        SourceType::Postgres => "io.debezium.connector.postgresql.PostgresConnector",
        SourceType::Mysql => "io.debezium.connector.mysql.MySqlConnector",
        SourceType::Mariadb => "io.debezium.connector.mariadb.MariaDbConnector",
    }
}

/// Builds the connector. `kafka` is how Connect's own clients reach Kafka: properties of a Java
/// client without prefix, see `deploy::java_client`.
pub fn connector_properties(config: &PipelineConfig, kafka: &Properties) -> Properties {
    let mut properties = common::properties(config, kafka);
    match config.source.source_type {
        SourceType::Postgres => properties.extend(postgres::properties(config)),
        SourceType::Mysql | SourceType::Mariadb => {
            properties.extend(mysql::properties(config, kafka));
        }
    }
    properties.extend(converter::properties(config));
    properties.extend(config.source.connector_properties.0.clone());
    properties
}

/// Whether a property's value must not be shown.
pub fn is_secret(name: &str) -> bool {
    cdc_shared::config::is_sensitive(name) || name.ends_with("ssl.keystore.key")
}

/// A map from pairs of text.
fn map<const N: usize>(pairs: [(&str, &str); N]) -> Properties {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The properties of `client`, each name prefixed.
fn prefixed<'a>(
    prefix: &'a str,
    client: &'a Properties,
) -> impl Iterator<Item = (String, String)> + 'a {
    client.iter().map(move |(name, value)| (format!("{prefix}{name}"), value.clone()))
}

#[cfg(test)]
mod tests;
