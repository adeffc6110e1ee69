//! The coordinator, as a worker calls it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc_shared::api::{
    ErrorBody, HEARTBEAT_PATH, Heartbeat, HeartbeatReply, WATERMARKS_PATH, Watermarks,
};
use cdc_shared::config::PipelineConfig;
use cdc_shared::http::{self, Credentials, cause};
use cdc_shared::tls::TlsError;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;

/// Longest time for one call. A call that takes longer is as good as none: the next heartbeat says
/// everything again.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not be made.
    #[error("coordinator client: {0}")]
    Setup(#[from] TlsError),
    /// No answer.
    #[error("coordinator at {address}: {cause}")]
    Unreachable {
        /// Base address.
        address: String,
        /// The innermost cause.
        cause: String,
    },
    /// An answer that says no.
    #[error("coordinator at {address} answered {status}: {message}")]
    Refused {
        /// Base address.
        address: String,
        /// HTTP status.
        status: u16,
        /// [`ErrorBody::code`], or `http_{status}` when the answer is not one of ours.
        code: String,
        /// Its sentence and hint.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("coordinator at {address}: unreadable answer: {cause}")]
    Unreadable {
        /// Base address.
        address: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl ClientError {
    /// Whether another coordinator may take what this one did not.
    fn leads_elsewhere(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => code == "not_leader",
            Self::Setup(_) | Self::Unreadable { .. } => false,
        }
    }

    /// Tells one kind of trouble from another, so that each is told once.
    pub fn kind(&self) -> &str {
        match self {
            Self::Setup(_) => "setup",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { code, .. } => code,
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Calls the coordinator. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CoordinatorClient {
    http: reqwest::Client,
    address: String,
    /// Whether the coordinator that leads is another one than at `address`, and was reached.
    follows: Arc<AtomicBool>,
    credentials: Credentials,
}

impl CoordinatorClient {
    /// A client for the pipeline's coordinator; connects with the first call.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn new(config: &PipelineConfig) -> Result<Self, ClientError> {
        let coordinator = &config.coordinator;
        let token = coordinator.tokens.worker.as_ref();
        Ok(Self {
            http: http::client(&coordinator.tls, TIMEOUT)?,
            address: coordinator.base_url(),
            follows: Arc::default(),
            credentials: Credentials::from_fields(None, None, token),
        })
    }

    /// Where it calls.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Reports, and learns what is wanted. `leader`: where the control topic says that the
    /// coordinator that leads is; it is asked where the configured address has another one, or none.
    ///
    /// # Errors
    /// See [`ClientError`]; none of them is a reason to stop delivering.
    pub async fn heartbeat(
        &self,
        heartbeat: &Heartbeat,
        leader: Option<&str>,
    ) -> Result<HeartbeatReply, ClientError> {
        let Some(leader) = leader.filter(|leader| *leader != self.address) else {
            return self.report(&self.address, heartbeat).await;
        };
        let follows = self.follows.load(Ordering::Relaxed);
        let (first, second) =
            if follows { (leader, self.address.as_str()) } else { (self.address.as_str(), leader) };
        match self.report(first, heartbeat).await {
            Err(error) if error.leads_elsewhere() => {
                let reply = self.report(second, heartbeat).await.map_err(|_| error)?;
                self.follows.store(!follows, Ordering::Relaxed);
                Ok(reply)
            }
            answer => answer,
        }
    }

    async fn report(&self, at: &str, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ClientError> {
        self.call(at, self.http.post(format!("{at}{HEARTBEAT_PATH}")).json(heartbeat)).await
    }

    /// The watermarks of a sink, as the store has them.
    ///
    /// # Errors
    /// See [`ClientError`]. "Not known" is an empty answer, not an error.
    pub async fn watermarks(&self, sink: &str) -> Result<Watermarks, ClientError> {
        let url = format!("{}{}", self.address, WATERMARKS_PATH.replace("{sink}", sink));
        self.call(&self.address, self.http.get(url)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        address: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            address: address.to_owned(),
            cause: cause(&error),
        };
        let response = self.credentials.apply(request).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(refused(address, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Unreadable {
            address: address.to_owned(),
            cause: error.to_string(),
        })
    }
}

fn refused(address: &str, status: StatusCode, body: &[u8]) -> ClientError {
    let (code, message) = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { code, message, hint: None, .. }) => (code, message),
        Ok(ErrorBody { code, message, hint: Some(hint), .. }) => {
            (code, format!("{message} ({hint})"))
        }
        Err(_) => {
            let way_out = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    "check coordinator.tokens.worker"
                }
                _ => "is this the address of a coordinator? check coordinator.url",
            };
            (format!("http_{}", status.as_u16()), way_out.to_owned())
        }
    };
    ClientError::Refused { address: address.to_owned(), status: status.as_u16(), code, message }
}
