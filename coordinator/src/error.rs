//! Why the coordinator cannot start or go on.

use std::net::SocketAddr;

use crate::watermark::StoreError;

/// Errors that end the coordinator. Trouble of Kafka, Redis, the registry or Connect is not among
/// them: it shows in health and is retried.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// `coordinator.bind` is no address.
    #[error("coordinator.bind {bind:?} is no address to listen on: {cause}")]
    Bind {
        /// The setting.
        bind: String,
        /// What is wrong.
        cause: String,
    },
    /// Something else listens there.
    #[error("coordinator.bind {0}: another process listens there already")]
    AddressInUse(String),
    /// Bound beyond loopback without a token.
    #[error(
        "coordinator.bind {0} can be reached from other machines: set coordinator.tokens \
         (operator, worker, reader), or bind to 127.0.0.1"
    )]
    Unprotected(SocketAddr),
    /// The watermark store cannot be used as it is set.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis would drop watermarks.
    #[error("redis {address}: {cause}")]
    Eviction {
        /// Where.
        address: String,
        /// The setting and the way out.
        cause: String,
    },
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] cdc_shared::tls::TlsError),
    /// A client of a service cannot be made as it is set.
    #[error(transparent)]
    Client(#[from] crate::cli::Failure),
    /// Kafka's client refuses its settings.
    #[error("kafka settings: {0}")]
    KafkaSettings(String),
    /// A part of the coordinator ended unasked.
    #[error("{0} ended unexpectedly")]
    PartEnded(&'static str),
}
