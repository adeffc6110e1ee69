//! What must be done to a mirror before rows of a layout go into it: a pure rule over what was
//! found, what the sink recorded and what the rows need.

use std::collections::BTreeMap;

use super::layout::{Layout, LayoutColumn};
use super::types::{Fit, NotConstant, fit};
use crate::sink::name::quote;
use crate::sink::postgres::table::{self, Column, Computed, Found, Refusal};

/// What the sink recorded of a mirror.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Recorded {
    /// `pg_class.oid` of the table; `None`: whatever is there now is taken.
    pub(super) oid: Option<u32>,
    /// The newest schema that it was brought up to.
    pub(super) schema_id: i32,
    /// Columns of that schema.
    pub(super) columns: Vec<String>,
    /// Columns that the source has dropped, with the schema that lacked them first.
    pub(super) dropped: BTreeMap<String, i32>,
}

/// What is known of a mirror that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Met {
    /// The record, as it would be had each schema up to the layout's been met.
    pub(super) recorded: Recorded,
    /// Columns that the sink has filled and the source has not dropped.
    pub(super) filled: Vec<String>,
}

impl From<Recorded> for Met {
    fn from(recorded: Recorded) -> Self {
        Self { filled: recorded.columns.clone(), recorded }
    }
}

/// What stands in the way of a layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Obstacle {
    /// Name of the stop.
    pub(super) code: &'static str,
    /// What is wrong.
    pub(super) why: String,
    /// The statement, or the statements to choose from.
    pub(super) cure: String,
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        Self { code: "table_refused", why: refusal.why, cure: refusal.cure }
    }
}

/// How to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Evolution {
    /// Statements that bring the table up to the layout.
    pub(super) statements: Vec<String>,
    /// What is then to be recorded, without the table's oid.
    pub(super) record: Recorded,
}

/// The statement that creates a mirror.
pub(super) fn create(layout: &Layout) -> String {
    let columns = layout.columns.iter().map(|column| {
        let null = if column.required { " NOT NULL" } else { "" };
        let default = match &column.default {
            Ok(Some(default)) => format!(" DEFAULT {default}"),
            _ => String::new(),
        };
        format!("{} {}{default}{null}", quote(&column.name), column.ty.sql)
    });
    let key: Vec<_> = layout.key.iter().map(|at| quote(&layout.columns[*at].name)).collect();
    let parts: Vec<_> = columns.chain([format!("PRIMARY KEY ({})", key.join(", "))]).collect();
    format!("CREATE TABLE {} ({})", layout.target, parts.join(", "))
}

/// What is recorded of a mirror that was made for a layout.
pub(super) fn first_record(layout: &Layout) -> Recorded {
    Recorded {
        oid: None,
        schema_id: layout.schema_id,
        columns: layout.names().map(str::to_owned).collect(),
        dropped: BTreeMap::new(),
    }
}

/// Judges a table that is there. `previous`: the schema of the partition's rows before these.
///
/// # Errors
/// The first thing that a person must decide.
pub(super) fn evolve(
    layout: &Layout,
    found: &Found,
    met: Option<&Met>,
    previous: Option<i32>,
) -> Result<Evolution, Obstacle> {
    let recorded = met.map(|met| &met.recorded);
    table::judge_kind(&layout.target, found)?;
    judge_key(layout, found)?;
    let statements =
        [columns(layout, found, met, previous)?, extras(layout, found, recorded)?].concat();
    Ok(Evolution { statements, record: next_record(layout, recorded, previous) })
}

fn judge_key(layout: &Layout, found: &Found) -> Result<(), Obstacle> {
    let key: Vec<&str> = layout.key.iter().map(|at| layout.columns[*at].name.as_str()).collect();
    if !table::unique_over(found, &key).is_empty() {
        return Ok(());
    }
    let columns = key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    Err(Obstacle {
        code: "table_refused",
        why: format!(
            "table {} has no unique index over exactly the source's key ({columns})",
            layout.target
        ),
        cure: format!("ALTER TABLE {} ADD PRIMARY KEY ({columns})", layout.target),
    })
}

