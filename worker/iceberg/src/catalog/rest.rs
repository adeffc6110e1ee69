//! A REST catalog: a commit is what is to change and what must still be so, by Iceberg's protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cdc_shared::config::{IcebergConfig, Secret};
use http::{HeaderMap, HeaderName, HeaderValue};
use iceberg::spec::{MAIN_BRANCH, Schema, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::TableName;
use super::auth::Auth;
use crate::error::{Kind, LakeError, Result};
use crate::warehouse::{Properties, encoded_part};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest text of a catalog's error that is told.
const TOLD: usize = 300;

/// See the module.
#[derive(Debug)]
pub struct RestCatalog {
    http: reqwest::Client,
    uri: String,
    warehouse: String,
    properties: Properties,
    headers: HeaderMap,
    auth: Auth,
    session: OnceCell<Session>,
}

/// What the catalog says of itself.
#[derive(Debug)]
struct Session {
    /// What all paths begin with.
    base: String,
    /// Between the levels of a namespace in a path.
    separator: String,
    /// Properties for files that it adds to ours, or puts over them.
    files: Properties,
}

/// A table as the catalog gives it.
#[derive(Debug)]
pub(crate) struct RestTable {
    /// Where its metadata is.
    pub(crate) location: String,
    /// The metadata.
    pub(crate) metadata: Arc<TableMetadata>,
    /// Properties for its files, where it was loaded.
    pub(crate) files: Properties,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    defaults: Properties,
    #[serde(default)]
    overrides: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TableAnswer {
    metadata_location: String,
    metadata: TableMetadata,
    #[serde(default)]
    config: Properties,
    #[serde(default)]
    storage_credentials: Vec<StorageCredential>,
}

#[derive(Deserialize)]
struct StorageCredential {
    prefix: String,
    config: Properties,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    r#type: String,
}

/// What came of a request.
struct Reply {
    status: StatusCode,
    body: Bytes,
}

/// Why a request has no answer.
enum Silence {
    /// It was not sent.
    Unsent(LakeError),
    /// It was sent, and may be carried out.
    Unanswered(LakeError),
}

impl From<Silence> for LakeError {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unsent(error) | Silence::Unanswered(error) => error,
        }
    }
}

impl RestCatalog {
    /// The catalog of a configuration.
    ///
    /// # Errors
    /// Properties or TLS files that cannot be used.
    pub fn new(config: &IcebergConfig) -> Result<Self> {
        let uri = config.catalog_uri.trim_end_matches('/');
        // Written with the version or without it, it is the same catalog.
        let uri = uri.strip_suffix("/v1").unwrap_or(uri).to_owned();
        let http = cdc_shared::http::client(&config.tls, TIMEOUT).map_err(|error| {
            let message = format!("opening catalog {uri}");
            LakeError::new(Kind::Configuration, "configuration", message).caused_by(error)
        })?;
        let properties = config.catalog_properties.clone();
        let auth = Auth::new(&properties, &uri)?;
        let headers = headers(&properties)?;
        let warehouse = config.warehouse.clone();
        let session = OnceCell::new();
        Ok(Self { http, uri, warehouse, properties, headers, auth, session })
    }

    /// Where it is.
    pub fn place(&self) -> &str {
        &self.uri
    }

    /// Properties for files outside of a table.
    pub(crate) async fn files(&self) -> Result<Properties> {
        Ok(self.session().await?.files.clone())
    }

    pub(crate) async fn prove(&self) -> Result<()> {
        self.session().await.map(drop)
    }

    async fn session(&self) -> Result<&Session> {
        self.session.get_or_try_init(|| self.configure()).await
    }

