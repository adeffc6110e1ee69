//! From files and environment to a checked configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{ConfigError, Place, TEMPLATE};
use super::rules::{self, Findings};
use super::sections::Usage;
use super::shape::shape;
use super::tree::{self, Entry, Node, Value};
use super::{ConfigErrors, PipelineConfig, environment, references};

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Variables of an environment, by name.
pub type Variables = BTreeMap<String, String>;

/// The variables of this process; one whose name or value is no UTF-8 is left out.
pub fn process_variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What to load, and for whom. `Debug` leaves the variables out: any may be a secret.
#[derive(Clone)]
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

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("pipeline", &self.pipeline)
            .field("platform", &self.platform)
            .field("sections", &self.sections)
            .finish_non_exhaustive()
    }
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
    /// A worker that carries out a task which reads the source: what a worker has, and the source.
    Task {
        /// The sink it serves. An unknown one is an error.
        sink_id: String,
    },
    /// The coordinator and the commands that deploy: everything but the sinks' own sections.
    Coordinator,
    /// Commands that only call the coordinator: its address and tokens.
    Client,
    /// Commands that only ask the services: Kafka, the schema registry and Kafka Connect.
    Platform,
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

impl Loaded {
    /// The configuration in effect as YAML, with secrets hidden.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(&self.config).unwrap_or_default()
    }
}

/// Reads, merges, resolves and checks a configuration.
///
/// # Errors
///
/// Everything that is wrong with it, each with file, line and path.
pub fn load(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let platform = options.platform.as_deref().and_then(|path| read(path, &mut errors));
    let pipeline = read(&options.pipeline, &mut errors);
    let tree = merged(platform, pipeline, &options.variables, &mut errors);
    if errors.iter().any(|error| error.path.is_empty() && error.place.line > 0) {
        // A file that could not be read makes everything in it "missing".
        return Err(in_order(errors));
    }

    let usage = Usage::new(&options.sections, &tree);
    let shaped = shape(&tree, &usage, &options.variables);
    errors.extend(shaped.errors);
    let Some(mut config) = typed(shaped.values, &tree, &mut errors) else {
        return Err(in_order(errors));
    };
    if config.group_id.is_empty() {
        config.group_id = format!("cdc-{}", config.pipeline_id);
    }
    let mut findings = Findings::new(&tree, &usage, &shaped.unresolved, &mut errors);
    rules::check(&config, &mut findings);
    let warnings = findings.into_warnings();
    if let Sections::Worker { sink_id } | Sections::Task { sink_id } = &options.sections
        && config.sink(sink_id).is_none()
    {
        errors.push(no_such_sink(sink_id, &config, &tree));
    }
    if errors.is_empty() {
        let hash = fingerprint(&tree, &options.variables);
        Ok(Loaded { config, hash, warnings })
    } else {
        Err(in_order(errors))
    }
}

/// The settings of a platform file and the environment, without any pipeline: for commands that
/// only ask the services. What names a pipeline is empty.
///
/// # Errors
///
/// Everything that is wrong with them, each with its place.
pub fn load_platform(
    platform: Option<&Path>,
    variables: &Variables,
) -> Result<PipelineConfig, ConfigErrors> {
    let mut errors = Vec::new();
    let file = platform.and_then(|path| read(path, &mut errors));
    if platform.is_some() && file.is_none() {
        return Err(in_order(errors));
    }
    // In place of the pipeline that is not there, so that nothing is missing.
    let source: Arc<str> = Arc::from(TEMPLATE);
    let text = "pipeline_id: none\nsource: {database: none}\n";
    let mut base = tree::parse(&source, text, &mut errors)
        .unwrap_or_else(|| Node::empty(Place { source, line: 1 }));
    if let Some(file) = file {
        base.merge(file);
    }
    let tree = merged(Some(base), None, variables, &mut errors);
    let usage = Usage::new(&Sections::Platform, &tree);
    let shaped = shape(&tree, &usage, variables);
    errors.extend(shaped.errors);
    let config = typed(shaped.values, &tree, &mut errors);
    match config {
        Some(config) if errors.is_empty() => {
            rules::check(
                &config,
                &mut Findings::new(&tree, &usage, &shaped.unresolved, &mut errors),
            );
            let config = PipelineConfig { pipeline_id: String::new(), ..config };
            if errors.is_empty() { Ok(config) } else { Err(in_order(errors)) }
        }
        _ => Err(in_order(errors)),
    }
}

fn read(path: &Path, errors: &mut Vec<ConfigError>) -> Option<Node> {
    let source: Arc<str> = Arc::from(path.to_string_lossy());
    match text(path) {
        Ok(text) => tree::parse(&source, &text, errors),
        Err((line, message)) => {
            let place = Place { source, line };
            errors.push(ConfigError { place, path: String::new(), message });
            None
        }
    }
}

