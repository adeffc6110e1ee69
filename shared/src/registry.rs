//! The schema registry, as a reader of records needs it: schema id → compiled plan, fetched once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use crate::avro::{Plan, SchemaError};
use crate::config::registry::{apicurio_compat_url, is_bare};
use crate::config::{KafkaConfig, seconds};
use crate::envelope::ValueSchema;
use crate::http::{self, Credentials};
use crate::tls::TlsError;

/// Largest schema text, in bytes.
const MAX_SCHEMA_BYTES: usize = 5 * 1024 * 1024;
/// Most references that one schema may pull in, directly or not.
const MAX_REFERENCES: usize = 256;

/// A schema that records were written with.
#[derive(Debug)]
pub struct Schema {
    /// The compiled plan.
    pub plan: Arc<Plan>,
    /// What a value of this schema is.
    pub kind: ValueSchema,
}

/// Why a schema is not there.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry answers, but does not know the id.
    #[error("schema id {id} is not in the registry at {address}")]
    Unknown {
        /// The id.
        id: i32,
        /// The registry's address.
        address: String,
    },
    /// The registry cannot be asked; worth another try.
    #[error("schema registry at {address}: {reason}")]
    Unavailable {
        /// The registry's address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The text is no schema that we can read.
    #[error("schema id {id}: {reason}")]
    Invalid {
        /// The id.
        id: i32,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize, Clone)]
struct Reference {
    name: String,
    subject: String,
    version: i32,
}

/// A client with a cache. Shared by all partitions of a process.
pub struct Registry {
    client: reqwest::Client,
    configured: String,
    credentials: Credentials,
    base: OnceCell<String>,
    schemas: RwLock<HashMap<i32, Arc<Schema>>>,
    fetching: Mutex<()>,
}

impl Registry {
    /// A client for the registry of `kafka`. Nothing is asked yet.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, TlsError> {
        let settings = &kafka.schema_registry;
        let credentials = Credentials::from_fields(
            settings.username.as_deref(),
            settings.password.as_ref(),
            settings.bearer_token.as_ref(),
        );
        Ok(Self {
            client: http::client(&settings.tls, seconds(settings.timeout_seconds))?,
            configured: kafka.schema_registry_url.trim_end_matches('/').to_owned(),
            credentials,
            base: OnceCell::new(),
            schemas: RwLock::default(),
            fetching: Mutex::default(),
        })
    }

    /// The schema, if it was fetched before.
    pub fn cached(&self, id: i32) -> Option<Arc<Schema>> {
        self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The schema, fetched when this is the first question for it. Failures are not remembered.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn schema(&self, id: i32) -> Result<Arc<Schema>, RegistryError> {
        if let Some(schema) = self.cached(id) {
            return Ok(schema);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(schema) = self.cached(id) {
            return Ok(schema);
        }
        let schema = Arc::new(self.fetch(id).await?);
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        schemas.insert(id, schema.clone());
        Ok(schema)
    }

    /// The Confluent-compatible base address. A bare address is asked once whether it is
    /// Apicurio's.
    ///
    /// # Errors
    /// When a bare address does not answer.
    pub async fn base(&self) -> Result<&str, RegistryError> {
        self.base
            .get_or_try_init(|| async {
                if !is_bare(&self.configured) {
                    return Ok(apicurio_compat_url(&self.configured));
                }
                let probe = format!("{}/apis/registry/v2/system/info", self.configured);
                let status = self.get(&probe).await?.status();
                match status.as_u16() {
                    200..=299 => Ok(apicurio_compat_url(&self.configured)),
                    // It has no such page. Anything else is a registry that is not ready, or does
                    // not let us in, and may be either: the answer is kept for good.
                    404..=406 => Ok(self.configured.clone()),
                    _ => Err(self.unavailable(format!("answered {status} at {probe}"))),
                }
            })
            .await
            .map(String::as_str)
    }

    async fn get(&self, url: &str) -> Result<reqwest::Response, RegistryError> {
        let request = self.credentials.apply(self.client.get(url));
        request.send().await.map_err(|error| self.unavailable(http::cause(&error)))
    }

    fn unavailable(&self, reason: String) -> RegistryError {
        RegistryError::Unavailable { address: self.configured.clone(), reason }
    }

    async fn fetch(&self, id: i32) -> Result<Schema, RegistryError> {
        let url = format!("{}/schemas/ids/{id}", self.base().await?);
        let invalid = |reason: String| RegistryError::Invalid { id, reason };
        let body = self
            .body(&url)
            .await?
            .ok_or_else(|| RegistryError::Unknown { id, address: self.configured.clone() })?;
        if let Some(other) = body.schema_type.as_deref().filter(|kind| *kind != "AVRO") {
            return Err(invalid(format!("is a {other} schema, only Avro is supported")));
        }
        let references = self.references(id, body.references).await?;
        let plan = Plan::compile(id, &body.schema, &references)
            .map_err(|error: SchemaError| invalid(error.to_string()))?;
        let plan = Arc::new(plan);
        Ok(Schema { kind: ValueSchema::of(plan.clone()), plan })
    }

    /// The texts of everything a schema refers to, directly or not.
    async fn references(
        &self,
        id: i32,
        direct: Vec<Reference>,
    ) -> Result<Vec<(String, String)>, RegistryError> {
        let base = self.base().await?.to_owned();
        let mut waiting = direct;
        let mut found: Vec<(String, String)> = Vec::new();
        while let Some(reference) = waiting.pop() {
            if found.iter().any(|(name, _)| *name == reference.name) {
                continue;
            }
            if found.len() >= MAX_REFERENCES {
                let reason = format!("refers to more than {MAX_REFERENCES} other schemas");
                return Err(RegistryError::Invalid { id, reason });
            }
            let url = format!(
                "{base}/subjects/{}/versions/{}",
                reference.subject.replace('/', "%2F"),
                reference.version
            );
            let body = self.body(&url).await?.ok_or_else(|| RegistryError::Invalid {
                id,
                reason: format!(
                    "refers to version {} of subject {}, which is not in the registry",
                    reference.version, reference.subject
                ),
            })?;
            waiting.extend(body.references);
            found.push((reference.name, body.schema));
        }
        Ok(found)
    }

    /// `None`: the registry says that it is not there.
    async fn body(&self, url: &str) -> Result<Option<SchemaBody>, RegistryError> {
        let response = self.get(url).await?;
        let status = response.status();
        if status == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(self.unavailable(format!("answered {status}")));
        }
        let bytes =
            response.bytes().await.map_err(|error| self.unavailable(http::cause(&error)))?;
        if bytes.len() > MAX_SCHEMA_BYTES {
            return Err(self.unavailable(format!("answered with {} bytes", bytes.len())));
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| self.unavailable(format!("answered with no schema: {error}")))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("address", &self.configured).finish_non_exhaustive()
    }
}

