//! Kafka's security settings as a Java client takes them: for the clients that Connect's plugins
//! open by themselves (schema history, signals).

use std::path::Path;

use cdc_shared::config::{KafkaConfig, SaslMechanism};

use super::connector::Properties;
use crate::cli::{Exit, Failure};

/// The properties, without prefix. Certificates travel by value, so that no file has to be put on
/// the Connect workers.
///
/// # Errors
/// A certificate or key file that cannot be read.
pub(super) fn properties(kafka: &KafkaConfig) -> Result<Properties, Failure> {
    let mut properties = Properties::new();
    let protocol = kafka.security_protocol;
    if !protocol.uses_sasl() && !protocol.uses_tls() {
        return Ok(properties);
    }
    properties.insert("security.protocol".into(), protocol.name().to_uppercase());
    if protocol.uses_sasl() {
        properties.insert("sasl.mechanism".into(), kafka.sasl.mechanism.name().into());
        properties.insert("sasl.jaas.config".into(), jaas(kafka));
    }
    if protocol.uses_tls() {
        let tls = &kafka.tls;
        if let Some(ca) = &tls.ca_file {
            properties.insert("ssl.truststore.type".into(), "PEM".into());
            properties.insert("ssl.truststore.certificates".into(), read("kafka.tls.ca_file", ca)?);
        }
        if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
            properties.insert("ssl.keystore.type".into(), "PEM".into());
            let chain = read("kafka.tls.cert_file", cert)?;
            properties.insert("ssl.keystore.certificate.chain".into(), chain);
            properties.insert("ssl.keystore.key".into(), read("kafka.tls.key_file", key)?);
        }
        if let Some(password) = &tls.key_password {
            properties.insert("ssl.key.password".into(), password.expose().into());
        }
        if tls.allow_insecure {
            // A Java client checks the chain always; only the name can be waived.
            properties.insert("ssl.endpoint.identification.algorithm".into(), String::new());
        }
    }
    Ok(properties)
}

fn jaas(kafka: &KafkaConfig) -> String {
    let module = match kafka.sasl.mechanism {
        SaslMechanism::Plain => "org.apache.kafka.common.security.plain.PlainLoginModule",
        SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => {
            "org.apache.kafka.common.security.scram.ScramLoginModule"
        }
    };
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "{module} required username=\"{}\" password=\"{}\";",
        quote(&kafka.sasl.username),
        quote(kafka.sasl.password.expose())
    )
}

fn read(setting: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::NoInput, format!("{setting}: read {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::{SaslConfig, SecurityProtocol};

    use super::*;

    #[test]
    fn credentials_are_quoted() {
        let kafka = KafkaConfig {
            security_protocol: SecurityProtocol::SaslPlaintext,
            sasl: SaslConfig {
                mechanism: SaslMechanism::ScramSha512,
                username: "u".into(),
                password: r#"a"b\c"#.into(),
            },
            ..KafkaConfig::default()
        };
        let properties = properties(&kafka).unwrap();
        assert_eq!(properties["security.protocol"], "SASL_PLAINTEXT");
        assert_eq!(
            properties["sasl.jaas.config"],
            "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"u\" \
             password=\"a\\\"b\\\\c\";"
        );
    }

    #[test]
    fn plaintext_needs_nothing_and_certificates_travel_by_value() {
        assert!(properties(&KafkaConfig::default()).unwrap().is_empty());
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, "PEM").unwrap();
        let mut kafka =
            KafkaConfig { security_protocol: SecurityProtocol::Ssl, ..KafkaConfig::default() };
        kafka.tls.ca_file = Some(ca);
        assert_eq!(properties(&kafka).unwrap()["ssl.truststore.certificates"], "PEM");
        kafka.tls.ca_file = Some(dir.path().join("absent.pem"));
        let failure = properties(&kafka).unwrap_err();
        assert_eq!(failure.exit, Exit::NoInput);
        assert!(failure.message.starts_with("kafka.tls.ca_file: read "));
    }
}
