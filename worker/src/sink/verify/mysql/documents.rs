//! A mirror with JSON documents of MySQL, which the connector writes in two ways: their numbers must
//! be brought to one form before rows are hashed, and PostgreSQL cannot do that. So the rows are read
//! and hashed here.

use std::collections::HashMap;

use async_trait::async_trait;
use futures::TryStreamExt;

use super::super::failure::{self, TaskFailure};
use super::super::hash::{hash, row_text};
use super::super::query::{Key, Range};
use super::super::rows::{Chunk, Look, Rows, Version};
use super::super::side::{PostgresRows, borrowed, columns};
use super::json::normal;
use super::{cut, version};

/// See the module.
pub(in crate::sink) struct Documents<'s> {
    pub(in crate::sink) rows: PostgresRows<'s>,
    /// Places of the documents among the compared columns.
    pub(in crate::sink) columns: Vec<usize>,
}

impl Documents<'_> {
    fn normal(&self, mut cells: Vec<Option<String>>) -> Vec<Option<String>> {
        for at in &self.columns {
            if let Some(Some(document)) = cells.get_mut(*at)
                && let Some(text) = normal(document)
            {
                *document = text;
            }
        }
        cells
    }

    /// Gives key and texts of each row of a range.
    async fn each(
        &self,
        range: &Range<'_>,
        limit: usize,
        mut take: impl FnMut(Key, Vec<Option<String>>) + Send,
    ) -> Result<(), TaskFailure> {
        let PostgresRows { side, plan } = &self.rows;
        let doing = format!("read {}", plan.table);
        let failed = |error| failure::database(&side.place, &doing, &error);
        let sql = plan.texts(range, limit);
        let rows = side.client.query_raw(&sql, range.parameters()).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            take(row.get(0), self.normal(row.get(1)));
        }
        Ok(())
    }

    /// Place, version and texts of the rows of some keys.
    async fn of_keys(
        &self,
        keys: &[&Key],
    ) -> Result<Vec<(usize, String, Vec<Option<String>>)>, TaskFailure> {
        let PostgresRows { side, plan } = &self.rows;
        let doing = format!("read keys of {}", plan.table);
        let arrays = columns(keys, plan.key.len());
        let rows = side.ask(&doing, &plan.looked_up_texts(), &borrowed(&arrays)).await?;
        let found = rows
            .iter()
            .map(|row| (row.get::<_, i64>(0) as usize - 1, row.get(1), self.normal(row.get(2))));
        Ok(found.collect())
    }
}

#[async_trait]
impl Rows for Documents<'_> {
    async fn chunk(&self, range: &Range<'_>, limit: usize) -> Result<Chunk, TaskFailure> {
        let (mut rows, mut sum, mut last) = (0, 0_i128, None);
        self.each(range, limit, |key, cells| {
            rows += 1;
            sum += i128::from(hash(row_text(&cells).as_bytes()));
            last = Some(key);
        })
        .await?;
        Ok(Chunk { rows, hash: sum.to_string(), last })
    }

    async fn rows(&self, range: &Range<'_>, limit: usize) -> Result<Vec<(Key, i64)>, TaskFailure> {
        let mut rows = Vec::new();
        let take = |key, cells: Vec<_>| rows.push((key, hash(row_text(&cells).as_bytes())));
        self.each(range, limit, take).await?;
        Ok(rows)
    }
}

#[async_trait]
impl Look for Documents<'_> {
    async fn look_up(&self, keys: &[&Key]) -> Result<HashMap<usize, Version>, TaskFailure> {
        let found = self.of_keys(keys).await?.into_iter();
        Ok(found.map(|(place, text, cells)| (place, version(text, &cells))).collect())
    }

    async fn values(
        &self,
        keys: &[&Key],
        longest: usize,
    ) -> Result<HashMap<usize, Vec<Option<String>>>, TaskFailure> {
        let found = self.of_keys(keys).await?.into_iter();
        Ok(found.map(|(place, _, cells)| (place, cut(cells, longest))).collect())
    }

    fn looks(&self) -> u8 {
        self.rows.looks()
    }
}
