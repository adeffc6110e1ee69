//! `verify` of a table of rows, or of the rows that a change log leads to (`log`): see
//! [`crate::sink::verify`].
//!
//! The table has no order, so it is read first, as a stream, and of each row two hashes are kept
//! (`kept`); then the source is read in chunks of its key. A key whose row is not there, not once
//! or not the same, and one that the source did not say, is suspected and judged like any
//! (`crate::sink::verify::judge`), for which the table is read again. A table with more rows than are kept at
//! a time is compared in parts, by the hashes of its keys.

pub mod forms;
mod kept;
mod log;
mod plan;
mod rows;

use std::collections::HashSet;

use async_trait::async_trait;
use cdc_iceberg::Kind;
use cdc_shared::config::{IcebergConfig, IcebergWriteMode, SourceConfig};
use cdc_shared::task::TableReport;

use self::kept::Part;
use self::log::{LogRows, OF_LOG};
use self::plan::LakePlan;
use self::rows::{LakeSide, TableRows, WRITTEN, failure, key_hash};
use super::IcebergSink;
use crate::sink::name::TableName;
use crate::sink::verify::judge::{Judge, Sides};
use crate::sink::verify::position::{Own, OwnRecord};
use crate::sink::verify::query::{Key, Range};
use crate::sink::verify::rows::Rows;
use crate::sink::verify::upstream::Source;
use crate::sink::verify::{Manner, Reach, TaskFailure, not_at, source_name, stream, tables};
use crate::task::{TaskContext, Tell};

/// Rows that are kept at a time: 128 MiB of hashes. A change log takes four times as much of each.
const AT_ONCE: u64 = 8 << 20;
/// Rows of the source that are read at a time, where an index has the key's order.
const CHUNK: usize = 10_000;
/// The same where each chunk costs a sort of the table.
const SORTED_CHUNK: usize = 200_000;
/// Suspected keys that are judged together: each look at them reads the table.
const SUSPECTS: usize = 20_000;

/// What is compared with what, and how.
#[derive(Debug)]
pub struct Lakes<'c> {
    /// The source, with its password.
    pub source: &'c SourceConfig,
    /// The sink.
    pub sink: &'c IcebergSink,
    /// Rows of a table that are kept at a time.
    pub at_once: u64,
}

/// Carries a task out. The reports are right as far as they go, also after a failure.
///
/// # Errors
/// Why it came to no end.
pub async fn carry_out(
    context: &TaskContext,
    config: &IcebergConfig,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    if context.sweep {
        let sink = &context.sink.sink_id;
        let message = format!("sink {sink} keeps Iceberg tables, from which no rows are removed");
        return Err(TaskFailure::failed(message).hint(
            "cdc verify names them; cdc snapshot has missing and differing rows sent again",
        ));
    }
    let sink = IcebergSink::new(&context.config, &context.sink, config)?;
    let tables = tables(context)?;
    let named: Vec<_> =
        tables.iter().map(|table| (table.clone(), context.config.topic(table))).collect();
    let source = Source::connect(&context.source).await?;
    let mut stream = stream(context, &tables, &source, &sink)?;
    let at_once = match config.write_mode {
        IcebergWriteMode::Upsert => AT_ONCE,
        IcebergWriteMode::Append => AT_ONCE / 4,
    };
    let lakes = Lakes { source: &context.source, sink: &sink, at_once };
    compare(&lakes, &named, &mut stream, Manner::of(context), &context.tell, reports).await
}

#[async_trait]
impl OwnRecord for IcebergSink {
    async fn own(&self, topic: &str) -> Result<Vec<Own>, TaskFailure> {
        let offsets = match self.table(topic).offsets().await {
            Ok(offsets) => offsets,
            Err(error) if error.kind == Kind::Missing => return Ok(Vec::new()),
            Err(error) => return Err(failure(error)),
        };
        let own = offsets.into_iter().filter(|(tp, _)| *tp.topic == *topic);
        let own = own.map(|(tp, position)| Own {
            partition: tp.partition,
            next: position.next.get(),
            topic_id: position.topic_id.0.to_string(),
        });
        Ok(own.collect())
    }
}

