//! Logging, set up once per process.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Logs to standard error: lines for people or one JSON object per line. `level` is a level or a
/// filter such as `info,rdkafka=debug`.
///
/// # Errors
/// What is wrong with `level`.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(level.to_lowercase())
        .map_err(|error| format!("log_level {level:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Telling that nobody reads the log any more would panic for the same reason.
        .log_internal_errors(false);
    // Set twice only by tests that run several entries in one process: the first one stays.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
