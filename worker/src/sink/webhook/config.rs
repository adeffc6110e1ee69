//! The checked form of the `webhook` section.

use std::time::Duration;

use cdc_shared::config::{HttpMethod, WebhookConfig};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Uri};
use reqwest::Url;

use super::address;
use super::signature::Signer;
use crate::sink::{Disposition, SinkError};

/// Headers that belong to the request itself or that this sink sets; so does `webhook-*`.
const RESERVED: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade"];

const AGENT: &str = concat!("cdc-platform/", env!("CARGO_PKG_VERSION"));

/// What the sink works by.
#[derive(Debug)]
pub(super) struct WebhookOptions {
    pub(super) url: Url,
    /// The same, as requests carry it.
    pub(super) uri: Uri,
    pub(super) method: Method,
    /// What every request carries.
    pub(super) headers: HeaderMap,
    pub(super) signer: Signer,
    /// Longest time of one attempt with its answer.
    pub(super) timeout: Duration,
    pub(super) max_in_flight: usize,
    pub(super) max_response_bytes: usize,
    pub(super) send_tombstones: bool,
}

impl WebhookOptions {
    /// Checks the section.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once; secrets are not shown.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, SinkError> {
        let mut problems = Vec::new();
        let url = checked(url(config), &mut problems);
        let uri = url
            .as_ref()
            .map(|url| url.as_str().parse::<Uri>().map_err(|error| format!("url: {error}")));
        let uri = uri.and_then(|uri| checked(uri, &mut problems));
        let headers = headers(config, &mut problems);
        let signer = checked(Signer::new(&config.signing_secrets), &mut problems);
        if !(0.01..=3600.0).contains(&config.timeout_seconds) {
            problems.push("timeout_seconds must lie between 0.01 and 3600".to_owned());
        }
        if !(1..=10_000).contains(&config.max_in_flight) {
            problems.push("max_in_flight must lie between 1 and 10000".to_owned());
        }
        match (url, uri, signer) {
            (Some(url), Some(uri), Some(signer)) if problems.is_empty() => Ok(Self {
                url,
                uri,
                method: method(config.method),
                headers,
                signer,
                timeout: cdc_shared::config::seconds(config.timeout_seconds),
                max_in_flight: config.max_in_flight as usize,
                max_response_bytes: config.max_response_bytes as usize,
                send_tombstones: config.send_tombstones,
            }),
            _ => Err(invalid(&problems.join("; "))),
        }
    }
}

/// An error of the configuration.
pub(super) fn invalid(problem: &str) -> SinkError {
    SinkError {
        code: "webhook_config".to_owned(),
        message: format!("webhook settings cannot be used: {problem}"),
        hint: Some("correct the webhook section of this sink".to_owned()),
        disposition: Disposition::Fatal,
        source: None,
    }
}

fn checked<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
    }
}

fn url(config: &WebhookConfig) -> Result<Url, String> {
    let mut url = Url::parse(&config.url).map_err(|error| format!("url: {error}"))?;
    url.set_fragment(None);
    match url.scheme() {
        "https" => {}
        "http" if config.allow_http => {}
        "http" => return Err("url: http is not accepted while allow_http is false".to_owned()),
        other => return Err(format!("url: scheme {other} is neither http nor https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url: must hold no user and password; use auth_token or headers".to_owned());
    }
    if let (false, Some(ip)) = (config.allow_private, address::literal(&url))
        && address::is_private(ip)
    {
        return Err(format!("url: {ip} is private while allow_private is false"));
    }
    Ok(url)
}

fn headers(config: &WebhookConfig, problems: &mut Vec<String>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(config.headers.len() + 7);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in &config.headers {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            problems.push(format!("headers: {name:?} is not a header name"));
            continue;
        };
        if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
            problems.push(format!("headers: {name} is set by the sink itself"));
            continue;
        }
        match HeaderValue::from_str(value.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(parsed, value);
            }
            Err(_) => problems.push(format!("headers: the value of {name} cannot be sent")),
        }
    }
    if let Some(token) = config.auth_token.as_ref().filter(|token| !token.is_empty()) {
        if headers.contains_key(AUTHORIZATION) {
            problems.push("headers: authorization and auth_token exclude each other".to_owned());
        }
        match HeaderValue::from_str(&format!("Bearer {}", token.expose())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            Err(_) => problems.push("auth_token: cannot be sent in a header".to_owned()),
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::Secret;

    use super::*;

    fn config(url: &str) -> WebhookConfig {
        WebhookConfig { url: url.to_owned(), ..WebhookConfig::default() }
    }

    #[test]
    fn the_specifications_sample_is_taken() {
        let mut config = config("http://localhost:8000/cdc-events");
        config.headers.insert("X-Source".to_owned(), Secret::from("cdc-platform"));
        config.auth_token = Some(Secret::from("t0ken"));
        let options = WebhookOptions::new(&config).unwrap();
        assert_eq!(options.headers["x-source"], "cdc-platform");
        assert_eq!(options.headers["authorization"], "Bearer t0ken");
        assert_eq!(options.headers["content-type"], "application/json");
        assert!(!format!("{options:?}").contains("t0ken"));
    }

    #[test]
    fn everything_wrong_is_said_at_once_and_no_secret_with_it() {
        let mut config = config("ftp://localhost/");
        for (name, value) in [
            ("Host", "other"),
            ("Content-Length", "1"),
            ("Webhook-Id", "mine"),
            ("bad name", "x"),
            ("X-Key", "hunter2\n"),
        ] {
            config.headers.insert(name.to_owned(), Secret::from(value));
        }
        config.signing_secrets = vec![Secret::from("hunter2")];
        config.timeout_seconds = 0.0;
        config.max_in_flight = 0;
        let error = WebhookOptions::new(&config).unwrap_err();
        assert_eq!(error.disposition, Disposition::Fatal);
        for part in [
            "scheme ftp",
            "Host is set",
            "Content-Length is set",
            "Webhook-Id is set",
            "\"bad name\"",
            "value of X-Key",
            "signing_secrets[0]",
            "timeout_seconds",
            "max_in_flight",
        ] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }

    #[test]
    fn addresses_that_are_not_allowed_are_refused() {
        let refused = |config: &WebhookConfig| WebhookOptions::new(config).unwrap_err().message;
        assert!(refused(&config("http://user:pw@localhost/")).contains("no user and password"));
        assert!(refused(&config("localhost")).contains("url"));
        let strict = WebhookConfig { allow_http: false, ..config("http://example.com/") };
        assert!(refused(&strict).contains("allow_http"));
        for url in ["http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://2130706433/"] {
            let strict = WebhookConfig { allow_private: false, ..config(url) };
            assert!(refused(&strict).contains("allow_private"), "{url}");
        }
    }

    #[test]
    fn a_token_and_an_authorization_header_exclude_each_other() {
        let mut config = config("http://localhost/");
        config.headers.insert("authorization".to_owned(), Secret::from("Basic eA=="));
        assert!(WebhookOptions::new(&config).is_ok());
        config.auth_token = Some(Secret::from("x"));
        assert!(WebhookOptions::new(&config).is_err());
    }
}
