//! How far Kafka has what a MySQL or MariaDB source has written: by the offset that the connector
//! keeps in Kafka Connect.
//!
//! Connect stores an offset only once Kafka has acknowledged the records before it, so what lies below
//! it is in its topic. It moves with the connector's heartbeats, and is stored every
//! `offset.flush.interval.ms` of the Connect worker. The connector does not count a DDL statement as
//! the end of a transaction, and so stays before one until something follows; therefore the events
//! behind the offset are looked at as well: where none of them is of our tables, nothing is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::{ConnectorConfig, SourceConfig, SourceType, seconds};
use cdc_shared::http::{self, Credentials};
use mysql_async::Value;
use serde::Deserialize;

use super::failure::TaskFailure;
use super::mysql::{Event, Server};
use super::upstream::{Arrival, Upstream};
use crate::task::Tell;

/// See the module.
pub(in crate::sink) struct Binlog<'s> {
    server: &'s Server,
    http: reqwest::Client,
    credentials: Credentials,
    /// Where Connect tells the connector's offsets.
    url: String,
    connector: String,
    kind: SourceType,
    /// The connector's tables, as `(database.table)`.
    tables: Vec<String>,
}

/// Connect's answer.
#[derive(Debug, Deserialize)]
struct Offsets {
    offsets: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    offset: Option<Stored>,
}

/// The offset as the connector keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
struct Stored {
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    pos: Option<u64>,
    #[serde(default)]
    gtids: Option<String>,
    /// Present while the first snapshot is read.
    #[serde(default)]
    snapshot: Option<serde_json::Value>,
}

/// A place in a server's binlog.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Position {
    file: String,
    offset: u64,
    /// The transactions so far, where the server counts them. They mean the same on every server of
    /// a replicated group, which files do not.
    gtids: Option<String>,
}

/// What stands between file and transactions in a text.
const GTID: &str = " gtid ";
/// Where the first event of a file begins.
const FIRST_EVENT: u64 = 4;
/// Events that are looked at behind an offset.
const EVENTS: usize = 2000;

impl<'s> Binlog<'s> {
    /// # Errors
    /// Settings of Kafka Connect that cannot be used.
    pub(in crate::sink) fn new(
        server: &'s Server,
        config: &ConnectorConfig,
        connector: String,
        source: &SourceConfig,
    ) -> Result<Self, TaskFailure> {
        let http = http::client(&config.tls, seconds(config.timeout_seconds))
            .map_err(|error| TaskFailure::failed(format!("connector.tls: {error}")))?;
        let credentials = Credentials::from_fields(
            config.username.as_deref(),
            config.password.as_ref(),
            config.bearer_token.as_ref(),
        );
        let base = config.connect_url.trim_end_matches('/');
        let url = format!("{base}/connectors/{connector}/offsets");
        let tables = source.tables.iter().map(|table| format!("({table})")).collect();
        let kind = source.source_type;
        Ok(Self { server, http, credentials, url, connector, kind, tables })
    }

    /// What the connector has stored; `None`: nothing yet.
    async fn stored(&self) -> Result<Option<Stored>, TaskFailure> {
        let failed = |said: String| {
            let message =
                format!("ask Kafka Connect for the connector's position ({}): {said}", self.url);
            TaskFailure::failed(message).hint(
                "the worker needs connector.connect_url and what it takes to sign in there; Kafka \
                 Connect 3.5 or later",
            )
        };
        let request = self.credentials.apply(self.http.get(&self.url));
        let answer = request.send().await.map_err(|error| failed(http::cause(&error)))?;
        if !answer.status().is_success() {
            return Err(failed(format!("status {}", answer.status())));
        }
        let offsets: Offsets = answer.json().await.map_err(|error| failed(http::cause(&error)))?;
        Ok(offsets.offsets.into_iter().find_map(|entry| entry.offset))
    }

    /// The transactions so far, where the server counts them.
    async fn gtids(&self) -> Result<Option<String>, TaskFailure> {
        let sql = match self.kind {
            SourceType::Mariadb => "SELECT @@global.gtid_binlog_pos",
            _ => "SELECT IF(@@global.gtid_mode = 'ON', @@global.gtid_executed, '')",
        };
        let row = self.server.ask("take the position", sql, Vec::new()).await?;
        let set = row.and_then(|row| row.get::<Option<String>, _>(0).flatten());
        // Line by line, one server's transactions each.
        Ok(set.map(|set| set.replace(['\n', ' '], "")).filter(|set| !set.is_empty()))
    }

    /// Whether what is stored has the position.
    async fn reached(&self, position: &Position, stored: &Stored) -> Result<bool, TaskFailure> {
        let reached = match (&position.gtids, &stored.gtids) {
            (Some(taken), Some(gtids)) if self.kind == SourceType::Mariadb => {
                has_all_domains(taken, gtids)
            }
            (Some(taken), Some(gtids)) => self.contains(taken, gtids).await?,
            _ => {
                let file = stored.file.as_deref().unwrap_or_default();
                let place = (number(file), stored.pos.unwrap_or(0));
                place >= (number(&position.file), position.offset)
            }
        };
        Ok(reached || self.nothing_between(stored, position).await?)
    }

