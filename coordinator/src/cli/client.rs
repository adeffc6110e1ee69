//! Client of the coordinator's API.

use cdc_shared::api::{
    COMMAND_PATH, Command, CommandReply, CommandRequest, ErrorBody, STATUS_PATH,
};
use cdc_shared::config::{PipelineConfig, Secret};
use cdc_shared::http;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

use super::{Exit, Failure};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time for a command: more than the coordinator takes, which may read a topic for it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(65);

/// A client of one coordinator.
pub(super) struct Coordinator {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
    pipeline: String,
}

impl Coordinator {
    pub(super) fn new(pipeline: &PipelineConfig) -> Result<Self, Failure> {
        let config = &pipeline.coordinator;
        let http = http::client(&config.tls, TIMEOUT)
            .map_err(|e| Failure::new(Exit::Config, format!("coordinator.tls: {e}")))?;
        let token = config.tokens.operator.clone().or_else(|| config.tokens.reader.clone());
        Ok(Self {
            http,
            base: config.base_url(),
            token: token.filter(|t| !t.is_empty()),
            pipeline: pipeline.pipeline_id.clone(),
        })
    }

    /// A report as the coordinator gives it.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.get_within(path, TIMEOUT).await
    }

    /// The same, in less time than a request may take.
    pub(super) async fn get_within(&self, path: &str, limit: Duration) -> Result<Value, Failure> {
        let until = Instant::now() + limit;
        let report = timeout_at(until, self.send(Method::GET, path, None))
            .await
            .unwrap_or_else(|_| Err(self.silent(limit)))?;
        self.ours(&report)?;
        // One that does not lead hears no worker. It knows who does.
        let coordinator = &report["coordinator"];
        match coordinator["leader_url"].as_str() {
            Some(url) if coordinator["leader"] == false => {
                let asked = timeout_at(until, self.send_to(url, Method::GET, path, None)).await;
                Ok(asked.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or(report))
            }
            _ => Ok(report),
        }
    }

    /// The same, read as well; `what` it is, for the message.
    pub(super) async fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &str,
    ) -> Result<(Value, T), Failure> {
        let body = self.get(path).await?;
        let report = read_as(&body, what)?;
        Ok((body, report))
    }

    /// Several pipelines on one machine easily share an address by mistake; a command must not
    /// reach another pipeline's sink of the same name.
    fn ours(&self, report: &Value) -> Result<(), Failure> {
        match report["pipeline_id"].as_str() {
            Some(other) if other != self.pipeline => {
                let message = format!(
                    "the coordinator at {} serves pipeline {other}, not {}",
                    self.base, self.pipeline
                );
                Err(Failure::new(Exit::Config, message)
                    .hint("give each pipeline its own coordinator.bind or coordinator.url"))
            }
            Some(_) => Ok(()),
            None => Err(self.foreign()),
        }
    }

    /// Gives a command in the name of the person at this machine.
    pub(super) async fn command(&self, command: Command) -> Result<CommandReply, Failure> {
        self.get(STATUS_PATH).await?;
        let request = CommandRequest { by: who(), command };
        let body = serde_json::to_value(request)
            .map_err(|e| Failure::new(Exit::Software, e.to_string()))?;
        let reply = self.send(Method::POST, COMMAND_PATH, Some(body)).await?;
        serde_json::from_value(reply).map_err(|_| self.foreign())
    }

    /// Asks the coordinator, and the one that leads where it names another.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let (status, error) =
            match self.send_to(&self.base, method.clone(), path, body.as_ref()).await? {
                Ok(answer) => return Ok(answer),
                Err(refused) => refused,
            };
        let Some(leader) = &error.leader else { return Err(refusal(status, error)) };
        match self.send_to(leader, method, path, body.as_ref()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err((status, error))) => Err(refusal(status, error)),
            // Its own address may lead nowhere from here.
            Err(_) => Err(refusal(status, error)),
        }
    }

    /// The inner `Err`: a refusal of the coordinator's own.
    async fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Value, (StatusCode, ErrorBody)>, Failure> {
        let mut request = self.http.request(method, format!("{base}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body).timeout(COMMAND_TIMEOUT);
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
        // A critical pipeline may answer 503, with the same body.
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            if status.is_success() || value.get("code").is_none() {
                return Ok(Ok(value));
            }
            if let Ok(error) = serde_json::from_value::<ErrorBody>(value) {
                return Ok(Err((status, error)));
            }
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.forbidden(status)),
            _ => Err(self.foreign()),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unreachable("the coordinator", &self.base, &http::cause(error))
            .hint("start it (cdc serve, or cdc run), or set coordinator.url")
    }

    /// The failure of a coordinator that has not answered for so long.
    fn silent(&self, limit: Duration) -> Failure {
        let cause = format!("no answer within {limit:?}");
        Failure::unreachable("the coordinator", &self.base, &cause)
    }

    fn foreign(&self) -> Failure {
        Failure::new(Exit::Unavailable, format!("{} does not answer as our coordinator", self.base))
            .hint("check coordinator.url")
    }

    fn forbidden(&self, status: StatusCode) -> Failure {
        let message = format!("the coordinator at {} refuses our token ({status})", self.base);
        Failure::new(Exit::NoPerm, message).hint("set coordinator.tokens.operator")
    }
}

fn refusal(status: StatusCode, error: ErrorBody) -> Failure {
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NoPerm,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => Exit::TempFail,
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
            Exit::Data
        }
        _ => Exit::Software,
    };
    Failure { exit, message: format!("{} ({})", error.message, error.code), hint: error.hint }
}

/// A report in its own form; `what` it is, for the message.
pub(super) fn read_as<T: DeserializeOwned>(report: &Value, what: &str) -> Result<T, Failure> {
    T::deserialize(report)
        .map_err(|e| Failure::new(Exit::Software, format!("the coordinator's {what}: {e}")))
}

/// User and host, for the audit line.
fn who() -> String {
    let variables = cdc_shared::config::process_variables();
    let user = ["USER", "LOGNAME"].iter().find_map(|name| variables.get(*name));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user =
        user.cloned().unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_of_another_pipeline_is_not_ours() {
        cdc_shared::tls::install_crypto();
        let config = PipelineConfig { pipeline_id: "demo".into(), ..PipelineConfig::default() };
        let coordinator = Coordinator::new(&config).unwrap();
        let answer = |report: Value| coordinator.ours(&report);
        assert!(answer(serde_json::json!({ "pipeline_id": "demo" })).is_ok());
        let failure = answer(serde_json::json!({ "pipeline_id": "shop" })).unwrap_err();
        assert_eq!(
            failure.message,
            "the coordinator at http://127.0.0.1:8090 serves pipeline shop, not demo"
        );
        assert_eq!(answer(Value::Null).unwrap_err().exit, Exit::Unavailable);
    }

    #[test]
    fn a_refusal_keeps_the_coordinators_words() {
        let body = ErrorBody {
            code: "unknown_sink".into(),
            message: "no sink x".into(),
            hint: Some("see status".into()),
            leader: None,
        };
        let failure = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(failure.exit, Exit::Data);
        assert_eq!(failure.to_string(), "no sink x (unknown_sink)\n  way out: see status");
    }
}
