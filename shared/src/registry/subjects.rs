//! What the registry knows of a subject: its versions, and whether two of its schemas agree by the
//! registry's own rule.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Registry, RegistryError};
use crate::http;

/// One version of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub version: i32,
    /// Id of its schema.
    pub id: i32,
}

#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
}

impl Registry {
    /// The newest version of a subject; `None` when there is no such subject.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn latest(&self, subject: &str) -> Result<Option<Version>, RegistryError> {
        self.found(&format!("{}/latest", self.versions_url(subject).await?)).await
    }

    /// The versions of a subject above `after`, oldest first; empty when there is no such subject.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn versions(&self, subject: &str, after: i32) -> Result<Vec<Version>, RegistryError> {
        let url = self.versions_url(subject).await?;
        let mut numbers: Vec<i32> = self.found(&url).await?.unwrap_or_default();
        numbers.retain(|number| *number > after);
        numbers.sort_unstable();
        let mut versions = Vec::with_capacity(numbers.len());
        for number in numbers {
            // One that was deleted meanwhile is none.
            versions.extend(self.found::<Version>(&format!("{url}/{number}")).await?);
        }
        Ok(versions)
    }

    /// Whether, by the rule that the registry has for the subject, the schema `id` agrees with a
    /// version of the subject, or with its newest. `None`: it does not say.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn is_compatible(
        &self,
        subject: &str,
        version: Option<i32>,
        id: i32,
    ) -> Result<Option<bool>, RegistryError> {
        let base = self.base().await?;
        let Some(body) = self.body(&format!("{base}/schemas/ids/{id}")).await? else {
            return Ok(None);
        };
        let references: Vec<_> = body
            .references
            .iter()
            .map(|r| json!({"name": r.name, "subject": r.subject, "version": r.version}))
            .collect();
        let question = json!({"schema": body.schema, "references": references});
        let version = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let url = format!("{base}/compatibility/subjects/{}/versions/{version}", escaped(subject));
        let request = self.credentials.apply(self.client.post(&url)).json(&question);
        let response =
            request.send().await.map_err(|error| self.unavailable(http::cause(&error)))?;
        if !response.status().is_success() {
            return Ok(None);
        }
        Ok(response.json::<Compatibility>().await.ok().map(|answer| answer.is_compatible))
    }

    async fn versions_url(&self, subject: &str) -> Result<String, RegistryError> {
        Ok(format!("{}/subjects/{}/versions", self.base().await?, escaped(subject)))
    }

    async fn found<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
    ) -> Result<Option<T>, RegistryError> {
        let response = self.get(url).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(self.answered(status));
        }
        let answer = response.json().await;
        answer.map(Some).map_err(|error| self.unavailable(http::cause(&error)))
    }
}

fn escaped(subject: &str) -> String {
    subject.replace('%', "%25").replace('/', "%2F")
}
