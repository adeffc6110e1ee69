//! An Iceberg sink of a test, and its tables as other engines read them.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::pipeline::Pipeline;
use crate::stack::{Stack, workspace};

impl Pipeline {
    /// Adds an Iceberg sink whose catalog and warehouse are in the pipeline's folder, with a table
    /// `default.{schema}_{table}` per source table.
    pub fn lake(&mut self, id: &str) -> &mut Self {
        self.lake_in(id, "append")
    }

    /// The same, with the source's rows as they are in its tables.
    pub fn lake_of_rows(&mut self, id: &str) -> &mut Self {
        self.lake_in(id, "upsert")
    }

    fn lake_in(&mut self, id: &str, mode: &str) -> &mut Self {
        let (catalog, warehouse) = self.lake_addresses();
        let section = json!({
            "write_mode": mode,
            "catalog_uri": catalog,
            "warehouse": warehouse,
            "table_name": "{schema}_{table}",
            "auto_create_table": true,
            "flush_interval_seconds": 0.3,
            "batch_size": 100_000,
        });
        self.sink(json!({"sink_id": id, "sink_type": "iceberg", "iceberg": section}))
    }

    fn lake_addresses(&self) -> (String, String) {
        let dir = self.dir().display();
        (format!("sqlite:///{dir}/catalog.db"), format!("file://{dir}/warehouse"))
    }

    /// PyIceberg adds a column `by_hand` to its table and a row with only that, and expires all
    /// snapshots before it, as anybody may who shares the catalog.
    pub async fn foreign_commits(&self) {
        let output = self.python("foreign.py", &[]).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// PyIceberg writes all rows of its table anew into one file, whatever partitions they are of,
    /// and takes some away, as anybody may who shares the catalog.
    pub async fn foreign_rewrite(&self, rows_away: &str) {
        let output = self.python("rewrite.py", &[rows_away]).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    async fn python(&self, script: &str, more: &[&str]) -> Result<Output, String> {
        let (catalog, warehouse) = self.lake_addresses();
        Command::new(format!("{}/bin/python", Stack::get().value("READERS")))
            .arg(workspace().join("deploy/local/readers").join(script))
            .args([&catalog, &warehouse, &format!("default.{}_t", self.id)])
            .args(more)
            .output()
            .await
            .map_err(|error| format!("{error}: run `deploy/local/stack install readers`"))
    }

    /// The rows of the change log of its table as PyIceberg and DuckDB read them, which must agree.
    ///
    /// # Errors
    /// What the readers say.
    pub async fn change_log(&self, columns: &[&str]) -> Result<Vec<Value>, String> {
        let output = self.python("lake.py", columns).await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

/// The rows without the columns of the sink, repeats included.
pub fn plain(rows: &[Value]) -> Vec<String> {
    let plain = |row: &Value| {
        let mut row = row.as_object().unwrap().clone();
        row.retain(|name, _| !name.starts_with("_cdc_"));
        Value::Object(row).to_string()
    };
    let mut rows: Vec<String> = rows.iter().map(plain).collect();
    rows.sort();
    rows
}

/// Partition and offset of the rows of a change log, in order, repeats included.
pub fn events(rows: &[Value]) -> Vec<(i32, i64)> {
    let mut events: Vec<(i32, i64)> = rows
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_i64().unwrap();
            (number("_cdc_partition") as i32, number("_cdc_offset"))
        })
        .collect();
    events.sort_unstable();
    events
}

/// The state that a change log leads to: the last row of each key, filled with what was last known
/// of the columns that it lacks, without the columns of the sink.
pub fn state(rows: &[Value], key: &str) -> BTreeSet<String> {
    let mut rows: Vec<&Value> = rows.iter().collect();
    rows.sort_by_key(|row| (row["_cdc_partition"].as_i64(), row["_cdc_offset"].as_i64()));
    let mut state = std::collections::BTreeMap::new();
    for row in rows {
        let at = row[key].to_string();
        if row["_cdc_op"] == "d" {
            state.remove(&at);
            continue;
        }
        let mut new = row.as_object().unwrap().clone();
        let missing = new["_cdc_unavailable"].as_array().cloned().unwrap_or_default();
        for column in missing.iter().filter_map(Value::as_str) {
            let old: &serde_json::Map<String, Value> = &state[&at];
            new[column] = old[column].clone();
        }
        new.retain(|name, _| !name.starts_with("_cdc_"));
        state.insert(at, new);
    }
    state.into_values().map(|row| Value::Object(row).to_string()).collect()
}
