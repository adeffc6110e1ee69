//! A Kafka Connect of its own for a sink that is measured beside ours, with the heap that Connect's
//! start script gives it.

use std::path::Path;

use super::process::Process;
use super::{Bench, Error};

/// Starts it with one connector, whose plugin lies in a folder.
pub(crate) fn start(
    bench: &Bench,
    name: &str,
    plugin: &str,
    connector: &str,
) -> Result<Process, Error> {
    let folder = bench.folder.path();
    let write = |suffix: &str, text: &str| -> Result<String, Error> {
        let file = folder.join(format!("{name}-{suffix}.properties"));
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    };
    let files = [
        write("worker", &worker(bench, name, plugin))?,
        write("sink", &format!("name={name}\n{connector}"))?,
    ];
    let jars = bench.stack.setting("CDC_LOCAL_KAFKA_JARS");
    let log4j = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local/log4j2.properties");
    let mut arguments = vec![
        "-Xms256M".to_owned(),
        "-Xmx2G".to_owned(),
        "-XX:+UseG1GC".to_owned(),
        format!("-Dlog4j2.configurationFile={log4j}"),
        "-cp".to_owned(),
        format!("{jars}/*"),
        "org.apache.kafka.connect.cli.ConnectStandalone".to_owned(),
    ];
    arguments.extend(files);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::start_program(Path::new("java"), &arguments, folder.join(format!("{name}.log")))
}

/// Settings of the worker.
fn worker(bench: &Bench, name: &str, plugin: &str) -> String {
    let stack = &bench.stack;
    let converter = |side: &str| {
        let registry = stack.setting("CDC_LOCAL_REGISTRY_CONVERTER_URL");
        [
            ("", "io.apicurio.registry.utils.converter.AvroConverter"),
            (".apicurio.registry.url", registry),
            (".apicurio.registry.as-confluent", "true"),
            (".apicurio.registry.use-id", "contentId"),
            (".apicurio.registry.headers.enabled", "false"),
        ]
        .map(|(key, value)| format!("{side}.converter{key}={value}\n"))
        .concat()
    };
    format!(
        "bootstrap.servers={kafka}\nlisteners=http://127.0.0.1:0\nplugin.path={data}/plugins,{plugin}\n\
         plugin.discovery=service_load\noffset.storage.file.filename={folder}/{name}.offsets\n\
         offset.flush.interval.ms=500\nconnector.client.config.override.policy=All\n{}{}",
        converter("key"),
        converter("value"),
        kafka = stack.kafka(),
        data = stack.setting("CDC_LOCAL_DIR"),
        folder = bench.folder.path().display(),
    )
}
