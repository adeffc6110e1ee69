//! Rules about addresses, credentials and certificates.

use reqwest::Url;

use super::Findings;
use crate::config::{NamedToken, PipelineConfig, Secret, TlsConfig};

pub(super) fn check(config: &PipelineConfig, findings: &mut Findings<'_>) {
    kafka(config, findings);
    let registry = &config.kafka.schema_registry;
    login(
        "kafka.schema_registry",
        (&registry.username, &registry.password, &registry.bearer_token),
        findings,
    );
    let connector = &config.connector;
    login(
        "connector",
        (&connector.username, &connector.password, &connector.bearer_token),
        findings,
    );
    let http: &[&str] = &["http", "https"];
    findings.check("kafka.schema_registry_url", url(&config.kafka.schema_registry_url, http));
    findings.check("connector.connect_url", url(&connector.connect_url, http));
    if let Some(address) = &connector.registry_url {
        findings.check("connector.registry_url", url(address, http));
    }
    if let Some(address) = &connector.bootstrap_servers {
        findings.check("connector.bootstrap_servers", brokers(address));
    }
    if let Some(address) = &config.coordinator.url {
        findings.check("coordinator.url", url(address, http));
    }
    if let Some(address) = &config.coordinator.advertise {
        findings.check("coordinator.advertise", url(address, http));
    }
    findings.check("redis.url", url(&config.redis.url, &["redis", "rediss"]));
    bind(config, findings);
    for (path, tls) in [
        ("kafka.tls", &config.kafka.tls),
        ("kafka.schema_registry.tls", &registry.tls),
        ("connector.tls", &connector.tls),
        ("coordinator.tls", &config.coordinator.tls),
        ("redis.tls", &config.redis.tls),
    ] {
        certificates(path, tls, findings);
    }
}

fn kafka(config: &PipelineConfig, findings: &mut Findings<'_>) {
    let kafka = &config.kafka;
    findings.check("kafka.bootstrap_servers", brokers(&kafka.bootstrap_servers));
    let protocol = kafka.security_protocol;
    if protocol.uses_sasl() {
        if kafka.sasl.username.is_empty() {
            findings.error("kafka.sasl.username", format!("is required by {}", protocol.name()));
        }
        if kafka.sasl.password.is_empty() {
            findings.error("kafka.sasl.password", format!("is required by {}", protocol.name()));
        }
        if !protocol.uses_tls() && kafka.sasl.mechanism == crate::config::SaslMechanism::Plain {
            findings.warning(
                "kafka.security_protocol",
                "sasl_plaintext with PLAIN sends the password unencrypted",
            );
        }
    } else if !kafka.sasl.username.is_empty() {
        let message = "has no effect: set kafka.security_protocol to sasl_ssl or sasl_plaintext";
        findings.error("kafka.sasl.username", message);
    }
    if !protocol.uses_tls() && kafka.tls != TlsConfig::default() {
        let message = "has no effect: set kafka.security_protocol to ssl or sasl_ssl";
        findings.error("kafka.tls", message);
    }
}

type Login<'a> = (&'a Option<String>, &'a Option<Secret>, &'a Option<Secret>);

fn login(path: &str, (username, password, bearer): Login<'_>, findings: &mut Findings<'_>) {
    if username.is_some() && bearer.is_some() {
        let message = "excludes username: give one kind of credentials";
        findings.error(&format!("{path}.bearer_token"), message);
    }
    if username.is_some() != password.is_some() {
        let (given, missing) =
            if username.is_some() { ("username", "password") } else { ("password", "username") };
        findings.error(&format!("{path}.{missing}"), format!("is required with {given}"));
    }
}

/// A certificate has a key, and the other way round.
pub(super) fn certificates(path: &str, tls: &TlsConfig, findings: &mut Findings<'_>) {
    key_pair(
        path,
        ("cert_file", tls.cert_file.is_some()),
        ("key_file", tls.key_file.is_some()),
        findings,
    );
    if tls.allow_insecure {
        findings.warning(&format!("{path}.allow_insecure"), "whoever answers is believed");
    }
}

/// Two settings that only work together.
pub(super) fn key_pair(
    path: &str,
    (certificate, has_certificate): (&str, bool),
    (key, has_key): (&str, bool),
    findings: &mut Findings<'_>,
) {
    if has_certificate != has_key {
        let (given, missing) = if has_key { (key, certificate) } else { (certificate, key) };
        findings.error(&format!("{path}.{missing}"), format!("is required with {given}"));
    }
}

fn bind(config: &PipelineConfig, findings: &mut Findings<'_>) {
    let path = "coordinator.bind";
    let bind = &config.coordinator.bind;
    findings.check(path, host_and_port(bind));
    let host = bind.rsplit_once(':').map_or(bind.as_str(), |(host, _)| host);
    let tokens = &config.coordinator.tokens;
    if findings.uses(path)
        && findings.uses("coordinator.tokens.operator")
        && !is_loopback(host)
        && !tokens.any()
    {
        let message = format!("`{bind}` can be reached from elsewhere: set coordinator.tokens");
        findings.error(path, message);
    }
    for (role, token) in
        [("worker", &tokens.worker), ("operator", &tokens.operator), ("reader", &tokens.reader)]
    {
        if token.as_ref().is_some_and(Secret::is_empty) {
            findings.error(&format!("coordinator.tokens.{role}"), "must not be empty");
        }
    }
    named_tokens(&tokens.named, findings);
}

/// A name stands for one caller, and a token for one name.
fn named_tokens(named: &[NamedToken], findings: &mut Findings<'_>) {
    for (at, NamedToken { name, token, .. }) in named.iter().enumerate() {
        let path = format!("coordinator.tokens.named[{at}]");
        if !findings.uses(&format!("{path}.token")) {
            continue;
        }
        let before = &named[..at];
        if name.is_empty() || name.chars().any(char::is_control) {
            findings.error(&format!("{path}.name"), "must be one line that is not empty");
        } else if before.iter().any(|other| other.name == *name) {
            findings.error(&format!("{path}.name"), format!("`{name}` has a token already"));
        }
        if token.is_empty() {
            findings.error(&format!("{path}.token"), "must not be empty");
        } else if before.iter().any(|other| other.token == *token) {
            findings.error(&format!("{path}.token"), "is another's: nobody could tell them apart");
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `host:port`, several separated by commas.
fn brokers(list: &str) -> Result<(), String> {
    list.split(',').map(str::trim).try_for_each(host_and_port)
}

fn host_and_port(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{text}` is no host:port: {why}"));
    if text.contains("://") {
        return wrong("leave the scheme away");
    }
    match text.rsplit_once(':') {
        None => wrong("the port is missing"),
        Some(("", _)) => wrong("the host is missing"),
        Some((host, _)) if host.contains(char::is_whitespace) => wrong("there is a space in it"),
        Some((_, port)) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            wrong("the port must be from 1 to 65535")
        }
        Some(_) => Ok(()),
    }
}

/// An address with one of the schemes, a host, and no credentials. The message shows nothing of an
/// address that may hold a password.
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let expected = schemes.join(":// or ");
    let Ok(parsed) = Url::parse(text) else {
        return Err(format!("is no address: expected {expected}:// with host and port"));
    };
    if !schemes.contains(&parsed.scheme()) {
        return Err(format!("expected an address with {expected}://, found {}:", parsed.scheme()));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err("has no host".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not hold user and password: they have settings of their own".to_owned());
    }
    Ok(())
}