/// Compares tables one after the other. `tables`: each with its topic.
///
/// # Errors
/// A side that does not answer, a table that is not there or has no key, or a position that is not
/// reached.
pub async fn compare(
    lakes: &Lakes<'_>,
    tables: &[(String, String)],
    reach: &mut dyn Reach,
    manner: Manner,
    tell: &Tell,
    reports: &mut Vec<TableReport>,
) -> Result<(), TaskFailure> {
    let source = Source::connect(lakes.source).await?;
    for (table, topic) in tables {
        let name = source_name(table)?;
        tell.step(&format!("{table}: waiting for the sink to reach the source's position"));
        let position = reach.reach(table, tell).await?;
        let Some(found) = source.find(&name).await? else { return Err(not_at(&source, table)) };
        let lake = lakes.sink.table(topic);
        let report = TableReport {
            table: table.clone(),
            mirror: lake.name().to_string(),
            position,
            ..TableReport::default()
        };
        let columns = match lake.columns().await {
            Ok(columns) => columns,
            Err(error) if error.kind == Kind::Missing => {
                reports.push(source.without_a_mirror(&name, report).await?);
                continue;
            }
            Err(error) => return Err(failure(error)),
        };
        let of_lake =
            TableName { schema: lake.name().namespace.clone(), table: lake.name().table.clone() };
        let mut lake_plan = LakePlan::new(&found, &of_lake, &columns)?;
        let shape = lake_plan.shape.clone();
        let of_source = source.rows(&found, &shape, &mut lake_plan.plan)?;
        let plan = &lake_plan.plan;
        let there: HashSet<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let (key, compared) = (lake_plan.forms(&plan.key), lake_plan.forms(&plan.columns));
        let of_table = |meta: &[&str]| TableRows::new(lake.clone(), &there, &key, &compared, meta);
        let of_table: Box<dyn LakeSide> = match lakes.sink.shared.mode {
            IcebergWriteMode::Upsert => Box::new(of_table(&WRITTEN)),
            IcebergWriteMode::Append => {
                Box::new(LogRows { rows: of_table(&OF_LOG), topic: topic.clone() })
            }
        };
        tell.expect(found.shape.rows);
        let limit = if plan.is_indexed() { CHUNK } else { SORTED_CHUNK };
        let judge = Judge::new(plan, reach, tell, manner, report);
        let mut comparison = Comparison { source: of_source, table: of_table, judge, limit };
        let outcome = comparison.run(lakes.at_once).await;
        reports.push(comparison.judge.report);
        outcome?;
    }
    Ok(())
}

/// The comparison of one table.
struct Comparison<'c> {
    source: Box<dyn Rows + 'c>,
    table: Box<dyn LakeSide>,
    judge: Judge<'c>,
    /// Rows of the source that are read at a time.
    limit: usize,
}

impl Comparison<'_> {
    /// Compares the whole table. The report is right as far as it came, also after a failure.
    async fn run(&mut self, at_once: u64) -> Result<(), TaskFailure> {
        let rows = self.table.most_rows().await?;
        let of = rows.div_ceil(at_once.max(1)).max(1);
        for number in 0..of {
            let part = Part { number, of };
            if !self.part(part).await? {
                break;
            }
        }
        let doubled = self.judge.doubled;
        if doubled > 0 {
            let note = format!(
                "{doubled} of the extra rows are further ones of a key: the table has it more than once"
            );
            self.judge.report.notes.push(note);
        }
        Ok(())
    }

    /// Compares the keys of a part. `false`: so many differ that no more are compared.
    async fn part(&mut self, part: Part) -> Result<bool, TaskFailure> {
        let (table, mirror) = (self.judge.report.table.clone(), &self.judge.report.mirror);
        let (number, of) = (part.number + 1, part.of);
        let which = if of > 1 { format!(", part {number} of {of}") } else { String::new() };
        self.judge.tell.step(&format!("{table}: reading {mirror}{which}"));
        let (mut kept, keyless) = self.table.kept(part).await?;
        if part.number == 0 && keyless > 0 {
            self.judge.report.extra += keyless;
            let note = format!("{keyless} of the extra rows have no key");
            self.judge.report.notes.push(note);
        }
        self.judge.tell.step(&format!("{table}: comparing with the source{which}"));
        let mut after: Option<Key> = None;
        loop {
            let range = Range { after: after.as_ref(), to: None };
            let rows = self.source.rows(&range, self.limit).await?;
            let is_last = rows.len() < self.limit;
            let mut compared = 0;
            for (key, content) in &rows {
                let of_key = key_hash(key);
                if part.has(of_key) {
                    compared += 1;
                    if !kept.take(of_key, *content) {
                        self.judge.suspects.push(key.clone());
                    }
                }
            }
            self.judge.report.rows += compared;
            self.judge.tell.rows(compared);
            after = rows.into_iter().next_back().map(|(key, _)| key);
            if self.judge.suspects.len() >= SUSPECTS && !self.judged().await? {
                return Ok(false);
            }
            if is_last {
                break;
            }
        }
        self.extra(kept.left()).await
    }

    /// Judges what is suspected, and the rows that the source has not said.
    async fn extra(&mut self, mut left: Vec<i64>) -> Result<bool, TaskFailure> {
        loop {
            let keys = if left.is_empty() {
                HashSet::new()
            } else {
                self.table.keys(&left, SUSPECTS).await?
            };
            let hashes: HashSet<i64> = keys.iter().map(key_hash).collect();
            let is_last = keys.len() < SUSPECTS;
            self.judge.suspects.extend(keys);
            if !self.judged().await? {
                return Ok(false);
            }
            left.retain(|hash| !hashes.contains(hash));
            if is_last {
                return Ok(true);
            }
        }
    }

    /// Judges what is suspected. `false`: enough differ.
    async fn judged(&mut self) -> Result<bool, TaskFailure> {
        let source: &dyn Rows = self.source.as_ref();
        let mirror: &dyn LakeSide = self.table.as_ref();
        self.judge.judge(Sides { source, mirror }).await?;
        Ok(!self.judge.has_enough())
    }
}