fn columns(
    layout: &Layout,
    found: &Found,
    met: Option<&Met>,
    previous: Option<i32>,
) -> Result<Vec<String>, Obstacle> {
    let recorded = met.map(|met| &met.recorded);
    let mut statements = Vec::new();
    for (at, column) in layout.columns.iter().enumerate() {
        match table::column_of(found, &column.name) {
            None => statements.push(added(layout, column, found, met)?),
            Some(there) => {
                returned(layout, column, recorded, previous)?;
                statements.extend(changed(layout, column, there, layout.key.contains(&at))?);
            }
        }
    }
    Ok(statements)
}

/// A column that the table does not have.
fn added(
    layout: &Layout,
    column: &LayoutColumn,
    found: &Found,
    met: Option<&Met>,
) -> Result<String, Obstacle> {
    let (table, name) = (&layout.target, quote(&column.name));
    let add = format!("ALTER TABLE {table} ADD COLUMN {name} {}", column.ty.sql);
    // One that came with a schema before the one in which another went is not what went.
    let came_before = |met: &&Met| {
        met.recorded.columns.contains(&column.name) && !met.filled.contains(&column.name)
    };
    let gone = met.filter(|met| !came_before(met)).and_then(|Met { recorded, .. }| {
        let gone = |name: &&String| {
            !layout.names().any(|n| n == name.as_str()) && table::column_of(found, name).is_some()
        };
        recorded.columns.iter().find(gone)
    });
    if let Some(gone) = gone {
        return Err(Obstacle {
            code: "column_renamed",
            why: format!(
                "table {}: column {gone} vanished when {} appeared, which may be the same column",
                layout.source, column.name
            ),
            cure: format!(
                "once every partition of the topic is held by this or has nothing left (cdc \
                 status): if it was renamed, ALTER TABLE {table} RENAME COLUMN {} TO {name}; if not, {add}",
                quote(gone)
            ),
        });
    }
    // What the sink itself had there was taken away by hand: as a rule renamed, for newer rows,
    // while this partition still has older ones. Added anew it would swallow their values.
    if met.is_some_and(|met| met.filled.contains(&column.name)) {
        return Err(Obstacle {
            code: "column_missing",
            why: format!(
                "column {} of {table} is gone, though this sink has filled it",
                column.name
            ),
            cure: format!(
                "if it was renamed while partitions of the topic still have older rows, rename it \
                 back, resume, and rename it once every partition is held by column_renamed or has \
                 nothing left (cdc status); if it was dropped, {add}, and cdc resync FILE --sink \
                 ID fills it"
            ),
        });
    }
    let default =
        column.default.as_ref().map_err(|why| default_unknown(layout, column, why, &add))?;
    Ok(match default {
        Some(default) if column.required => format!("{add} NOT NULL DEFAULT {default}"),
        Some(default) => format!("{add} DEFAULT {default}"),
        None => add,
    })
}

/// The source filled a new column of its old rows by an expression.
fn default_unknown(
    layout: &Layout,
    column: &LayoutColumn,
    why: &NotConstant,
    add: &str,
) -> Obstacle {
    Obstacle {
        code: "default_unknown",
        why: format!(
            "table {}: the source filled the new column {} of its old rows by itself, and {why}",
            layout.source, column.name
        ),
        cure: {
            let read = format!(
                "{add}, resume, and then cdc resync FILE --sink ID --table {}, which has the \
                 connector read the rows again",
                layout.source
            );
            match &why.stated {
                Some(stated) => format!(
                    "{add} DEFAULT {stated} if that is the source's default, and resume; else {read}"
                ),
                None => read,
            }
        },
    }
}

