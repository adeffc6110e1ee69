//! An Iceberg sink of a test, and its tables as other engines read them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::pipeline::Pipeline;
use crate::stack::{Stack, workspace};

/// A catalog and a warehouse.
#[derive(Debug, Clone)]
pub struct LakePlace {
    /// The sink's settings.
    sink: Value,
    /// PyIceberg's properties.
    reader: Value,
}

impl LakePlace {
    /// A catalog in a file and a warehouse in a folder.
    fn local(dir: &Path) -> Self {
        let dir = dir.display();
        let (uri, warehouse) =
            (format!("sqlite:///{dir}/catalog.db"), format!("file://{dir}/warehouse"));
        Self {
            sink: json!({"catalog_uri": uri, "warehouse": warehouse}),
            reader: json!({"type": "sql", "uri": uri, "warehouse": warehouse}),
        }
    }

    /// A catalog and a warehouse by their addresses, which no reader is told.
    pub fn at(catalog: &str, warehouse: &str) -> Self {
        Self { sink: json!({"catalog_uri": catalog, "warehouse": warehouse}), reader: json!({}) }
    }

    /// A catalog in the stack's PostgreSQL, reached by TLS, and a warehouse.
    pub fn in_postgres(warehouse: &str) -> Self {
        let stack = Stack::get();
        let (host, database) = (stack.postgres_port(), stack.value("TARGET_DATABASE"));
        let (user, password) = (stack.value("TARGET_USER"), stack.value("TARGET_PASSWORD"));
        let at = format!("localhost:{host}/{database}");
        let authority = stack.value("TLS_CA");
        let sink = format!("postgresql://{user}@{at}?sslmode=verify-full&sslrootcert={authority}");
        let reader = format!("postgresql+psycopg2://{user}:{password}@{at}");
        Self {
            sink: json!({
                "catalog_uri": sink,
                "warehouse": warehouse,
                "catalog_properties": {"password": password},
            }),
            reader: json!({"type": "sql", "uri": reader, "warehouse": warehouse}),
        }
    }

    /// The stack's REST catalog, seen by the sink at an address, and a warehouse.
    pub fn in_rest(address: &str, warehouse: &str) -> Self {
        let reader = Stack::get().value("REST_URL");
        Self {
            sink: json!({"catalog_uri": address, "warehouse": warehouse}),
            reader: json!({"type": "rest", "uri": reader, "warehouse": warehouse}),
        }
    }

    /// The sink's properties of catalog and files besides.
    #[must_use]
    pub fn with(mut self, properties: &[(&str, &str)]) -> Self {
        for (name, value) in properties {
            self.sink["catalog_properties"][name] = json!(value);
        }
        self
    }

    /// Readers, and the sink unless the catalog gives it keys, reach files in the stack's S3.
    #[must_use]
    pub fn on_s3(self, gives_keys: bool) -> Self {
        let [endpoint, region, id, secret] = s3_properties();
        let place = self.with(&[endpoint, region]);
        let place = if gives_keys { place } else { place.with(&[id, secret]) };
        place.read_from_s3()
    }

    /// Readers reach files in the stack's S3. A catalog that they were not told is the sink's.
    #[must_use]
    pub fn read_from_s3(mut self) -> Self {
        if self.reader.get("type").is_none() {
            let (uri, warehouse) = (&self.sink["catalog_uri"], &self.sink["warehouse"]);
            self.reader = json!({"type": "sql", "uri": uri, "warehouse": warehouse});
        }
        for (name, value) in s3_properties() {
            self.reader[name] = json!(value);
        }
        self
    }
}

/// How the stack's S3 is reached.
fn s3_properties() -> [(&'static str, &'static str); 4] {
    [
        ("s3.endpoint", "S3_ENDPOINT"),
        ("s3.region", "S3_REGION"),
        ("s3.access-key-id", "S3_KEY"),
        ("s3.secret-access-key", "S3_SECRET"),
    ]
    .map(|(property, name)| (property, Stack::get().value(name)))
}

/// An optional part of the stack. Where it is not installed the test says so and ends.
pub fn installed(part: &str) -> bool {
    let name = match part {
        "s3" => "S3_SERVER",
        _ => "REST_JARS",
    };
    let is = Stack::get().has(name);
    if !is {
        // Not by a macro: what those print of a test that passes nobody sees.
        let line = format!("SKIPPED: {part} is not installed: deploy/local/stack install {part}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    is
}

/// A folder in the stack's bucket.
pub fn s3_warehouse(name: &str) -> String {
    format!("s3://{}/{name}", Stack::get().value("S3_BUCKET"))
}

impl Pipeline {
    /// Adds an Iceberg sink whose catalog and warehouse are in the pipeline's folder, with a table
    /// `default.{schema}_{table}` per source table.
    pub fn lake(&mut self, id: &str) -> &mut Self {
        let place = LakePlace::local(self.dir());
        self.lake_in(id, "append", place)
    }

    /// The same, with the source's rows as they are in its tables.
    pub fn lake_of_rows(&mut self, id: &str) -> &mut Self {
        let place = LakePlace::local(self.dir());
        self.lake_in(id, "upsert", place)
    }

    /// The same, anywhere.
    pub fn lake_in(&mut self, id: &str, mode: &str, place: LakePlace) -> &mut Self {
        let mut section = json!({
            "write_mode": mode,
            "table_name": "{schema}_{table}",
            "auto_create_table": true,
            "flush_interval_seconds": 0.3,
            "batch_size": 100_000,
        });
        let settings = place.sink.as_object().unwrap().clone();
        section.as_object_mut().unwrap().extend(settings);
        self.lake = Some(place);
        self.sink(json!({"sink_id": id, "sink_type": "iceberg", "iceberg": section}))
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

    /// PyIceberg plants differences of each kind in its table (`plant`), or takes away what it has
    /// added (`clear`); see the script.
    pub async fn foreign_plant(&self, what: &str) {
        let output = self.python("plant.py", &[what]).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// The partitioning of its table and the number of its partitions, after PyIceberg has seen that
    /// each row is in the right one.
    ///
    /// # Errors
    /// What the reader says.
    pub async fn partitions(&self) -> Result<String, String> {
        let output = self.python("partitions.py", &[]).await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    async fn python(&self, script: &str, more: &[&str]) -> Result<Output, String> {
        let place = self.lake.as_ref().unwrap();
        Command::new(format!("{}/bin/python", Stack::get().value("READERS")))
            .arg(workspace().join("deploy/local/readers").join(script))
            .args([&place.reader.to_string(), &format!("default.{}_t", self.id)])
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
