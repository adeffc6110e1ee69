//! HTTP towards the services we call: registry, Connect, coordinator, webhooks.

use std::time::Duration;

use crate::config::{Secret, TlsConfig};
use crate::tls::{self, TlsError, Verify};

/// A client that follows no redirect, asks no proxy of the environment, and ends every request
/// after `timeout`.
///
/// # Errors
/// When the TLS files cannot be used.
pub fn client(tls: &TlsConfig, timeout: Duration) -> Result<reqwest::Client, TlsError> {
    let rustls = tls::client_config(tls, Verify::Full)?;
    reqwest::Client::builder()
        .use_preconfigured_tls(rustls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .user_agent(concat!("cdc-platform/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// How a request proves who it is.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// User and password.
    Basic(String, Secret),
    /// A token.
    Bearer(Secret),
}

impl Credentials {
    /// From the fields that several sections share; a token wins over a user.
    pub fn from_fields(
        username: Option<&str>,
        password: Option<&Secret>,
        bearer: Option<&Secret>,
    ) -> Self {
        match (bearer, username) {
            (Some(token), _) if !token.is_empty() => Self::Bearer(token.clone()),
            (_, Some(user)) => Self::Basic(user.to_owned(), password.cloned().unwrap_or_default()),
            _ => Self::None,
        }
    }

    /// Adds them to a request.
    pub fn apply(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic(user, password) => request.basic_auth(user, Some(password.expose())),
            Self::Bearer(token) => request.bearer_auth(token.expose()),
        }
    }
}

/// The innermost cause of a request's failure, without the address (which the caller names) and
/// without credentials.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "timed out".to_owned()
    } else {
        crate::error::innermost(error).to_string()
    }
}
