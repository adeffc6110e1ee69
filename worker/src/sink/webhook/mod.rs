//! The webhook sink: one HTTP request per event.
//!
//! At least once, and the first delivery of each event in order per key: keys run side by side,
//! the events of one key one after the other. Every attempt of an event carries the same id and
//! the same body, so that a receiver can drop repetitions. Only 2xx is success; see `response`
//! for all others. The sink keeps no position: after a crash everything behind the committed
//! offset may be sent again.

mod address;
mod config;
mod gate;
mod order;
mod request;
mod response;
mod signature;
mod transport;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdc_shared::config::WebhookConfig;
use cdc_shared::offset::{NextOffset, Position, TopicPartition};
use cdc_shared::tls::{self, Verify};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::address::Resolver;
use self::config::WebhookOptions;
use self::gate::Gate;
use self::transport::{CONNECT, Transport};
use super::{BatchLimits, PartitionWriter, Sink, SinkError, retry};

/// Delivers to one URL. One per process: its connections and its limit of requests under way are
/// shared by all partitions.
#[derive(Debug)]
pub struct WebhookSink {
    endpoint: Arc<Endpoint>,
    tls: Arc<rustls::ClientConfig>,
    allow_private: bool,
}

/// What the writers of all partitions share.
#[derive(Debug)]
struct Endpoint {
    transport: Transport,
    options: WebhookOptions,
    gate: Arc<Gate>,
    /// How messages name it.
    address: String,
}

impl WebhookSink {
    /// From the sink's section.
    ///
    /// # Errors
    /// [`super::Disposition::Fatal`], naming everything that is wrong with the section.
    pub fn new(config: &WebhookConfig) -> Result<Self, SinkError> {
        let options = WebhookOptions::new(config)?;
        let rustls = tls::client_config(&config.tls, Verify::Full)
            .map_err(|error| config::invalid(&error.to_string()))?;
        let resolver = Resolver { allow_private: config.allow_private };
        let transport =
            Transport::new(rustls.clone(), resolver, options.max_in_flight, options.timeout);
        let endpoint = Endpoint {
            transport,
            gate: Gate::new(options.max_in_flight),
            address: response::shown_address(&options.url),
            options,
        };
        let allow_private = config.allow_private;
        Ok(Self { endpoint: Arc::new(endpoint), tls: Arc::new(rustls), allow_private })
    }

    /// Connects as a request would, without sending one.
    async fn connect(&self) -> Result<(), SinkError> {
        let url = &self.endpoint.options.url;
        let failed = |error: std::io::Error| {
            let message = format!("connect to {}: {error}", self.endpoint.address);
            response::unreachable(response::io_code(&error), message, Some(Box::new(error)))
        };
        let host = address::host(url);
        let port = url.port_or_known_default().unwrap_or_default();
        let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
        if !self.allow_private {
            address::check(host, found.iter().map(std::net::SocketAddr::ip)).map_err(|error| {
                let message = format!("connect to {}: {error}", self.endpoint.address);
                response::unreachable("address", message, Some(Box::new(error)))
            })?;
        }
        let stream = TcpStream::connect(found.as_slice()).await.map_err(failed)?;
        if url.scheme() == "https" {
            let name = rustls::pki_types::ServerName::try_from(host.to_owned())
                .map_err(|error| config::invalid(&format!("url: {error}")))?;
            let connector = TlsConnector::from(self.tls.clone());
            connector.connect(name, stream).await.map_err(failed)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for WebhookSink {
    /// A connection with TLS; that a receiver takes events shows with the first of them, and an
    /// empty request could be one that it acts on.
    async fn prove(&self) -> Result<(), SinkError> {
        let limit = self.endpoint.options.timeout.min(CONNECT);
        tokio::time::timeout(limit, self.connect()).await.unwrap_or_else(|_| {
            let message = format!("connect to {}: timed out", self.endpoint.address);
            Err(response::unreachable("connect_timeout", message, None))
        })
    }

    fn keeps_position(&self) -> bool {
        false
    }

    async fn read_position(&self, _tp: &TopicPartition) -> Result<Option<Position>, SinkError> {
        Ok(None)
    }

    async fn replace_position(
        &self,
        _tp: &TopicPartition,
        _expected: Option<&Position>,
        _new: &Position,
    ) -> Result<bool, SinkError> {
        Ok(true)
    }

    fn writer(
        &self,
        tp: TopicPartition,
        start: Position,
        trouble: retry::TroubleReporter,
    ) -> Box<dyn PartitionWriter> {
        Box::new(writer::WebhookWriter::new(self.endpoint.clone(), &tp, start, trouble))
    }

    /// The same id and the same body as ever.
    fn replay(
        &self,
        tp: TopicPartition,
        at: &Position,
        offset: i64,
        trouble: retry::TroubleReporter,
    ) -> Option<Box<dyn PartitionWriter>> {
        let start = Position { next: NextOffset::new(offset)?, ..at.clone() };
        Some(self.writer(tp, start, trouble))
    }

    /// Events go out as they are pushed; a batch is only how often ranges without effect are
    /// counted.
    fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            rows: writer::WINDOW_RECORDS,
            bytes: writer::WINDOW_BYTES,
            age: Duration::ZERO,
        }
    }
}
