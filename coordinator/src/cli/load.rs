//! From the command line to a checked configuration.

use std::path::Path;

use cdc_shared::config::{self, LoadOptions, Loaded, PipelineConfig, Sections, process_variables};

use super::args::Target;
use super::{Exit, Failure};

/// The configuration for the commands that deploy and coordinate.
pub(crate) fn load(target: &Target) -> Result<PipelineConfig, Failure> {
    Ok(load_for(target, Sections::Coordinator)?.config)
}

/// The configuration with the secrets that `sections` needs.
pub(crate) fn load_for(target: &Target, sections: Sections) -> Result<Loaded, Failure> {
    for file in std::iter::once(&target.config).chain(&target.platform_config) {
        readable(file)?;
    }
    let options = LoadOptions {
        pipeline: target.config.clone(),
        platform: target.platform_config.clone(),
        variables: process_variables(),
        sections,
    };
    config::load(&options).map_err(|errors| Failure::new(Exit::Config, errors.to_string()))
}

/// The settings of the platform alone, for commands without a pipeline.
pub(super) fn load_platform(platform: Option<&Path>) -> Result<PipelineConfig, Failure> {
    platform.map_or(Ok(()), readable)?;
    config::load_platform(platform, &process_variables())
        .map_err(|errors| Failure::new(Exit::Config, errors.to_string()))
}

/// A file that is not there is another failure than one that is wrong.
fn readable(file: &Path) -> Result<(), Failure> {
    std::fs::metadata(file)
        .map(drop)
        .map_err(|error| Failure::new(Exit::NoInput, format!("read {}: {error}", file.display())))
}

/// Whether a file or the environment says where watermarks are kept. A file that cannot be read is
/// [`load_for`]'s to complain about.
pub(crate) fn names_watermark_store(target: &Target) -> bool {
    let named = process_variables().remove("CDC_COORDINATOR__WATERMARK_STORE");
    // An empty variable is none.
    if named.is_some_and(|value| !value.is_empty()) {
        return true;
    }
    std::iter::once(&target.config).chain(&target.platform_config).any(|file| {
        std::fs::read_to_string(file)
            .ok()
            .and_then(|text| serde_yaml::from_str::<serde_json::Value>(&text).ok())
            .is_some_and(|tree| !tree["coordinator"]["watermark_store"].is_null())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_counts_as_named_only_where_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let named = |text: &str| {
            let config = dir.path().join("p.yaml");
            std::fs::write(&config, text).unwrap();
            names_watermark_store(&Target { config, platform_config: None })
        };
        assert!(!named("pipeline_id: demo\n"));
        assert!(!named("coordinator:\n  bind: 127.0.0.1:1\n"));
        assert!(named("coordinator:\n  watermark_store: redis\n"));
    }

    #[test]
    fn a_file_that_is_not_there_is_no_wrong_configuration() {
        let target = Target { config: "/nowhere/p.yaml".into(), platform_config: None };
        let failure = load(&target).unwrap_err();
        assert_eq!(failure.exit, Exit::NoInput);
        assert!(failure.message.starts_with("read /nowhere/p.yaml: "));
    }
}
