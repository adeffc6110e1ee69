//! `cdc verify` as the judge of a test.

use std::process::Output;

use serde_json::Value;

use crate::pipeline::Pipeline;
use crate::wait::LOOK;

/// Compares the sink `mirror` with the source: the exit code and the task's end.
pub async fn verify(pipeline: &mut Pipeline, more: &[&str]) -> (i32, Value) {
    verify_of(pipeline, "mirror", more).await
}

/// The same of any sink.
pub async fn verify_of(pipeline: &mut Pipeline, sink: &str, more: &[&str]) -> (i32, Value) {
    let mut line = vec!["verify", "FILE", "--sink", sink, "--json"];
    line.extend(more);
    outcome(&pipeline.cdc(&line).await)
}

/// Compares the sink `mirror`, and it must be equal. Waits until the coordinator leads and knows a
/// live worker.
pub async fn is_equal(pipeline: &mut Pipeline) -> Value {
    is_equal_of(pipeline, "mirror").await
}

/// The same of any sink.
pub async fn is_equal_of(pipeline: &mut Pipeline, sink: &str) -> Value {
    let line = ["verify", "FILE", "--sink", sink, "--json", "--show-values"];
    for _ in 0..100 {
        let output = pipeline.cdc(&line).await;
        if !matches!(output.status.code(), Some(69 | 75)) {
            let (code, end) = outcome(&output);
            assert_eq!(code, 0, "{end:#}");
            return end;
        }
        // Not listening yet, not leading yet, or no worker known yet.
        tokio::time::sleep(LOOK).await;
    }
    panic!("the coordinator never took the task");
}

/// Exit code and end of a comparison with `--json`, by whichever program.
pub fn outcome(output: &Output) -> (i32, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    let task: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    // What `cdc` prints is the task, what `cdc-worker` prints is its end.
    let end = if task["end"].is_object() { task["end"].clone() } else { task };
    (output.status.code().unwrap(), end)
}
