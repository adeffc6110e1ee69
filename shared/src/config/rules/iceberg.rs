//! Rules about Iceberg sinks.

use reqwest::Url;

use super::Findings;
use super::connections::{certificates, url};
use crate::config::shape::nearest;
use crate::config::{
    IcebergConfig, IcebergWriteMode, OnReject, PartitionField, PipelineConfig, Secret, SinkConfig,
    TruncateHandling,
};

/// Schemes of warehouses in S3.
const S3: [&str; 3] = ["s3://", "s3a://", "s3n://"];

/// Properties of files in S3.
const FILES: [&str; 11] = [
    "s3.endpoint",
    "s3.region",
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "s3.path-style-access",
    "s3.force-virtual-addressing",
    "client.region",
    "client.access-key-id",
    "client.secret-access-key",
    "client.session-token",
];

/// Properties of a REST catalog, beside `header.…`.
const REST: [&str; 7] =
    ["token", "credential", "scope", "audience", "resource", "oauth2-server-uri", "prefix"];

/// Properties of a catalog in PostgreSQL.
const POSTGRES: [&str; 2] = ["user", "password"];

/// What a catalog is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
    Rest,
}

impl Kind {
    fn of(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        match scheme {
            "sqlite" if rest.starts_with("///") => Some(Self::Sqlite),
            "http" | "https" => Some(Self::Rest),
            // SQLAlchemy names the driver behind a plus.
            _ if matches!(scheme.split('+').next(), Some("postgresql" | "postgres")) => {
                Some(Self::Postgres)
            }
            _ => None,
        }
    }
}

pub(super) fn check(
    config: &PipelineConfig,
    sink: &SinkConfig,
    iceberg: &IcebergConfig,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let plain = iceberg.table_name.replace("{schema}", "s").replace("{table}", "t");
    if let Some(brace) = plain.find(['{', '}']) {
        let rest = plain.get(brace..).unwrap_or_default();
        let message = format!("`{rest}`: only {{schema}} and {{table}} are replaced");
        findings.error(&format!("{path}.table_name"), message);
    }
    if iceberg.write_mode == IcebergWriteMode::Upsert {
        upsert(config, sink, iceberg, path, findings);
    }
    certificates(&format!("{path}.tls"), &iceberg.tls, findings);
    for (index, field) in iceberg.partition_by.iter().enumerate() {
        let read = PartitionField::parse(field).map(drop);
        findings.check(&format!("{path}.partition_by[{index}]"), read);
    }
    if sink.enabled {
        catalog(iceberg, path, findings);
        unbuilt(iceberg, path, findings);
    }
}

fn upsert(
    config: &PipelineConfig,
    sink: &SinkConfig,
    iceberg: &IcebergConfig,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let tables = config.sink_tables(sink);
    if !iceberg.table_name.contains("{table}") && tables.len() != 1 {
        let message = format!(
            "`{}` would be the table of every source table, which only write_mode: append fills: \
             write {{table}} into it",
            iceberg.table_name
        );
        findings.error(&format!("{path}.table_name"), message);
    }
    if sink.on_reject == Some(OnReject::Dlq) {
        let message = "with dlq a rejected change leaves its row in the table as it was";
        findings.warning(&format!("{path}.write_mode"), message);
    }
}

fn unbuilt(iceberg: &IcebergConfig, path: &str, findings: &mut Findings<'_>) {
    for (field, is_unbuilt, what) in [
        ("truncate", iceberg.truncate == TruncateHandling::Apply, "apply: use stop or ignore"),
        (
            "partition_by",
            !iceberg.partition_by.is_empty() && iceberg.write_mode == IcebergWriteMode::Upsert,
            "a partitioned table of rows: leave it out",
        ),
    ] {
        if is_unbuilt {
            let message = format!("not built yet is {what}, or set enabled: false");
            findings.error(&format!("{path}.{field}"), message);
        }
    }
}

