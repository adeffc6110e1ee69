//! PostgreSQL: logical replication by `pgoutput`.

use std::path::Path;

use cdc_shared::config::{PipelineConfig, SourceSslConfig, SourceSslMode};

use super::{Properties, map};

pub(super) fn properties(config: &PipelineConfig) -> Properties {
    let source = &config.source;
    let mut properties = map([
        ("database.port", &source.port.to_string()),
        ("database.dbname", &source.database),
        ("plugin.name", "pgoutput"),
        ("slot.name", &source.slot_name),
        ("slot.drop.on.stop", "false"),
        ("publication.name", &source.publication(&config.pipeline_id)),
        // Only our tables; Debezium's default would publish every table of the database.
        ("publication.autocreate.mode", "filtered"),
        ("publish.via.partition.root", "true"),
        // Without it a slot made anew would be streamed from silently, past a gap.
        ("offset.mismatch.strategy", "trust_offset"),
        ("time.precision.mode", "microseconds"),
        ("interval.handling.mode", "string"),
        ("hstore.handling.mode", "json"),
        ("unavailable.value.placeholder", &source.unavailable_placeholder),
    ]);
    properties.extend(ssl(&source.ssl));
    properties
}

fn ssl(ssl: &SourceSslConfig) -> Properties {
    let mode = match ssl.mode {
        SourceSslMode::Disable => "disable",
        SourceSslMode::Prefer => "prefer",
        SourceSslMode::Require => "require",
        SourceSslMode::VerifyCa => "verify-ca",
        SourceSslMode::VerifyFull => "verify-full",
    };
    let path = |file: &Option<std::path::PathBuf>| file.as_deref().map(display);
    let mut properties = map([("database.sslmode", mode)]);
    for (name, value) in [
        ("database.sslrootcert", path(&ssl.ca_file)),
        ("database.sslcert", path(&ssl.cert_file)),
        ("database.sslkey", path(&ssl.key_file)),
        ("database.sslpassword", ssl.key_password.as_ref().map(|p| p.expose().to_owned())),
    ] {
        properties.extend(value.map(|value| (name.to_owned(), value)));
    }
    properties
}

pub(super) fn display(path: &Path) -> String {
    path.display().to_string()
}