/// A file's text, or the line and what is wrong with it.
fn text(path: &Path) -> Result<String, (u32, String)> {
    let bytes = references::bounded(path, MAX_FILE_BYTES)
        .map_err(|error| (1, format!("cannot be read: {error}")))?
        .ok_or_else(|| (1, format!("is larger than {MAX_FILE_BYTES} bytes")))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count() as u32;
        (line, "is not UTF-8: save it as UTF-8".to_owned())
    })
}

/// All layers in one tree.
fn merged(
    platform: Option<Node>,
    pipeline: Option<Node>,
    variables: &Variables,
    errors: &mut Vec<ConfigError>,
) -> Node {
    let files: Vec<&Node> = platform.iter().chain(&pipeline).collect();
    let environment = environment::layer(variables, &files, errors);
    let layers = [platform, pipeline, Some(environment)];
    let kind = layers.iter().rev().flatten().find_map(|layer| {
        let text = layer.get("source")?.get("source_type")?.text()?;
        references::resolve(text, variables).ok()
    });
    let mut tree = template(kind.as_deref());
    let top = layers[1].as_ref().or(layers[0].as_ref()).map(|layer| layer.place.clone());
    for layer in layers.into_iter().flatten() {
        tree.merge(layer);
    }
    if let Some(top) = top {
        tree.place = top;
    }
    spread_retry(&mut tree);
    tree
}

/// The built-in defaults of a source type; those of PostgreSQL for one that is unknown, which is
/// reported elsewhere.
fn template(source_type: Option<&str>) -> Node {
    let (name, text) = match source_type.unwrap_or_default().to_ascii_lowercase().as_str() {
        "mysql" => ("mysql_cdc_v1", include_str!("../../../config/templates/mysql_cdc_v1.yaml")),
        "mariadb" => {
            ("mariadb_cdc_v1", include_str!("../../../config/templates/mariadb_cdc_v1.yaml"))
        }
        _ => ("postgres_cdc_v1", include_str!("../../../config/templates/postgres_cdc_v1.yaml")),
    };
    let source: Arc<str> = Arc::from(format!("{TEMPLATE}{name}"));
    let empty = Node::empty(Place { source: Arc::clone(&source), line: 1 });
    tree::parse(&source, text, &mut Vec::new()).unwrap_or(empty)
}

/// Lays each sink's `retry` over the pipeline's.
fn spread_retry(tree: &mut Node) {
    let Some(retry) = tree.get("retry").cloned() else { return };
    let Value::Map(entries) = &mut tree.value else { return };
    let Some(sinks) = entries.iter_mut().find(|entry| entry.key == "sinks") else { return };
    let Value::List(items) = &mut sinks.node.value else { return };
    for sink in items {
        let Value::Map(entries) = &mut sink.value else { continue };
        let own = entries.iter().position(|entry| entry.key == "retry");
        let own = own.map(|index| entries.remove(index));
        let mut node = retry.clone();
        let key_place =
            own.as_ref().map_or_else(|| node.place.clone(), |own| own.key_place.clone());
        if let Some(own) = own {
            node.merge(own.node);
        }
        entries.push(Entry { key: "retry".to_owned(), key_place, node });
    }
}

/// The values as the types hold them. The schema is as strict as the types, so the types' own
/// complaint is only added when nothing else was found.
fn typed(values: Json, tree: &Node, errors: &mut Vec<ConfigError>) -> Option<PipelineConfig> {
    match serde_json::from_value(values) {
        Ok(config) => Some(config),
        Err(error) => {
            if errors.is_empty() {
                let message = error.to_string();
                errors.push(ConfigError {
                    place: tree.place.clone(),
                    path: String::new(),
                    message,
                });
            }
            None
        }
    }
}

fn no_such_sink(sink_id: &str, config: &PipelineConfig, tree: &Node) -> ConfigError {
    let known: Vec<_> = config.sinks.iter().map(|sink| sink.sink_id.as_str()).collect();
    let message = if known.is_empty() {
        format!("there is no sink `{sink_id}`, nor any other")
    } else {
        format!("there is no sink `{sink_id}`; there is {}", known.join(", "))
    };
    ConfigError { place: tree.place_of("sinks").clone(), path: "sinks".to_owned(), message }
}

/// FNV-1a over the configuration as JSON: with references as they are written, without secrets, and
/// without what only concerns the look and place of one process.
fn fingerprint(tree: &Node, variables: &Variables) -> String {
    let shaped = shape(tree, &Usage::identity(tree), variables);
    let config: PipelineConfig = serde_json::from_value(shaped.values).unwrap_or_default();
    let mut json = serde_json::to_value(&config).unwrap_or_default();
    if let Some(object) = json.as_object_mut() {
        for key in ["log_level", "log_format", "worker"] {
            object.remove(key);
        }
    }
    let hash = json.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Errors by file and line; those of the environment last.
fn in_order(mut errors: Vec<ConfigError>) -> ConfigErrors {
    errors.sort_by(|left, right| {
        let key = |error: &ConfigError| {
            (error.place.line == 0, Arc::clone(&error.place.source), error.place.line)
        };
        key(left).cmp(&key(right))
    });
    errors.dedup();
    ConfigErrors(errors)
}