/// A column that the source had dropped and has again: the mirror still has its old values.
fn returned(
    layout: &Layout,
    column: &LayoutColumn,
    recorded: Option<&Recorded>,
    previous: Option<i32>,
) -> Result<(), Obstacle> {
    let Some(dropped) = recorded.and_then(|recorded| recorded.dropped.get(&column.name)) else {
        return Ok(());
    };
    // Rows of a partition that lags behind the drop: older than the schema that lacked the column,
    // and so were those before. Newer ones come after the drop, whatever this partition has met.
    let lags = previous.is_none_or(|previous| previous < *dropped);
    if layout.schema_id < *dropped && (lags || previous == Some(layout.schema_id)) {
        return Ok(());
    }
    Err(Obstacle {
        code: "column_returned",
        why: format!(
            "table {}: column {} was dropped and is there again; the mirror still has its old \
             values",
            layout.source, column.name
        ),
        cure: format!(
            "ALTER TABLE {} DROP COLUMN {} (it is then added anew)",
            layout.target,
            quote(&column.name)
        ),
    })
}

/// A column that the table has.
fn changed(
    layout: &Layout,
    column: &LayoutColumn,
    there: &Column,
    is_key: bool,
) -> Result<Vec<String>, Obstacle> {
    let (table, name) = (&layout.target, quote(&column.name));
    if there.computed == Some(Computed::Expression) && !is_key {
        return Ok(Vec::new());
    }
    if let Some(computed) = there.computed {
        let what = match computed {
            Computed::Expression => "EXPRESSION",
            Computed::Identity => "IDENTITY",
        };
        return Err(Obstacle {
            code: "table_refused",
            why: format!("column {} of {table} is filled by the server only", column.name),
            cure: format!("ALTER TABLE {table} ALTER COLUMN {name} DROP {what}"),
        });
    }
    let mut statements = Vec::new();
    match fit(&there.underlying, &column.ty) {
        Fit::Same | Fit::Holds => {}
        Fit::Widen if there.shown == there.underlying => statements
            .push(format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {}", column.ty.sql)),
        Fit::Widen | Fit::No => {
            return Err(Obstacle {
                code: "type_changed",
                why: format!(
                    "column {} of {table} is {}, the values of {} are {}",
                    column.name, there.shown, layout.source, column.ty.sql
                ),
                cure: table::retype(table, &column.name, &column.ty.sql),
            });
        }
    }
    if there.required && !column.required && !is_key {
        statements.push(drop_not_null(layout, &column.name));
    }
    Ok(statements)
}

/// Columns that the rows do not have.
fn extras(
    layout: &Layout,
    found: &Found,
    recorded: Option<&Recorded>,
) -> Result<Vec<String>, Obstacle> {
    let mut statements = Vec::new();
    let extra = |column: &&Column| !layout.names().any(|name| name == column.name);
    let blocks = |column: &&Column| column.required && !column.filled;
    for column in found.columns.iter().filter(extra).filter(blocks) {
        let ours = recorded.is_some_and(|recorded| {
            recorded.columns.contains(&column.name) || recorded.dropped.contains_key(&column.name)
        });
        let relax = drop_not_null(layout, &column.name);
        if !ours {
            return Err(Obstacle {
                code: "table_refused",
                why: format!(
                    "column {} of {} is NOT NULL without a default, and the source does not have it",
                    column.name, layout.target
                ),
                cure: relax,
            });
        }
        statements.push(relax);
    }
    Ok(statements)
}

fn drop_not_null(layout: &Layout, column: &str) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", layout.target, quote(column))
}

fn next_record(layout: &Layout, recorded: Option<&Recorded>, previous: Option<i32>) -> Recorded {
    let new = first_record(layout);
    let Some(recorded) = recorded else { return new };
    // A partition that lags writes rows of an older schema on; an older schema that comes *after*
    // the newest is a change like any other.
    let is_next = layout.schema_id > recorded.schema_id || previous == Some(recorded.schema_id);
    if !is_next {
        return recorded.clone();
    }
    let mut dropped = recorded.dropped.clone();
    for column in &recorded.columns {
        if !new.columns.contains(column) {
            dropped.insert(column.clone(), layout.schema_id);
        }
    }
    dropped.retain(|column, _| !new.columns.contains(column));
    Recorded { dropped, ..new }
}
