//! Generated columns of tables that a keyed sink mirrors: the connector leaves them out.
//!
//! PostgreSQL's log does not have them, so they would be in a snapshot's records and absent from
//! changes. The servers of MySQL and MariaDB compute them anew for all rows, without an event, when
//! the expression changes. Whoever copies the table can compute them as well.

use cdc_shared::config::PipelineConfig;

use super::connector::{Properties, table_pattern};
use crate::cli::{Exit, Failure};
use crate::source;

/// Debezium's list of columns that are in no record.
const EXCLUDE: &str = "column.exclude.list";
/// Its opposite; only one of them may be set.
const INCLUDE: &str = "column.include.list";

/// Adds the columns to the connector's properties; the answer is what deserves a note. `existing`:
/// the connector as it is, whose list stays when the source cannot be asked.
pub(super) async fn leave_out(
    config: &PipelineConfig,
    ours: &mut Properties,
    existing: Option<&Properties>,
) -> Result<Vec<String>, Failure> {
    let mirrored = |table: &&String| config.keyed_sinks_of(table).next().is_some();
    let mut tables: Vec<String> = config.source.tables.iter().filter(mirrored).cloned().collect();
    tables.sort_unstable();
    if tables.is_empty() || ours.contains_key(INCLUDE) {
        return Ok(Vec::new());
    }
    let asked = if config.source.password_is_connects() {
        Err("the source's password is known to Kafka Connect only".to_owned())
    } else {
        match source::generated_columns(config, &tables).await {
            Ok(columns) => Ok(columns),
            Err(failure) if failure.exit == Exit::Unavailable => Err(failure.message),
            Err(failure) => return Err(failure),
        }
    };
    match asked {
        Ok(columns) if columns.is_empty() => Ok(Vec::new()),
        Ok(columns) => {
            let list = extended(ours.get(EXCLUDE).map(String::as_str), &columns);
            ours.insert(EXCLUDE.to_owned(), list);
            let names = columns.join(", ");
            Ok(vec![format!("generated columns are left out of the records: {names}")])
        }
        Err(why) => {
            let former = existing.and_then(|existing| existing.get(EXCLUDE));
            ours.extend(former.map(|list| (EXCLUDE.to_owned(), list.clone())));
            Ok(vec![format!(
                "generated columns were not looked for from here ({why}): if a mirrored table has \
                 some, name them in {EXCLUDE} of source.connector_properties"
            )])
        }
    }
}

/// The list with these columns, each matched whole and by nothing else.
fn extended(list: Option<&str>, columns: &[String]) -> String {
    let own = list.into_iter().filter(|list| !list.is_empty()).map(str::to_owned);
    own.chain(columns.iter().map(|column| table_pattern(column))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_columns_stay_in_the_list() {
        let columns = ["public.t.twice".to_owned(), "public.t.a,b".to_owned()];
        assert_eq!(
            extended(Some("public\\.t\\.secret"), &columns),
            "public\\.t\\.secret,public\\.t\\.twice,public\\.t\\.a\\,b"
        );
        assert_eq!(extended(None, &columns[..1]), "public\\.t\\.twice");
        assert_eq!(extended(Some(""), &columns[..1]), "public\\.t\\.twice");
    }
}
