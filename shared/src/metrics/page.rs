//! The text of `/metrics`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, GaugeValueEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Kind, Metric};

/// The content type of [`Page::text`].
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A value: offsets and counts stay whole.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// Any other.
    Real(f64),
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value as i64)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(value as i64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(i64::from(value))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.encode(encoder),
            Self::Real(value) => value.encode(encoder),
        }
    }
}

/// All metrics of a process at one moment.
#[derive(Debug)]
pub struct Page {
    labels: Vec<(&'static str, String)>,
    families: Families,
}

#[derive(Debug, Default)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, Number)>,
}

impl Page {
    /// An empty page whose series will all have `labels`.
    pub fn new<const L: usize>(labels: [(&'static str, String); L]) -> Self {
        Self { labels: labels.into(), families: Families::default() }
    }

    /// What [`Self::text`] is, for the header.
    pub const fn content_type() -> &'static str {
        CONTENT_TYPE
    }

    /// Adds a metric without labels of its own.
    pub fn one(&mut self, metric: &Metric<0>, value: impl Into<Number>) {
        self.family(metric, [([], value)]);
    }

    /// Adds a metric with one series for each set of label values; none at all leaves it out.
    pub fn family<const N: usize, V: Into<Number>>(
        &mut self,
        metric: &Metric<N>,
        series: impl IntoIterator<Item = ([String; N], V)>,
    ) {
        let samples: Vec<_> = series
            .into_iter()
            .map(|(values, value)| (metric.labels.into_iter().zip(values).collect(), value.into()))
            .collect();
        if !samples.is_empty() {
            let (name, kind, help) = (metric.family(), metric.kind, metric.help);
            self.families.0.push(Family { name, kind, help, samples });
        }
    }

    /// Everything in the text format of `OpenMetrics`.
    ///
    /// # Errors
    /// Never in practice: writing to a text does not fail.
    pub fn text(self) -> Result<String, fmt::Error> {
        let labels = self.labels.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut registry = Registry::with_labels(labels);
        registry.register_collector(Box::new(self.families));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { name, kind, help, samples } in &self.0 {
            let kind_of_series = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind_of_series)?;
            for (labels, number) in samples {
                if *kind == Kind::Info {
                    metric.encode_info(labels)?;
                } else if labels.is_empty() {
                    value(&mut metric, *kind, *number)?;
                } else {
                    value(&mut metric.encode_family(labels)?, *kind, *number)?;
                }
            }
        }
        Ok(())
    }
}

fn value(metric: &mut MetricEncoder<'_>, kind: Kind, number: Number) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Whole(count)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&(count as u64), None)
        }
        (Kind::Counter, Number::Real(count)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&count, None)
        }
        _ => metric.encode_gauge(&number),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUILD, PROCESS_START, counter, gauge};
    use super::*;

    #[test]
    fn a_page_is_openmetrics_with_the_common_labels_first() {
        let mut page = Page::new([("pipeline", "shop".to_owned())]);
        page.family(&BUILD, [(["1.2.3".to_owned(), "worker".to_owned()], true)]);
        page.one(&counter("cdc_x_records_total", "Records"), 7_u64);
        page.one(&PROCESS_START, 1.5);
        let lag = gauge("cdc_y_offset", ["topic"], "Offset");
        page.family(&lag, [(["a\"b".to_owned()], 42_i64)]);
        page.family(&gauge("cdc_z", ["topic"], "None"), [] as [([String; 1], i64); 0]);
        let expected = "\
# HELP cdc_build Version of the running binary
# TYPE cdc_build info
cdc_build_info{pipeline=\"shop\",version=\"1.2.3\",process=\"worker\"} 1
# HELP cdc_x_records Records
# TYPE cdc_x_records counter
cdc_x_records_total{pipeline=\"shop\"} 7
# HELP process_start_time_seconds When this process started
# TYPE process_start_time_seconds gauge
process_start_time_seconds{pipeline=\"shop\"} 1.5
# HELP cdc_y_offset Offset
# TYPE cdc_y_offset gauge
cdc_y_offset{pipeline=\"shop\",topic=\"a\\\"b\"} 42
# EOF
";
        assert_eq!(page.text().unwrap(), expected);
    }
}