    async fn configure(&self) -> Result<Session> {
        let query = [("warehouse", self.warehouse.as_str())];
        let base = format!("{}/v1", self.uri);
        let url = format!("{base}/config");
        let request = || self.http.get(&url).query(&query);
        let reply = self.send(&format!("GET {url}"), request).await?;
        if !reply.status.is_success() {
            let error = self.refused(&format!("GET {url}"), &reply);
            return Err(match reply.status {
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
                    error.hint("correct warehouse, and the path of catalog_uri")
                }
                _ => error,
            });
        }
        let answer: Configuration = parse(&format!("GET {url}"), &reply.body)?;
        let text = |name: &str| {
            let found = answer.overrides.get(name).or_else(|| self.properties.get(name));
            let found = found.or_else(|| answer.defaults.get(name));
            found.filter(|value| !value.is_empty()).map(|value| value.expose().to_owned())
        };
        let base = match answer.overrides.get("uri").filter(|uri| !uri.is_empty()) {
            Some(uri) => format!("{}/v1", uri.expose().trim_end_matches('/')),
            None => base,
        };
        let base = match text("prefix") {
            Some(prefix) => format!("{base}/{}", prefix.trim_matches('/')),
            None => base,
        };
        let separator = text("namespace-separator").unwrap_or_else(|| "%1F".to_owned());
        let mut files = of_files(answer.defaults);
        files.retain(|name, _| !self.properties.contains_key(name));
        files.extend(of_files(answer.overrides));
        Ok(Session { base, separator, files })
    }

    pub(crate) async fn create_namespace(&self, namespace: &str) -> Result<()> {
        let session = self.session().await?;
        let url = session.namespace(namespace);
        let found = self.send(&format!("GET {url}"), || self.http.get(&url)).await?;
        if found.status.is_success() {
            return Ok(());
        }
        if found.status != StatusCode::NOT_FOUND {
            return Err(self.refused(&format!("GET {url}"), &found));
        }
        let url = format!("{}/namespaces", session.base);
        let body = json!({"namespace": levels(namespace), "properties": {}});
        let doing = format!("POST {url}");
        let made = self.send(&doing, || self.http.post(&url).json(&body)).await?;
        // Somebody else was faster.
        if made.status.is_success() || made.status == StatusCode::CONFLICT {
            return Ok(());
        }
        Err(self.refused(&doing, &made))
    }

    /// A table; `None` where there is none.
    pub(crate) async fn load(&self, table: &TableName) -> Result<Option<RestTable>> {
        let session = self.session().await?;
        let url = session.table(table);
        let doing = format!("GET {url}");
        let reply = self.send(&doing, || self.http.get(&url)).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let answer: TableAnswer = parse(&doing, &reply.body)?;
                Ok(Some(answer.table(&session.files)))
            }
            _ => Err(self.refused(&doing, &reply)),
        }
    }

    /// Makes a table. `false`: another one of that name is there.
    pub(crate) async fn create(
        &self,
        table: &TableName,
        location: Option<String>,
        schema: &Schema,
        properties: &std::collections::HashMap<String, String>,
    ) -> Result<bool> {
        let url = format!("{}/tables", self.session().await?.namespace(&table.namespace));
        let mut body = json!({
            "name": table.table,
            "schema": schema,
            "stage-create": false,
            "properties": properties,
        });
        if let Some(location) = location {
            body["location"] = Value::String(location);
        }
        let doing = format!("POST {url}");
        match self.send(&doing, || self.http.post(&url).json(&body)).await {
            Ok(reply) if reply.status.is_success() => Ok(true),
            Ok(reply) if reply.status == StatusCode::CONFLICT => Ok(false),
            Ok(reply) => Err(self.refused(&doing, &reply)),
            Err(silence) => Err(silence.into()),
        }
    }

    /// Changes a table, if nobody else has changed it since `from`. `None`: somebody has.
    pub(crate) async fn commit(
        &self,
        table: &TableName,
        from: &TableMetadata,
        updates: &[TableUpdate],
    ) -> Result<Option<RestTable>> {
        let session = self.session().await?;
        let url = session.table(table);
        let body = json!({
            "identifier": {"namespace": levels(&table.namespace), "name": table.table},
            "requirements": requirements(from),
            "updates": updates,
        });
        let doing = format!("POST {url}");
        let unknown = |error: LakeError| LakeError {
            kind: Kind::Unknown,
            code: "commit_unknown",
            hint: None,
            ..error
        };
        match self.send(&doing, || self.http.post(&url).json(&body)).await {
            Err(Silence::Unsent(error)) => Err(error),
            Err(Silence::Unanswered(error)) => Err(unknown(error)),
            Ok(reply) if reply.status.is_success() => {
                // Taken, whatever the rest of the answer is.
                let answer: TableAnswer = parse(&doing, &reply.body).map_err(unknown)?;
                Ok(Some(answer.table(&session.files)))
            }
            // Not there any more: that is found by looking.
            Ok(reply) if matches!(reply.status.as_u16(), 404 | 409) => {
                tracing::debug!(%table, status = reply.status.as_u16(), "others committed first");
                Ok(None)
            }
            // It may have failed after it was done.
            Ok(reply) if reply.status.is_server_error() => {
                Err(unknown(self.refused(&doing, &reply)))
            }
            Ok(reply) => Err(self.refused(&doing, &reply)),
        }
    }

    /// Sends a request, a second time where its token is not taken any more.
    async fn send(
        &self,
        doing: &str,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> std::result::Result<Reply, Silence> {
        let mut is_second = false;
        loop {
            let proven = self.auth.apply(&self.http, request().headers(self.headers.clone())).await;
            let (request, token) = proven.map_err(Silence::Unsent)?;
            let reply = self.send_once(doing, request).await?;
            let is_refused = matches!(reply.status.as_u16(), 401 | 419);
            if is_refused && !is_second && self.auth.refused(token.as_ref()).await {
                is_second = true;
                continue;
            }
            return Ok(reply);
        }
    }

    async fn send_once(
        &self,
        doing: &str,
        request: reqwest::RequestBuilder,
    ) -> std::result::Result<Reply, Silence> {
        let silent = |error: &reqwest::Error| {
            let message =
                format!("catalog {}: {doing}: {}", self.uri, cdc_shared::http::cause(error));
            let told = LakeError::new(Kind::Unavailable, "catalog_unreachable", message)
                .hint(format!("see whether {} answers, or correct catalog_uri", self.uri));
            let is_unsent = error.is_connect() || error.is_builder();
            if is_unsent { Silence::Unsent(told) } else { Silence::Unanswered(told) }
        };
        let answer = request.send().await.map_err(|error| silent(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| silent(&error))?;
        Ok(Reply { status, body })
    }

    /// What the catalog says where it does not do as it is told.
    fn refused(&self, doing: &str, reply: &Reply) -> LakeError {
        let said = serde_json::from_slice::<ErrorAnswer>(&reply.body).ok();
        let ErrorBody { message, r#type } = said.map(|said| said.error).unwrap_or_default();
        let said: String = message.lines().next().unwrap_or_default().chars().take(TOLD).collect();
        let message =
            format!("catalog {}: {doing}: {} {type} {said}", self.uri, reply.status.as_u16());
        let (code, hint) = match reply.status.as_u16() {
            401 | 419 => (
                "catalog_unauthorized",
                "correct token, or credential and scope, in catalog_properties".to_owned(),
            ),
            403 => (
                "catalog_denied",
                "let this user of the catalog load, create and commit tables".to_owned(),
            ),
            404 => ("catalog_unavailable", "correct catalog_uri, or make the namespace".to_owned()),
            _ => ("catalog_unavailable", format!("see the log of {}", self.uri)),
        };
        LakeError::new(Kind::Unavailable, code, message.trim_end()).hint(hint)
    }
}

impl Session {
    fn namespace(&self, namespace: &str) -> String {
        let levels: Vec<String> =
            levels(namespace).iter().map(|level| encoded_part(level)).collect();
        format!("{}/namespaces/{}", self.base, levels.join(&self.separator))
    }

    fn table(&self, table: &TableName) -> String {
        format!("{}/tables/{}", self.namespace(&table.namespace), encoded_part(&table.table))
    }
}

impl TableAnswer {
    /// `files`: what the catalog says for all tables.
    fn table(self, files: &Properties) -> RestTable {
        let mut properties = files.clone();
        properties.extend(of_files(self.config));
        let location = self.metadata.location();
        let of_it = self.storage_credentials.into_iter();
        let of_it = of_it.filter(|credential| location.starts_with(&credential.prefix));
        if let Some(longest) = of_it.max_by_key(|credential| credential.prefix.len()) {
            properties.extend(of_files(longest.config));
        }
        RestTable {
            location: self.metadata_location,
            metadata: Arc::new(self.metadata),
            files: properties,
        }
    }
}

/// What must be as we read it. What the sink keeps in properties is guarded by main: each of its
/// commits moves that.
fn requirements(from: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: from.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: from.current_snapshot_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: from.current_schema_id() },
        TableRequirement::LastAssignedFieldIdMatch {
            last_assigned_field_id: from.last_column_id(),
        },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: from.default_partition_spec_id() },
    ]
}