    /// Whether the binlog has nothing of our tables between what is stored and the position.
    async fn nothing_between(
        &self,
        stored: &Stored,
        position: &Position,
    ) -> Result<bool, TaskFailure> {
        let Stored { file: Some(file), pos: Some(from), .. } = stored else { return Ok(false) };
        match number(&position.file).checked_sub(number(file)) {
            Some(0) => self.is_silent(file, *from, position.offset).await,
            Some(1) => Ok(self.is_silent(file, *from, u64::MAX).await?
                && self.is_silent(&position.file, FIRST_EVENT, position.offset).await?),
            _ => Ok(false),
        }
    }

    /// Whether a part of a file has nothing of our tables. Unknown is not silent.
    async fn is_silent(&self, file: &str, from: u64, to: u64) -> Result<bool, TaskFailure> {
        let events = self.server.binlog_events(file, from, EVENTS).await?;
        let Some(events) = events else { return Ok(false) };
        let reaches = events.len() < EVENTS || events.last().is_some_and(|event| event.at >= to);
        Ok(reaches && events.iter().take_while(|event| event.at < to).all(|e| self.is_foreign(e)))
    }

    /// Whether an event changes no row of our tables.
    fn is_foreign(&self, event: &Event) -> bool {
        match event.kind.as_str() {
            "Table_map" => !self.tables.iter().any(|table| event.info.contains(table.as_str())),
            "Query" => {
                let words = event.info.split(|c: char| !c.is_alphanumeric() && c != '_');
                words.into_iter().all(|word| !word.eq_ignore_ascii_case("truncate"))
            }
            kind => !kind.contains("compressed") && !kind.contains("payload"),
        }
    }

    /// Whether these transactions of MySQL are among those.
    async fn contains(&self, position: &str, gtids: &str) -> Result<bool, TaskFailure> {
        let texts = [position, gtids].map(|text| Value::Bytes(text.as_bytes().to_vec()));
        let sql = "SELECT GTID_SUBSET(?, ?)";
        let row = self.server.ask("compare positions", sql, texts.to_vec()).await?;
        Ok(row.and_then(|row| row.get::<i64, _>(0)) == Some(1))
    }
}

#[async_trait]
impl Upstream for Binlog<'_> {
    async fn take(&self, _tell: &Tell) -> Result<String, TaskFailure> {
        let status = self.server.binlog_status().await?;
        let gtids = self.gtids().await?;
        let place = status.and_then(|row| Some((row.get(0)?, row.get(1)?)));
        let place = place.map(|(file, offset)| Position { file, offset, gtids });
        place.map(|place| place.to_string()).ok_or_else(|| {
            TaskFailure::failed(format!("{} writes no binlog", self.server.place))
                .hint("set log_bin, which the connector needs as well")
        })
    }

    async fn arrived(&self, position: &str) -> Result<Arrival, TaskFailure> {
        let connector = &self.connector;
        let Some(stored) = self.stored().await? else {
            let pending = format!("connector {connector} has stored no position yet");
            return Ok(Arrival::Pending(pending));
        };
        if stored.snapshot.is_some() {
            let pending = format!("connector {connector} still reads its first snapshot");
            return Ok(Arrival::Pending(pending));
        }
        let position = Position::parse(position);
        if self.reached(&position, &stored).await? {
            return Ok(Arrival::Complete);
        }
        let at = Position {
            file: stored.file.unwrap_or_default(),
            offset: stored.pos.unwrap_or_default(),
            gtids: stored.gtids,
        };
        Ok(Arrival::Pending(format!("connector {connector} has stored {at}")))
    }

    /// Connect reads the topic of its offsets anew for each answer.
    fn pause(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The number of a binlog file, which is what stands behind the last point.
fn number(file: &str) -> u64 {
    file.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// MariaDB's positions name the last transaction of each domain, `domain-server-sequence`.
fn has_all_domains(taken: &str, stored: &str) -> bool {
    let domains = |set: &str| -> BTreeMap<String, u64> {
        let parts = set.split(',').filter_map(|gtid| {
            let (rest, sequence) = gtid.trim().rsplit_once('-')?;
            let (domain, _) = rest.split_once('-')?;
            Some((domain.to_owned(), sequence.parse().ok()?))
        });
        parts.collect()
    };
    let stored = domains(stored);
    domains(taken).iter().all(|(domain, last)| stored.get(domain).is_some_and(|at| at >= last))
}

impl Position {
    fn parse(text: &str) -> Self {
        let (place, gtids) = match text.split_once(GTID) {
            Some((place, gtids)) => (place, Some(gtids.to_owned())),
            None => (text, None),
        };
        let (file, offset) = place.rsplit_once(':').unwrap_or((place, ""));
        Self { file: file.to_owned(), offset: offset.parse().unwrap_or(u64::MAX), gtids }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        match &self.gtids {
            Some(gtids) => write!(f, "{GTID}{gtids}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        for text in [
            "binlog.000003:154",
            "binlog.000003:154 gtid 0-1-15",
            "a.b.000003:154 gtid 3e11fa47-71ca-11e1-9e33-c80aa9:1-5",
        ] {
            assert_eq!(Position::parse(text).to_string(), text);
        }
        assert_eq!(Position::parse("a.b.000003:154").file, "a.b.000003");
        assert!(number("binlog.1000000") > number("binlog.999999"));
    }

    #[test]
    fn every_domain_must_have_come_as_far() {
        assert!(has_all_domains("0-1-15,1-2-7", "1-9-7,0-3-16,2-1-1"));
        assert!(!has_all_domains("0-1-15", "0-1-14"));
        assert!(!has_all_domains("0-1-15,1-2-7", "0-1-15"));
    }
}
