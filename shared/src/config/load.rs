//! From files and environment to a checked configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ConfigErrors, PipelineConfig};

/// Variables of an environment, by name.
pub type Variables = BTreeMap<String, String>;

/// The variables of this process; one whose name or value is no UTF-8 is left out.
pub fn process_variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What to load, and for whom.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The pipeline file; it may hold the platform's settings too.
    pub pipeline: PathBuf,
    /// The platform file, with settings that several pipelines share.
    pub platform: Option<PathBuf>,
    /// The environment, from [`process_variables`].
    pub variables: Variables,
    /// Whose secrets are needed.
    pub sections: Sections,
}

/// Which process the configuration is for: only in the sections that it uses are references
/// resolved, so that no process needs the secrets of another.
///
/// Elsewhere a secret reads `***`, a text keeps its reference as it is written, and any other
/// setting given by a reference has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sections {
    /// A worker: Kafka, its way to the coordinator, and its own sink.
    Worker {
        /// The sink it serves. An unknown one is an error.
        sink_id: String,
    },
    /// The coordinator and the commands that deploy: everything but the sinks' own sections.
    Coordinator,
    /// Commands that only call the coordinator: its address and tokens.
    Client,
    /// Everything, for `validate`.
    All,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: PipelineConfig,
    /// Names this configuration in heartbeats: 16 hex digits, the same for the same settings
    /// whatever the files looked like and whatever the secrets are.
    pub hash: String,
    /// What deserves attention but is no error, one line each, with its place.
    pub warnings: Vec<String>,
}

/// Reads, merges, resolves and checks a configuration.
///
/// # Errors
///
/// Everything that is wrong with it, each with file, line and path.
pub fn load(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
    let _ = options;
    Err(ConfigErrors(Vec::new()))
}
