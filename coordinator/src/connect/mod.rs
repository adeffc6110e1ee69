//! The client of Kafka Connect's REST interface, for the commands and for the daemon's health.

mod status;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdc_shared::config::{ConnectorConfig, seconds};
use cdc_shared::http::{self, Credentials};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

pub use status::{ConnectorStatus, Settled, TaskStatus, first_lines};

use crate::cli::{Exit, Failure};
use crate::deploy::connector::Properties;

/// How often a waiting call looks again.
const POLL: Duration = Duration::from_millis(250);
/// How long a failure that was there before is taken for the former one.
const OLD_NEWS: Duration = Duration::from_secs(10);
/// How long a connector may take to do what it was told.
const OBEYED: Duration = Duration::from_secs(30);
/// How long a command waits for the Connect workers to share out their connectors anew.
const REBALANCE: Duration = Duration::from_secs(30);

/// A client of one Connect cluster.
#[derive(Debug, Clone)]
pub struct Connect {
    http: reqwest::Client,
    base: String,
    credentials: Credentials,
    patience: Duration,
}

/// One plugin that the Connect workers have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Plugin {
    /// Its class.
    pub class: String,
    /// `source`, `sink`, `converter`, `transformation`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its version, where it has one.
    #[serde(default)]
    pub version: Option<String>,
}

