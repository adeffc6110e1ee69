//! Which table a topic's changes go to.

use std::collections::HashMap;

use cdc_iceberg::TableName;
use cdc_shared::config::{IcebergConfig, PipelineConfig, SinkConfig};

/// The pattern of the tables' names, and the source tables by their topics.
#[derive(Debug)]
pub(super) struct Naming {
    namespace: String,
    pattern: String,
    /// Topics of the source's tables, with schema and name of each.
    known: HashMap<String, (String, String)>,
    prefix: String,
}

impl Naming {
    /// For the tables of a sink.
    pub(super) fn new(
        pipeline: &PipelineConfig,
        sink: &SinkConfig,
        config: &IcebergConfig,
    ) -> Self {
        let known = pipeline.sink_tables(sink).iter().filter_map(|table| {
            let (schema, name) = table.split_once('.')?;
            Some((pipeline.topic(table), (schema.to_owned(), name.to_owned())))
        });
        Self {
            namespace: config.table_namespace.clone(),
            pattern: config.table_name.clone(),
            known: known.collect(),
            prefix: format!("{}.", pipeline.topic_prefix),
        }
    }

    /// Namespace of all tables.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The table of a topic, which is named `{prefix}.{schema}.{table}`.
    pub(super) fn table(&self, topic: &str) -> TableName {
        let (schema, table) = if let Some((schema, table)) = self.known.get(topic) {
            (schema.as_str(), table.as_str())
        } else {
            let name = topic.strip_prefix(&self.prefix).unwrap_or(topic);
            name.split_once('.').unwrap_or(("", name))
        };
        // Put in at once, so that a name with braces in it is not looked at again.
        let mut name = String::new();
        let mut rest = self.pattern.as_str();
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            name.push_str(before);
            if let Some(after) = after.strip_prefix("{schema}") {
                name.push_str(schema);
                rest = after;
            } else if let Some(after) = after.strip_prefix("{table}") {
                name.push_str(table);
                rest = after;
            } else {
                name.push('{');
                rest = after.get(1..).unwrap_or_default();
            }
        }
        name.push_str(rest);
        TableName { namespace: self.namespace.clone(), table: name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pattern: &str, topic: &str) -> String {
        let mut pipeline =
            PipelineConfig { topic_prefix: "cdc".to_owned(), ..PipelineConfig::default() };
        pipeline.source.tables = vec!["shop.order.lines".to_owned(), "public.{table}".to_owned()];
        let config = IcebergConfig { table_name: pattern.to_owned(), ..IcebergConfig::default() };
        Naming::new(&pipeline, &SinkConfig::default(), &config).table(topic).to_string()
    }

    #[test]
    fn a_topic_is_a_table() {
        let is = |pattern, topic, name: &str| assert_eq!(table(pattern, topic), name, "{topic}");
        is("{schema}_{table}", "cdc.public.orders", "default.public_orders");
        is("all", "cdc.public.orders", "default.all");
        is("{table}_log", "cdc.shop.order.lines", "default.order.lines_log");
        is("{schema}_{table}", "cdc.public.{table}", "default.public_{table}");
        is("{schema}_{table}", "routed", "default._routed");
    }
}
