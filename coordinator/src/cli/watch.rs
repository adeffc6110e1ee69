//! `cdc status`: once, or again and again.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use cdc_shared::api::STATUS_PATH;
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use super::args::StatusArgs;
use super::client::Coordinator;
use super::health::{table, view};
use super::operate::client_config;
use super::{Exit, Failure};
use crate::health::StatusReport;

/// Moves to the first place of the screen.
const HOME: &str = "\x1b[H";
/// Clears what is left of a line.
const REST_OF_LINE: &str = "\x1b[K";
/// Clears what is left of the screen.
const REST_OF_SCREEN: &str = "\x1b[J";

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    of: StatusArgs,
    /// Show it again and again, until Ctrl-C; with --json one document in each line.
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", requires = "watch")]
    interval: f64,
}

pub(super) async fn run(args: &WatchArgs) -> Result<(), Failure> {
    let config = client_config(&args.of.target)?;
    let coordinator = Coordinator::new(&config)?;
    if !args.watch {
        let body = coordinator.get(STATUS_PATH).await?;
        return super::print(args.of.json, &body, &text(&body));
    }
    let interval = Duration::try_from_secs_f64(args.interval)
        .ok()
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| {
            Failure::new(Exit::Usage, format!("--interval {}: not a time to wait", args.interval))
        })?;
    tokio::select! {
        ended = watch(&coordinator, args.of.json, interval) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn text(body: &Value) -> String {
    StatusReport::deserialize(body)
        .map_or_else(|_| table::outline(body), |report| view::status(&report))
}

/// A coordinator that is away is told and asked again: whoever watches wants to see it come back.
async fn watch(coordinator: &Coordinator, json: bool, interval: Duration) -> Result<(), Failure> {
    loop {
        match coordinator.get(STATUS_PATH).await {
            Ok(body) if json => super::say(&body)?,
            Ok(body) => show(&text(&body))?,
            Err(failure) if json || !std::io::stdout().is_terminal() => {
                super::complain(&format_args!("error: {failure}"));
            }
            Err(failure) => show(&format!("error: {failure}"))?,
        }
        tokio::time::sleep(interval).await;
    }
}

/// On a terminal in place of what was shown before, elsewhere below it.
fn show(text: &str) -> Result<(), Failure> {
    let at = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return super::say(&format_args!("{at}\n{text}\n"));
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let head = format!("{at}, until Ctrl-C");
    let shown = frame(&head, text, usize::from(rows), usize::from(columns));
    let _ = write!(stdout, "{shown}");
    stdout.flush().map_err(|e| Failure::new(Exit::Software, format!("write to terminal: {e}")))
}

/// One picture of the screen: what does not fit is cut off, so that the next one covers it.
fn frame(head: &str, text: &str, rows: usize, columns: usize) -> String {
    // A terminal that does not know its size tells 0.
    let (rows, columns) =
        (if rows == 0 { 24 } else { rows }, if columns == 0 { 80 } else { columns });
    let lines = std::iter::once(head).chain(text.lines());
    let shown: Vec<String> = lines
        .take(rows)
        .map(|line| line.chars().take(columns).chain(REST_OF_LINE.chars()).collect())
        .collect();
    format!("{HOME}{}{REST_OF_SCREEN}", shown.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_covers_the_one_before_and_never_scrolls() {
        let shown = frame("now", "first line\nsecond\nthird", 3, 6);
        assert_eq!(shown, "\x1b[Hnow\x1b[K\r\nfirst \x1b[K\r\nsecond\x1b[K\x1b[J");
        assert_eq!(frame("now", "", 0, 0), "\x1b[Hnow\x1b[K\x1b[J");
    }
}