/// How long a caller waits between two questions for a schema that is not there.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    type Paths = tokio::task::JoinHandle<Vec<String>>;

    /// Answers one request after the other, and tells which paths were asked for.
    async fn answering(answers: &[(u16, &'static str)]) -> (Registry, Paths) {
        crate::tls::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let schema_registry_url = format!("http://{}", listener.local_addr().unwrap());
        let kafka = KafkaConfig { schema_registry_url, ..KafkaConfig::default() };
        let answers = answers.to_vec();
        let server = tokio::spawn(async move {
            let mut paths = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                paths.push(text.split(' ').nth(1).unwrap().to_owned());
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            paths
        });
        (Registry::new(&kafka).unwrap(), server)
    }

    const SCHEMA: &str = r#"{"schema":"\"string\""}"#;
    const PROBE: &str = "/apis/registry/v2/system/info";

    #[tokio::test]
    async fn a_registry_that_is_not_ready_does_not_decide_which_kind_it_is() {
        for not_ready in [503, 502, 401, 429] {
            let answers = [(not_ready, ""), (200, "{}"), (200, SCHEMA)];
            let (registry, server) = answering(&answers).await;
            let error = registry.schema(7).await.unwrap_err();
            assert!(matches!(error, RegistryError::Unavailable { .. }), "{not_ready}: {error}");
            registry.schema(7).await.unwrap();
            let paths = server.await.unwrap();
            assert_eq!(paths, [PROBE, PROBE, "/apis/ccompat/v7/schemas/ids/7"]);
        }
    }

    #[tokio::test]
    async fn a_registry_without_apicurios_page_is_asked_at_its_own_address() {
        let (registry, server) = answering(&[(404, ""), (200, SCHEMA)]).await;
        registry.schema(7).await.unwrap();
        assert_eq!(server.await.unwrap(), [PROBE, "/schemas/ids/7"]);
    }
}
