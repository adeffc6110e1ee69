//! How requests to a REST catalog prove who they are: by a token that is given, or by one that is
//! fetched for a client's secret and fetched anew before it ends.

use std::time::{Duration, Instant};

use cdc_shared::config::Secret;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::error::{Kind, LakeError, Result};
use crate::warehouse::Properties;

/// How long a token holds that does not say it.
const LIFETIME: Duration = Duration::from_hours(1);

/// See the module.
#[derive(Debug)]
pub(super) enum Auth {
    None,
    Token(Secret),
    Client(Box<ClientSecret>),
}

/// OAuth 2's client credentials.
#[derive(Debug)]
pub(super) struct ClientSecret {
    server: String,
    id: Option<String>,
    secret: Secret,
    /// `scope`, `audience`, `resource`.
    more: Vec<(&'static str, String)>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    token: Secret,
    /// When it is to be fetched anew.
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<serde_json::Value>,
    error_description: Option<String>,
}

impl Auth {
    /// `uri`: the catalog, which may give tokens itself.
    pub(super) fn new(properties: &Properties, uri: &str) -> Result<Self> {
        let get = |name: &str| properties.get(name).filter(|value| !value.is_empty());
        let (token, credential) = (get("token"), get("credential"));
        let credential = match (token, credential) {
            (Some(_), Some(_)) => {
                let message = "catalog_properties: token and credential exclude each other";
                let error = LakeError::new(Kind::Configuration, "configuration", message);
                return Err(error.hint("give the token, or what tokens are fetched for"));
            }
            (Some(token), None) => return Ok(Self::Token(token.clone())),
            (None, None) => return Ok(Self::None),
            (None, Some(credential)) => credential,
        };
        let (id, secret) = match credential.expose().split_once(':') {
            Some((id, secret)) => (Some(id.to_owned()), secret),
            None => (None, credential.expose()),
        };
        let text = |name: &str| get(name).map(|value| value.expose().to_owned());
        let mut more = vec![("scope", text("scope").unwrap_or_else(|| "catalog".to_owned()))];
        for name in ["audience", "resource"] {
            more.extend(text(name).map(|value| (name, value)));
        }
        Ok(Self::Client(Box::new(ClientSecret {
            server: text("oauth2-server-uri").unwrap_or_else(|| format!("{uri}/v1/oauth/tokens")),
            id,
            secret: Secret::from(secret),
            more,
            held: Mutex::default(),
        })))
    }

    /// Adds to a request what proves it, and gives the token that it used.
    pub(super) async fn apply(
        &self,
        http: &reqwest::Client,
        request: RequestBuilder,
    ) -> Result<(RequestBuilder, Option<Secret>)> {
        let token = match self {
            Self::None => return Ok((request, None)),
            Self::Token(token) => token.clone(),
            Self::Client(client) => client.token(http).await?,
        };
        Ok((request.bearer_auth(token.expose()), Some(token)))
    }

    /// A token was refused. Whether another can be had.
    pub(super) async fn refused(&self, token: Option<&Secret>) -> bool {
        let Self::Client(client) = self else { return false };
        let mut held = client.held.lock().await;
        // Others may have fetched another one by now.
        if held.as_ref().map(|held| &held.token) == token {
            *held = None;
        }
        true
    }
}

impl ClientSecret {
    async fn token(&self, http: &reqwest::Client) -> Result<Secret> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(held.token.clone());
        }
        let answer = self.fetch(http).await?;
        let lifetime = answer.expires_in.map_or(LIFETIME, Duration::from_secs);
        let until = Instant::now() + lifetime.saturating_sub(lifetime / 10);
        let token = answer.access_token;
        *held = Some(Held { token: token.clone(), until });
        Ok(token)
    }

    async fn fetch(&self, http: &reqwest::Client) -> Result<Answer> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.id.as_deref().map(|id| ("client_id", id)));
        form.push(("client_secret", self.secret.expose()));
        form.extend(self.more.iter().map(|(name, value)| (*name, value.as_str())));
        let doing = format!("fetching a token from {}", self.server);
        let unreachable = |error: &reqwest::Error| {
            let message = format!("{doing}: {}", cdc_shared::http::cause(error));
            LakeError::new(Kind::Unavailable, "catalog_unreachable", message)
                .hint("start what gives tokens, or correct oauth2-server-uri")
        };
        let answer = http.post(&self.server).header("accept", "application/json").form(&form);
        let answer = answer.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| {
                let message = format!("{doing}: the answer holds no access_token");
                LakeError::new(Kind::Unavailable, "catalog_unauthorized", message)
                    .hint("correct oauth2-server-uri")
            });
        }
        Err(refusal(&doing, status, &body))
    }
}

/// What the server says, which is about the client and not its secret.
fn refusal(doing: &str, status: StatusCode, body: &[u8]) -> LakeError {
    let said = serde_json::from_slice::<Refusal>(body).ok();
    let said = said.map(|said| match said.error {
        Some(serde_json::Value::String(code)) => {
            let description = said.error_description.unwrap_or_default();
            format!(" {code} {description}").trim_end().to_owned()
        }
        _ => String::new(),
    });
    let message = format!("{doing}: {}{}", status.as_u16(), said.unwrap_or_default());
    LakeError::new(Kind::Unavailable, "catalog_unauthorized", message)
        .hint("correct credential and scope in catalog_properties")
}
