//! A table as it is, for whoever looks at it or corrects it by hand.

use std::collections::BTreeMap;

use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, Type};

use super::offsets::{lineage, read};
use super::{LakeTable, Loaded, Offsets};
use crate::error::{Kind, LakeError, Result};

/// A snapshot of main.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: i64,
    /// When it was made, Unix ms.
    pub at_ms: i64,
    /// Summary.
    pub summary: BTreeMap<String, String>,
}

impl LakeTable {
    /// Columns with their types, in the order of the schema.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn columns(&self) -> Result<Vec<(String, String)>> {
        let loaded = self.loaded().await?;
        let fields = loaded.metadata.current_schema().as_struct().fields().iter();
        Ok(fields.map(|field| (field.name.clone(), type_text(&field.field_type))).collect())
    }

    /// Snapshots of main that are kept, the newest first.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let loaded = self.loaded().await?;
        let snapshots = lineage(&loaded.metadata).map(|snapshot| SnapshotInfo {
            id: snapshot.snapshot_id(),
            at_ms: snapshot.timestamp_ms(),
            summary: snapshot.summary().additional_properties.clone().into_iter().collect(),
        });
        Ok(snapshots.collect())
    }

    /// The offsets of the sink that the table holds.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn offsets(&self) -> Result<Offsets> {
        let loaded = self.loaded().await?;
        let stored = read(&loaded.metadata, &self.lake.owner)?;
        Ok(stored.map(|stored| stored.offsets).unwrap_or_default())
    }

    /// All rows, each with the texts of some columns; `None` for NULL.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn rows(&self, columns: &[&str]) -> Result<Vec<Vec<Option<String>>>> {
        let names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let mut scan = self.scan(&names).await?;
        let mut rows = Vec::new();
        while let Some(some) = scan.next().await? {
            rows.extend(some.shown()?);
        }
        Ok(rows)
    }

    /// Makes a snapshot of the table main's newest. The worker goes back with it.
    ///
    /// # Errors
    /// A snapshot that the table has not, or what cannot be read or written.
    pub async fn roll_back(&self, snapshot: i64) -> Result<()> {
        let _turn = self.turn.lock().await;
        loop {
            let loaded = self.loaded().await?;
            if loaded.metadata.snapshot_by_id(snapshot).is_none() {
                let message = format!("table {} has no snapshot {snapshot}", self.name);
                return Err(LakeError::new(Kind::Missing, "snapshot_missing", message));
            }
            let retention = SnapshotRetention::branch(None, None, None);
            let reference = SnapshotReference::new(snapshot, retention);
            let rolled = loaded
                .unchanged()
                .change(Some(&loaded), |builder| builder.set_ref(MAIN_BRANCH, reference));
            let rolled = rolled.map_err(|error| LakeError::internal("rolling back", error))?;
            if self.swap(&loaded, rolled).await? {
                return Ok(());
            }
        }
    }

    /// The table, which must be there.
    pub(super) async fn loaded(&self) -> Result<Loaded> {
        self.load().await?.ok_or_else(|| self.missing())
    }
}

/// A type with its parts, as [`crate::FieldType`] writes it.
fn type_text(ty: &Type) -> String {
    match ty {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("list<{}>", type_text(&list.element_field.field_type)),
        Type::Map(map) => format!(
            "map<{}, {}>",
            type_text(&map.key_field.field_type),
            type_text(&map.value_field.field_type)
        ),
        Type::Struct(fields) => {
            let fields = fields.fields().iter();
            let fields =
                fields.map(|field| format!("{}: {}", field.name, type_text(&field.field_type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}
