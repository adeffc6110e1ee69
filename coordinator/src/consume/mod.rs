//! `consume`: decoded events from Kafka, for a person or a script. It belongs to no group and
//! commits nothing.

mod decode;
mod filter;
mod print;
mod reader;
mod search;

use cdc_shared::config::PipelineConfig;
use clap::ValueEnum;
use serde_json::Value;

use crate::cli::{Exit, Failure, say};
pub(crate) use decode::decode;
pub(crate) use filter::matches;
pub(crate) use reader::Reader;
pub(crate) use search::first_at;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// At the oldest record of each partition.
    Beginning,
    /// Behind the newest record of each partition.
    End,
}

/// What to print.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Only these tables; all when empty.
    pub tables: Vec<String>,
    /// Only events whose key has these fields.
    pub key: Option<Value>,
    /// Where to begin.
    pub from: From,
    /// Go on behind the end.
    pub follow: bool,
    /// One JSON object per line.
    pub json: bool,
    /// End after this many events.
    pub limit: Option<u64>,
}

/// Prints events until the end of the log, the limit, or Ctrl-C.
///
/// # Errors
/// Kafka or the registry cannot be reached, or a table is not one of the pipeline's.
pub(crate) async fn run(config: &PipelineConfig, options: &Options) -> Result<(), Failure> {
    let topics = topics(config, &options.tables)?;
    let mut reader = Reader::open(&config.kafka, &topics, options.from).await?;
    let printer = print::Printer::new(config, options.json)?;
    let mut shown = 0;
    loop {
        if options.limit.is_some_and(|limit| shown >= limit) {
            return Ok(());
        }
        if !options.follow && reader.at_end() {
            return Ok(());
        }
        let record = tokio::select! {
            record = reader.next() => record?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(record) = record else { continue };
        let event = printer.event(&record).await?;
        if options.key.as_ref().is_none_or(|wanted| filter::matches(wanted, &event.key)) {
            say(&printer.line(&event))?;
            shown += 1;
        }
    }
}

fn topics(config: &PipelineConfig, tables: &[String]) -> Result<Vec<String>, Failure> {
    let known = &config.source.tables;
    if let Some(table) = tables.iter().find(|table| !known.contains(table)) {
        return Err(Failure::new(
            Exit::Usage,
            format!("--table {table}: not one of source.tables"),
        )
        .hint(format!("one of {}", known.join(", "))));
    }
    let tables = if tables.is_empty() { known } else { tables };
    Ok(tables.iter().map(|table| config.topic(table)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_are_read_unless_some_are_named() {
        let mut config = PipelineConfig::default();
        config.source.tables = vec!["public.a".into(), "public.b".into()];
        assert_eq!(topics(&config, &[]), Ok(vec!["cdc.public.a".into(), "cdc.public.b".into()]));
        assert_eq!(topics(&config, &["public.b".into()]), Ok(vec!["cdc.public.b".into()]));
        assert_eq!(topics(&config, &["x".into()]).unwrap_err().exit, Exit::Usage);
    }
}
