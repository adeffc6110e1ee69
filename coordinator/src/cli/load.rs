//! From the command line to a checked configuration.

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
        if let Err(error) = std::fs::metadata(file) {
            let message = format!("read {}: {error}", file.display());
            return Err(Failure::new(Exit::NoInput, message));
        }
    }
    let options = LoadOptions {
        pipeline: target.config.clone(),
        platform: target.platform_config.clone(),
        variables: process_variables(),
        sections,
    };
    config::load(&options).map_err(|errors| Failure::new(Exit::Config, errors.to_string()))
}

/// Whether a file or the environment says where watermarks are kept. A file that cannot be read is
/// [`load_for`]'s to complain about.
pub(crate) fn names_watermark_store(target: &Target) -> bool {
    if process_variables().contains_key("CDC_COORDINATOR__WATERMARK_STORE") {
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
