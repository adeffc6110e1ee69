//! Watermarks in Redis: one hash per sink, written by one script only.

use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::RedisConfig;
use cdc_shared::offset::{Incarnation, NextOffset, Position, SchemaIds, TopicId, TopicPartition};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ErrorKind, IntoConnectionInfo, RedisError,
    Script, TlsCertificates,
};
use tokio::sync::Mutex;

use super::{SinkWatermarks, StoreCheck, StoreError, WatermarkStore};

/// Longest time for a connection, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// In place of a sink's id, which has no `~`: where it is tried whether watermarks can be written.
const TRIAL: &str = "~trial";

/// Watermarks in Redis, under `{prefix}:{pipeline_id}:wm:{sink}`.
pub struct RedisStore {
    client: Client,
    /// Address without credentials, for messages.
    address: String,
    /// `{prefix}:{pipeline_id}:wm:`.
    key_start: String,
    script: Script,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl RedisStore {
    /// Prepares a store; connects with the first call.
    ///
    /// # Errors
    /// When the address or the TLS files cannot be used.
    pub fn new(config: &RedisConfig, pipeline_id: &str) -> Result<Self, StoreError> {
        Ok(Self {
            client: client(config)?,
            address: config.url.clone(),
            key_start: format!("{}:{pipeline_id}:wm:", config.key_prefix),
            script: Script::new(include_str!("advance.lua")),
            connection: Mutex::new(None),
        })
    }

    fn key(&self, sink: &str) -> String {
        format!("{}{sink}", self.key_start)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.unavailable(&error))?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// An answer, or the error after which the next call connects anew: after a failover the old
    /// connection leads to a replica that only refuses.
    async fn answer<T>(&self, result: Result<T, RedisError>) -> Result<T, StoreError> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::UnexpectedReturnType) {
                    self.connection.lock().await.take();
                }
                Err(self.unavailable(&error))
            }
        }
    }

    fn unavailable(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable { address: self.address.clone(), cause: error.to_string() }
    }

    fn garbled(&self, key: &str, field: &str, value: &str) -> StoreError {
        StoreError::Garbled {
            address: self.address.clone(),
            key: key.to_owned(),
            field: field.to_owned(),
            value: value.to_owned(),
        }
    }
}

#[async_trait]
impl WatermarkStore for RedisStore {
    async fn advance(
        &self,
        sink: &str,
        report: &[(TopicPartition, Position)],
    ) -> Result<(), StoreError> {
        if report.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection().await?;
        let mut call = self.script.key(self.key(sink));
        for (tp, position) in report {
            call.arg(format!("{}/{}", tp.topic, tp.partition))
                .arg(position.incarnation.0)
                .arg(position.next.get())
                .arg(position.topic_id.0.as_ref())
                .arg(entry(position));
        }
        let result = call.invoke_async::<i64>(&mut connection).await;
        self.answer(result).await.map(|_| ())
    }

    async fn read(&self, sink: &str) -> Result<SinkWatermarks, StoreError> {
        let key = self.key(sink);
        let mut connection = self.connection().await?;
        let result: Result<Vec<(String, String)>, _> =
            redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await;
        self.answer(result)
            .await?
            .iter()
            .map(|(field, value)| {
                parse(field, value).ok_or_else(|| self.garbled(&key, field, value))
            })
            .collect()
    }

    async fn forget(&self, sink: &str, topic: Option<&str>) -> Result<(), StoreError> {
        let key = self.key(sink);
        let mut connection = self.connection().await?;
        let Some(topic) = topic else {
            let result = redis::cmd("DEL").arg(&key).query_async::<i64>(&mut connection).await;
            return self.answer(result).await.map(|_| ());
        };
        let result: Result<Vec<String>, _> =
            redis::cmd("HKEYS").arg(&key).query_async(&mut connection).await;
        let fields: Vec<String> = self
            .answer(result)
            .await?
            .into_iter()
            .filter(|field| field.rsplit_once('/').is_some_and(|(of, _)| of == topic))
            .collect();
        if fields.is_empty() {
            return Ok(());
        }
        let result =
            redis::cmd("HDEL").arg(&key).arg(&fields).query_async::<i64>(&mut connection).await;
        self.answer(result).await.map(|_| ())
    }

    async fn check(&self) -> Result<StoreCheck, StoreError> {
        let mut connection = self.connection().await?;
        let result: Result<String, _> =
            redis::cmd("INFO").arg("memory").query_async(&mut connection).await;
        let info = self.answer(result).await?;
        // A replica, or a server that is full, answers questions and refuses every watermark.
        let mut trial = redis::cmd("HSET");
        trial.arg(self.key(TRIAL)).arg("at_ms").arg(cdc_shared::clock::unix_ms());
        let result = trial.query_async::<i64>(&mut connection).await;
        self.answer(result).await?;
        Ok(StoreCheck { eviction: eviction(&info) })
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

fn client(config: &RedisConfig) -> Result<Client, StoreError> {
    let settings = |cause: String| StoreError::Settings(cause);
    let url = config.url.as_str();
    let mut info = url
        .into_connection_info()
        .map_err(|error| settings(format!("redis.url {url:?}: {error}")))?;
    let mut login = info.redis_settings().clone();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = config.password.as_ref().filter(|password| !password.is_empty()) {
        login = login.set_password(password.expose());
    }
    info = info.set_redis_settings(login);
    if !url.starts_with("rediss:") {
        return Client::open(info).map_err(|error| settings(error.to_string()));
    }
    let tls = &config.tls;
    if tls.allow_insecure {
        return Err(settings(
            "redis.tls.allow_insecure cannot be used with Redis; name the authority in \
             redis.tls.ca_file"
                .to_owned(),
        ));
    }
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| settings(format!("{}: {error}", path.display())))
    };
    let client_tls = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
        }
        _ => None,
    };
    let root_cert = tls.ca_file.as_deref().map(read).transpose()?;
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
        .map_err(|error| settings(error.to_string()))
}

fn entry(position: &Position) -> String {
    let id = |id: Option<i32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    format!(
        "{} {} {} {} {}",
        position.incarnation.0,
        position.next,
        position.topic_id,
        id(position.schemas.key),
        id(position.schemas.value)
    )
}

fn parse(field: &str, value: &str) -> Option<(TopicPartition, Position)> {
    let (topic, partition) = field.rsplit_once('/')?;
    let parts: Vec<&str> = value.split(' ').collect();
    let [incarnation, next, topic_id, key, value] = parts[..] else { return None };
    let id = |text: &str| match text {
        "-" => Some(None),
        text => text.parse().ok().map(Some),
    };
    let position = Position {
        next: NextOffset::new(next.parse().ok()?)?,
        incarnation: Incarnation(incarnation.parse().ok()?),
        topic_id: TopicId(topic_id.into()),
        schemas: SchemaIds { key: id(key)?, value: id(value)? },
    };
    Some((TopicPartition::new(topic, partition.parse().ok()?), position))
}

/// A policy that would evict our keys, from the text of `INFO memory`. `volatile-*` only touches
/// keys that expire, and ours do not; without `maxmemory` nothing is evicted at all.
fn eviction(info: &str) -> Option<String> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
    };
    let policy = field("maxmemory_policy")?;
    let limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    (limited && policy.starts_with("allkeys-")).then(|| {
        format!("maxmemory-policy is {policy}, which drops watermarks: set it to noeviction")
    })
}

#[cfg(test)]
#[path = "redis_test.rs"]
mod tests;