impl Connect {
    /// A client by configuration.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(config: &ConnectorConfig) -> Result<Self, Failure> {
        let http = http::client(&config.tls, seconds(config.timeout_seconds))
            .map_err(|e| Failure::new(Exit::Config, format!("connector.tls: {e}")))?;
        let credentials = Credentials::from_fields(
            config.username.as_deref(),
            config.password.as_ref(),
            config.bearer_token.as_ref(),
        );
        let base = config.connect_url.trim_end_matches('/').to_owned();
        Ok(Self { http, base, credentials, patience: REBALANCE })
    }

    /// The same client for somebody who asks again anyway: it does not wait out a rebalance.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { patience: Duration::ZERO, ..self }
    }

    /// The address this client speaks to.
    pub fn address(&self) -> &str {
        &self.base
    }

    /// Version of the Connect worker; the cheapest proof that it answers.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn version(&self) -> Result<String, Failure> {
        let root = self.get("/").await?.unwrap_or_default();
        Ok(root["version"].as_str().unwrap_or("unknown").to_owned())
    }

    /// Every plugin: connectors, converters, transforms.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, Failure> {
        let list = self.get("/connector-plugins?connectorsOnly=false").await?.unwrap_or_default();
        self.parse(list)
    }

    /// Every connector with its properties.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn connectors(&self) -> Result<BTreeMap<String, Properties>, Failure> {
        #[derive(Deserialize)]
        struct Expanded {
            info: Info,
        }
        #[derive(Deserialize)]
        struct Info {
            config: Properties,
        }
        let all = self.get("/connectors?expand=info").await?.unwrap_or_default();
        let all: BTreeMap<String, Expanded> = self.parse(all)?;
        Ok(all.into_iter().map(|(name, expanded)| (name, expanded.info.config)).collect())
    }

    /// Properties of one connector, `None` when there is none of this name.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn config(&self, name: &str) -> Result<Option<Properties>, Failure> {
        match self.get(&format!("/connectors/{name}/config")).await? {
            Some(config) => self.parse(config).map(Some),
            None => Ok(None),
        }
    }

    /// State of one connector, `None` when there is none of this name.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn status(&self, name: &str) -> Result<Option<ConnectorStatus>, Failure> {
        match self.get(&format!("/connectors/{name}/status")).await? {
            Some(status) => self.parse(status).map(Some),
            None => Ok(None),
        }
    }

    /// What Connect and the connector find wrong with these properties: name and complaint.
    /// Debezium tries the database here.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn validate(
        &self,
        class: &str,
        properties: &Properties,
    ) -> Result<Vec<(String, String)>, Failure> {
        let path = format!("/connector-plugins/{class}/config/validate");
        let body = serde_json::to_value(properties).unwrap_or_default();
        let answer = self.send(Method::PUT, &path, Some(&body)).await?.unwrap_or_default();
        Ok(status::complaints(&answer))
    }

    /// Creates or changes a connector.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn put(&self, name: &str, properties: &Properties) -> Result<(), Failure> {
        let body = serde_json::to_value(properties).unwrap_or_default();
        self.send(Method::PUT, &format!("/connectors/{name}/config"), Some(&body)).await.map(drop)
    }

    /// Starts again what has failed of a connector.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn restart_failed(&self, name: &str) -> Result<(), Failure> {
        let path = format!("/connectors/{name}/restart?includeTasks=true&onlyFailed=true");
        self.send(Method::POST, &path, None).await.map(drop)
    }

    /// Removes a connector; `false` when there was none.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses.
    pub async fn delete(&self, name: &str) -> Result<bool, Failure> {
        let removed = self.send(Method::DELETE, &format!("/connectors/{name}"), None).await?;
        Ok(removed.is_some())
    }

    /// Stops a connector and forgets how far it has read.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses, or the connector does not stop in time.
    pub async fn forget_offsets(&self, name: &str) -> Result<(), Failure> {
        self.send(Method::PUT, &format!("/connectors/{name}/stop"), None).await?;
        let is_stopped = |status: &ConnectorStatus| {
            status.connector.state == "STOPPED" && status.tasks.is_empty()
        };
        self.wait_for(name, "stop", is_stopped).await?;
        self.send(Method::DELETE, &format!("/connectors/{name}/offsets"), None).await.map(drop)
    }

    /// Lets a connector that was stopped run again, and waits until Connect has taken that in.
    ///
    /// # Errors
    /// Connect cannot be reached or refuses, or goes on telling that it is stopped.
    pub async fn resume(&self, name: &str) -> Result<(), Failure> {
        self.send(Method::PUT, &format!("/connectors/{name}/resume"), None).await?;
        self.wait_for(name, "resume", |status| status.connector.state != "STOPPED").await
    }

    /// Waits until a connector is as it was told to be.
    async fn wait_for(
        &self,
        name: &str,
        order: &str,
        is_done: impl Fn(&ConnectorStatus) -> bool,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let status = self.status(name).await?.unwrap_or_default();
            if is_done(&status) {
                return Ok(());
            }
            if begun.elapsed() > OBEYED {
                let message = format!("connector {name} does not {order}: {}", status.describe());
                return Err(Failure::new(Exit::TempFail, message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the connector and its task have been running for `settle`. `former` is the state
    /// before what is waited for was asked: a failure in it is no news for a while, because Connect
    /// goes on telling it until the task is started again.
    ///
    /// # Errors
    /// Connect's own reason when they fail, or the last state when the time is over.
    pub async fn wait_running(
        &self,
        name: &str,
        limit: Duration,
        settle: Duration,
        former: Option<&ConnectorStatus>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut running_since = None;
        let old = match former.map(ConnectorStatus::settled) {
            Some(Settled::Failed(reason)) => Some(reason),
            _ => None,
        };
        loop {
            let status = self.status(name).await?.unwrap_or_default();
            match status.settled() {
                // Connector and task are told one after the other: between them the connector may
                // run already beside the task that failed.
                Settled::Failed(reason)
                    if old.as_ref() == Some(&reason) && begun.elapsed() <= OLD_NEWS =>
                {
                    running_since = None;
                }
                Settled::Running => {
                    let since = *running_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= settle {
                        return Ok(());
                    }
                }
                Settled::Failed(reason) => {
                    let message = format!("connector {name} failed: {reason}");
                    return Err(Failure::new(Exit::Software, message));
                }
                Settled::Held(state) => {
                    let message = format!("connector {name} is {state} by an operator's order");
                    let hint = format!("PUT {}/connectors/{name}/resume", self.base);
                    return Err(Failure::new(Exit::TempFail, message).hint(hint));
                }
                Settled::NotYet(_) => running_since = None,
            }
            if begun.elapsed() > limit {
                let message = format!(
                    "connector {name} does not run after {} s: {}",
                    limit.as_secs(),
                    status.describe()
                );
                return Err(Failure::new(Exit::TempFail, message).hint(
                    "see the log of Kafka Connect, or raise connector.task_start_timeout_seconds",
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// One request; `None` for 404. A rebalance of the Connect workers is waited out.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, Failure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let request = self.http.request(method.clone(), format!("{}{path}", self.base));
            let mut request = self.credentials.apply(request);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
            match status {
                StatusCode::NOT_FOUND => return Ok(None),
                _ if is_rebalance(status, &text) && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                _ if status.is_success() && text.is_empty() => return Ok(Some(Value::Null)),
                _ if status.is_success() => {
                    let value = serde_json::from_str(&text).map_err(|_| self.foreign())?;
                    return Ok(Some(value));
                }
                _ => return Err(self.refused(status, &text)),
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unreachable("Kafka Connect", &self.base, &http::cause(error))
            .hint("check connector.connect_url and that Kafka Connect runs")
    }

    fn foreign(&self) -> Failure {
        Failure::new(Exit::Unavailable, format!("{} does not answer as Kafka Connect", self.base))
            .hint("check connector.connect_url")
    }

    fn refused(&self, status: StatusCode, text: &str) -> Failure {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let message =
                format!("Kafka Connect at {} refuses our credentials ({status})", self.base);
            return Failure::new(Exit::NoPerm, message)
                .hint("check connector.username, connector.password, connector.bearer_token");
        }
        let said = serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|body| body["message"].as_str().map(first_lines))
            .unwrap_or_else(|| text.chars().take(200).collect());
        let exit = if status == StatusCode::BAD_REQUEST { Exit::Config } else { Exit::Software };
        Failure::new(exit, format!("Kafka Connect at {} answered {status}: {said}", self.base))
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|_| self.foreign())
    }
}

/// Whether Connect cannot answer for now because its workers share out the connectors anew: 409,
/// and from some of its paths 500 with the same words.
fn is_rebalance(status: StatusCode, text: &str) -> bool {
    status == StatusCode::CONFLICT
        || (status == StatusCode::INTERNAL_SERVER_ERROR && text.contains("rebalance"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebalance_is_known_by_its_status_or_its_words() {
        let words = r#"{"error_code":500,"message":"Request cannot be completed because a rebalance is expected"}"#;
        assert!(is_rebalance(StatusCode::CONFLICT, ""));
        assert!(is_rebalance(StatusCode::INTERNAL_SERVER_ERROR, words));
        assert!(!is_rebalance(StatusCode::INTERNAL_SERVER_ERROR, "null"));
        assert!(!is_rebalance(StatusCode::BAD_REQUEST, words));
    }
}
