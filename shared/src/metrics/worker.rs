//! The metrics of a worker.

use super::{BUILD, PROCESS_START, Row};

/// Each metric of a worker.
pub const WORKER: &[Row] = &[
    BUILD.row(),
    PROCESS_START.row(),
    metric::DELIVERED.row(),
    metric::SKIPPED.row(),
    metric::DEAD_LETTERED.row(),
    metric::RETRIES.row(),
    metric::FETCHED.row(),
    metric::MOVED.row(),
    metric::WENT_BACK.row(),
    metric::BUFFERED_BYTES.row(),
    metric::STATE.row(),
    metric::LAST_POLL.row(),
    metric::WATERMARK.row(),
    metric::QUEUE_DEPTH.row(),
    metric::PARTITION_STATE.row(),
    metric::PARTITION_HELD.row(),
    metric::LAST_FLUSH.row(),
    metric::NEXT_SOURCE.row(),
];

/// By name.
pub mod metric {
    use super::super::{Metric, counter, gauge};

    /// Records taken by the sink.
    pub const DELIVERED: Metric<0> =
        counter("cdc_worker_delivered_records_total", "Records taken by the sink");
    /// Records without effect.
    pub const SKIPPED: Metric<0> = counter(
        "cdc_worker_skipped_records_total",
        "Records without effect: tombstones, what filters leave out, what an operator skipped",
    );
    /// Records given to the DLQ.
    pub const DEAD_LETTERED: Metric<0> = counter(
        "cdc_worker_dead_lettered_records_total",
        "Records acknowledged by the dead letter queue",
    );
    /// Failed attempts.
    pub const RETRIES: Metric<0> =
        counter("cdc_worker_retries_total", "Attempts at the sink that failed and were repeated");
    /// Records from Kafka.
    pub const FETCHED: Metric<0> = counter(
        "cdc_worker_fetched_records_total",
        "Records that came from Kafka; what a full partition threw away came again",
    );
    /// Misses of the compare-and-set.
    pub const MOVED: Metric<0> = counter(
        "cdc_worker_moved_total",
        "Writes that the sink refused because another worker had moved its position; \
         normal at a rebalance, never harmful",
    );
    /// The sink was restored.
    pub const WENT_BACK: Metric<0> = counter(
        "cdc_worker_went_back_total",
        "Partitions whose position in the sink was found behind what was durable: the sink was \
         restored from an older copy",
    );
    /// Bytes held.
    pub const BUFFERED_BYTES: Metric<0> =
        gauge("cdc_worker_buffered_bytes", [], "Bytes of records held in the process");
    /// One series, of the state of now.
    pub const STATE: Metric<1> = gauge(
        "cdc_worker_state",
        ["state"],
        "1 for the state the worker is in: starting, standby, running, degraded, paused, stopped, \
         draining",
    );
    /// The consumer thread's last turn.
    pub const LAST_POLL: Metric<0> = gauge(
        "cdc_worker_last_poll_timestamp_seconds",
        [],
        "Last turn of the consumer thread, which takes one at least every second",
    );
    /// W.
    pub const WATERMARK: Metric<2> = gauge(
        "cdc_worker_watermark_offset",
        ["topic", "partition"],
        "First offset not yet durable in the sink",
    );
    /// Fetched and not yet durable.
    pub const QUEUE_DEPTH: Metric<2> = gauge(
        "cdc_worker_queue_depth",
        ["topic", "partition"],
        "Records fetched and not yet durable",
    );
    /// One series for each partition, of its state of now.
    pub const PARTITION_STATE: Metric<3> = gauge(
        "cdc_worker_partition_state",
        ["topic", "partition", "state"],
        "1 for the state the partition is in: resolving, running, degraded, waiting, paused, \
         stopped",
    );
    /// Does not move.
    pub const PARTITION_HELD: Metric<2> = gauge(
        "cdc_worker_partition_held",
        ["topic", "partition"],
        "1 while something keeps the partition from moving; `cdc status` says what",
    );
    /// Last success.
    pub const LAST_FLUSH: Metric<2> = gauge(
        "cdc_worker_last_flush_timestamp_seconds",
        ["topic", "partition"],
        "When the sink last took something from the partition",
    );
    /// Age of what waits.
    pub const NEXT_SOURCE: Metric<2> = gauge(
        "cdc_worker_next_source_timestamp_seconds",
        ["topic", "partition"],
        "When the source committed the first record that is not yet durable; absent when there is \
         none",
    );
}