/// Headers of every request.
fn headers(properties: &Properties) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !properties.contains_key("s3.access-key-id") {
        let name = HeaderName::from_static("x-iceberg-access-delegation");
        headers.insert(name, HeaderValue::from_static("vended-credentials"));
    }
    for (property, value) in properties {
        let Some(name) = property.strip_prefix("header.") else { continue };
        let parsed =
            HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value.expose()).ok());
        let Some((name, mut value)) = parsed else {
            let message = format!("catalog_properties.{property}: is no header");
            let error = LakeError::new(Kind::Configuration, "configuration", message);
            return Err(error.hint("a header's name has letters, digits and dashes"));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Those properties that are about files.
fn of_files(mut properties: Properties) -> Properties {
    properties
        .retain(|name, _: &mut Secret| name.starts_with("s3.") || name.starts_with("client."));
    properties
}

fn levels(namespace: &str) -> Vec<&str> {
    namespace.split('.').collect()
}

fn parse<T: for<'de> Deserialize<'de>>(doing: &str, body: &[u8]) -> Result<T> {
    serde_json::from_slice::<T>(body).map_err(|error| {
        // The answer may hold keys: what is told is where it is wrong.
        let message = format!("{doing}: line {} of the answer is not as expected", error.line());
        let hint = "see whether catalog_uri is the address of an Iceberg REST catalog";
        LakeError::new(Kind::Unavailable, "catalog_unavailable", message).hint(hint)
    })
}