fn catalog(iceberg: &IcebergConfig, path: &str, findings: &mut Findings<'_>) {
    let uri = format!("{path}.catalog_uri");
    let Some(kind) = Kind::of(&iceberg.catalog_uri) else {
        let message = "is no catalog: write sqlite:////path/to/catalog.db, \
                       postgresql://user@host/database or the http(s):// address of a REST catalog";
        findings.error(&uri, message);
        return;
    };
    match kind {
        Kind::Sqlite => {}
        Kind::Postgres => findings.check(&uri, database(&iceberg.catalog_uri)),
        Kind::Rest => findings.check(&uri, url(&iceberg.catalog_uri, &["http", "https"])),
    }
    if kind == Kind::Postgres && has_password(&iceberg.catalog_uri) {
        let message = "holds a password: as catalog_properties.password it is in no output";
        findings.warning(&uri, message);
    }
    let sends = ["token", "credential"];
    let sends = sends.iter().any(|name| iceberg.catalog_properties.contains_key(*name));
    if sends && iceberg.catalog_uri.starts_with("http:") {
        findings.warning(&uri, "http sends the secrets of catalog_properties unencrypted");
    }
    let on_s3 = S3.iter().any(|scheme| iceberg.warehouse.starts_with(scheme));
    let is_local = ["file:///", "/"].iter().any(|start| iceberg.warehouse.starts_with(start));
    let warehouse = format!("{path}.warehouse");
    if on_s3 {
        findings.check(&warehouse, bucket(&iceberg.warehouse));
    } else if !is_local && kind != Kind::Rest {
        let message = "is neither a local folder nor S3, and others are not built yet: write \
                       file:///path/to/warehouse or s3://bucket/path, or set enabled: false";
        findings.error(&warehouse, message);
    }
    properties(iceberg, kind, on_s3 || (kind == Kind::Rest && !is_local), path, findings);
}

fn properties(
    iceberg: &IcebergConfig,
    kind: Kind,
    on_s3: bool,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let of_catalog: &[&str] = match kind {
        Kind::Sqlite => &[],
        Kind::Postgres => &POSTGRES,
        Kind::Rest => &REST,
    };
    let files: &[&str] = if on_s3 { &FILES } else { &[] };
    let known = || of_catalog.iter().chain(files).copied();
    for (name, value) in &iceberg.catalog_properties {
        let path = format!("{path}.catalog_properties.{name}");
        let elsewhere = FILES.iter().chain(&REST).chain(&POSTGRES).any(|known| known == name);
        if known().any(|known| known == name) {
            findings.check(&path, value_of(name, value));
        } else if kind == Kind::Rest && name.starts_with("header.") {
            let is_header = reqwest::header::HeaderName::try_from(&name["header.".len()..]).is_ok();
            let is_value = reqwest::header::HeaderValue::try_from(value.expose()).is_ok();
            if !is_header || !is_value {
                findings.error(&path, "is no header");
            }
        } else if elsewhere || name.starts_with("header.") {
            let message = "has no effect with this catalog and this warehouse: leave it out";
            findings.error(&path, message);
        } else {
            let near = nearest(name, known())
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            findings.error(&path, format!("is no property that the sink knows{near}"));
        }
    }
    for (one, other) in [
        ("s3.access-key-id", "s3.secret-access-key"),
        ("client.access-key-id", "client.secret-access-key"),
    ] {
        let has = |name: &str| iceberg.catalog_properties.contains_key(name);
        if has(one) != has(other) {
            let (given, missing) = if has(one) { (one, other) } else { (other, one) };
            let message = format!("is required with {given}");
            findings.error(&format!("{path}.catalog_properties.{missing}"), message);
        }
    }
    let has = |name: &str| iceberg.catalog_properties.contains_key(name);
    if has("token") && has("credential") {
        let message = "excludes token: give one kind of credentials";
        findings.error(&format!("{path}.catalog_properties.credential"), message);
    }
}

/// A property's value, as far as it has a form.
fn value_of(name: &str, value: &Secret) -> Result<(), String> {
    match name {
        "s3.endpoint" | "oauth2-server-uri" => url(value.expose(), &["http", "https"]),
        "s3.path-style-access" | "s3.force-virtual-addressing" => {
            let is_one = ["true", "false"].iter().any(|is| value.expose().eq_ignore_ascii_case(is));
            if is_one { Ok(()) } else { Err("expected true or false".to_owned()) }
        }
        _ => Ok(()),
    }
}

fn as_address(uri: &str) -> Option<Url> {
    // Of another scheme the parser makes the same.
    let (_, rest) = uri.split_once("://")?;
    Url::parse(&format!("postgresql://{rest}")).ok()
}

fn has_password(uri: &str) -> bool {
    as_address(uri).is_some_and(|url| url.password().is_some())
}

fn database(uri: &str) -> Result<(), String> {
    let Some(url) =
        as_address(uri).filter(|url| url.host_str().is_some_and(|host| !host.is_empty()))
    else {
        return Err("is no address: expected postgresql://user@host:5432/database".to_owned());
    };
    if url.path().trim_matches('/').is_empty() {
        return Err("names no database: expected postgresql://user@host:5432/database".to_owned());
    }
    Ok(())
}

fn bucket(warehouse: &str) -> Result<(), String> {
    let rest = warehouse.split_once("://").map_or("", |(_, rest)| rest);
    if rest.split('/').next().is_none_or(str::is_empty) {
        return Err("names no bucket: expected s3://bucket/path".to_owned());
    }
    if rest.contains(['?', '#', '@']) {
        return Err("expected s3://bucket/path; keys are catalog_properties".to_owned());
    }
    Ok(())
}
