//! Key and value converter: Avro with Confluent's framing (magic 0, 4-byte schema id).

use cdc_shared::config::registry::apicurio_native_url;
use cdc_shared::config::{Converter, PipelineConfig};

use super::{KEEP_NULLS_CLASS, Properties, map, prefixed};

/// Class of the converter.
pub fn converter_class(converter: Converter) -> &'static str {
    match converter {
        Converter::Apicurio => "io.apicurio.registry.utils.converter.AvroConverter",
        Converter::Confluent => "io.confluent.connect.avro.AvroConverter",
    }
}

pub(super) fn properties(config: &PipelineConfig) -> Properties {
    let connector = &config.connector;
    let settings = match connector.converter {
        Converter::Apicurio => apicurio(config),
        Converter::Confluent => confluent(config),
    };
    let class = converter_class(connector.converter);
    let mut properties = map([("key.converter", class), ("value.converter", class)]);
    properties.extend(prefixed("key.converter.", &settings));
    properties.extend(prefixed("value.converter.", &settings));
    if connector.keeps_nulls() {
        properties.extend(map([
            ("transforms", "keepNulls"),
            ("transforms.keepNulls.type", KEEP_NULLS_CLASS),
        ]));
    }
    properties
}

fn registry_url(config: &PipelineConfig) -> &str {
    config.connector.registry_url.as_deref().unwrap_or(&config.kafka.schema_registry_url)
}

fn apicurio(config: &PipelineConfig) -> Properties {
    let mut settings = map([
        ("apicurio.registry.url", &apicurio_native_url(registry_url(config))),
        ("apicurio.registry.auto-register", "true"),
        ("apicurio.registry.find-latest", "true"),
        ("apicurio.registry.as-confluent", "true"),
        ("apicurio.registry.use-id", "contentId"),
        ("apicurio.registry.headers.enabled", "false"),
    ]);
    let registry = &config.kafka.schema_registry;
    if let (Some(user), Some(password)) = (&registry.username, &registry.password) {
        settings.extend(map([
            ("apicurio.auth.username", user),
            ("apicurio.auth.password", password.expose()),
        ]));
    }
    settings
}

fn confluent(config: &PipelineConfig) -> Properties {
    let mut settings = map([
        ("schema.registry.url", registry_url(config)),
        // NULL in a column with a default stays NULL.
        ("ignore.default.for.nullables", "true"),
    ]);
    let registry = &config.kafka.schema_registry;
    if let (Some(user), Some(password)) = (&registry.username, &registry.password) {
        settings.extend(map([
            ("basic.auth.credentials.source", "USER_INFO"),
            ("basic.auth.user.info", &format!("{user}:{}", password.expose())),
        ]));
    } else if let Some(token) = &registry.bearer_token {
        settings.extend(map([
            ("bearer.auth.credentials.source", "STATIC_TOKEN"),
            ("bearer.auth.token", token.expose()),
        ]));
    }
    settings
}
