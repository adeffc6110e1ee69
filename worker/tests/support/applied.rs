//! A sink that has always applied everything, for comparisons.

use std::collections::HashSet;

use async_trait::async_trait;
use cdc_worker::sink::verify::{Reach, TaskFailure};
use cdc_worker::task::Tell;

/// See the module. The record of key 777 was given up.
pub(crate) struct Applied;

#[async_trait]
impl Reach for Applied {
    async fn reach(&mut self, _table: &str, _tell: &Tell) -> Result<String, TaskFailure> {
        Ok("0/0".to_owned())
    }

    async fn given_up(
        &mut self,
        _table: &str,
        _columns: &[String],
    ) -> Result<HashSet<Vec<String>>, TaskFailure> {
        Ok(HashSet::from([vec!["777".to_owned()]]))
    }
}
