//! Client of the coordinator's API.

use cdc_shared::api::{COMMAND_PATH, Command, CommandReply, CommandRequest, ErrorBody};
use cdc_shared::config::{CoordinatorConfig, Secret};
use cdc_shared::http;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

use super::{Exit, Failure};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A client of one coordinator.
pub(super) struct Coordinator {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
}

impl Coordinator {
    pub(super) fn new(config: &CoordinatorConfig) -> Result<Self, Failure> {
        let http = http::client(&config.tls, TIMEOUT)
            .map_err(|e| Failure::new(Exit::Config, format!("coordinator.tls: {e}")))?;
        let token = config.tokens.operator.clone().or_else(|| config.tokens.reader.clone());
        Ok(Self { http, base: config.base_url(), token: token.filter(|t| !t.is_empty()) })
    }

    /// A report as the coordinator gives it.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Gives a command in the name of the person at this machine.
    pub(super) async fn command(&self, command: Command) -> Result<CommandReply, Failure> {
        let request = CommandRequest { by: who(), command };
        let body = serde_json::to_value(request)
            .map_err(|e| Failure::new(Exit::Software, e.to_string()))?;
        let reply = self.send(Method::POST, COMMAND_PATH, Some(body)).await?;
        serde_json::from_value(reply).map_err(|_| self.foreign())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
        // A critical pipeline may answer 503, with the same body.
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            if status.is_success() || value.get("code").is_none() {
                return Ok(value);
            }
            if let Ok(error) = serde_json::from_value::<ErrorBody>(value) {
                return Err(refusal(status, error));
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

/// User and host, for the audit line.
fn who() -> String {
    let variables = cdc_shared::config::process_variables();
    let user = ["USER", "LOGNAME"].iter().find_map(|name| variables.get(*name));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}@{}", user.map_or("unknown", String::as_str), host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_coordinators_words() {
        let body = ErrorBody {
            code: "unknown_sink".into(),
            message: "no sink x".into(),
            hint: Some("see status".into()),
        };
        let failure = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(failure.exit, Exit::Data);
        assert_eq!(failure.to_string(), "no sink x (unknown_sink)\n  way out: see status");
    }
}
