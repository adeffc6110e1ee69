//! The client of the schema registry: schema id → compiled plan, fetched once; and whether it
//! answers at all.

mod subjects;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use crate::avro::{Plan, SchemaError};
use crate::config::registry::{apicurio_compat_url, is_bare};
use crate::config::{KafkaConfig, seconds};
use crate::envelope::ValueSchema;
use crate::http::{self, Credentials};
use crate::tls::TlsError;

pub use subjects::Version;

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
        /// Whether it refuses our credentials.
        refused: bool,
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
                match is_apicurio(status) {
                    Some(true) => Ok(apicurio_compat_url(&self.configured)),
                    Some(false) => Ok(self.configured.clone()),
                    // The answer is kept for good, so that it must be one.
                    None => Err(self.answered(status)),
                }
            })
            .await
            .map(String::as_str)
    }

    async fn get(&self, url: &str) -> Result<reqwest::Response, RegistryError> {
        let request = self.credentials.apply(self.client.get(url));
        request.send().await.map_err(|error| self.unavailable(http::cause(&error)))
    }

    /// Asks for something small: the kinds of schemas that it takes.
    ///
    /// # Errors
    /// When it does not answer, refuses us, or does not answer as a registry.
    pub async fn check(&self) -> Result<Vec<String>, RegistryError> {
        let response = self.get(&format!("{}/schemas/types", self.base().await?)).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.answered(status));
        }
        response
            .json()
            .await
            .map_err(|_| self.unavailable("does not answer as a schema registry".to_owned()))
    }

    fn unavailable(&self, reason: String) -> RegistryError {
        RegistryError::Unavailable { address: self.configured.clone(), reason, refused: false }
    }

    fn answered(&self, status: StatusCode) -> RegistryError {
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let reason = if refused {
            format!("refuses our credentials ({status})")
        } else {
            format!("answered {status}")
        };
        RegistryError::Unavailable { address: self.configured.clone(), reason, refused }
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
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(self.answered(status));
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

/// What the answer to Apicurio's own path says of a registry; `None` when it says nothing, because
/// a registry that starts, is overloaded or refuses us answers so whatever it is.
fn is_apicurio(status: StatusCode) -> Option<bool> {
    match status {
        status if status.is_success() => Some(true),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => None,
        status if status.is_server_error() => None,
        _ => Some(false),
    }
}

/// How long a caller waits between two questions for a schema that is not there.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request after the other and tells each one's path.
    fn answering(
        answers: Vec<(u16, &'static str)>,
    ) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let mut paths = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                    request.push(byte[0]);
                }
                let text = String::from_utf8(request).unwrap();
                paths.push(text.split(' ').nth(1).unwrap().to_owned());
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
            paths
        });
        (address, served)
    }

    #[tokio::test]
    async fn a_registry_that_starts_is_not_taken_for_another_kind_for_good() {
        crate::tls::install_crypto();
        let (address, served) =
            answering(vec![(503, ""), (401, ""), (200, "{}"), (200, r#"["AVRO"]"#)]);
        let kafka = KafkaConfig { schema_registry_url: address, ..KafkaConfig::default() };
        let registry = Registry::new(&kafka).unwrap();
        let told = registry.check().await.unwrap_err().to_string();
        assert!(told.ends_with("answered 503 Service Unavailable"), "{told}");
        let refused = registry.check().await.unwrap_err();
        assert!(matches!(refused, RegistryError::Unavailable { refused: true, .. }), "{refused}");
        assert_eq!(registry.check().await.unwrap(), ["AVRO"]);
        let probe = "/apis/registry/v2/system/info";
        let types = "/apis/ccompat/v7/schemas/types";
        assert_eq!(served.join().unwrap(), [probe, probe, probe, types]);
    }

    #[tokio::test]
    async fn a_registry_without_apicurios_path_is_asked_as_it_is() {
        crate::tls::install_crypto();
        let (address, served) = answering(vec![(404, ""), (200, "<html>")]);
        let kafka = KafkaConfig { schema_registry_url: address, ..KafkaConfig::default() };
        let told = Registry::new(&kafka).unwrap().check().await.unwrap_err().to_string();
        assert!(told.ends_with("does not answer as a schema registry"), "{told}");
        assert_eq!(served.join().unwrap()[1], "/schemas/types");
    }
}
