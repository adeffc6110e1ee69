//! When a lag is worth a word: a threshold that is passed twice in a row, and left well behind
//! before it is silent again, so that what swings around it does not ring each time.

use cdc_shared::config::{LagConfig, LagThreshold};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Looks in a row that change a level.
const LOOKS: u32 = 2;
/// Share of a threshold below which its level ends.
const RELEASE: f64 = 0.8;

/// How bad a lag is.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LagLevel {
    /// Below the thresholds.
    #[default]
    Ok,
    /// Beyond `lag.warning`.
    Warning,
    /// Beyond `lag.critical`.
    Critical,
}

/// The level of one sink.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarm {
    level: LagLevel,
    /// Another level, and in how many looks in a row it was the right one.
    next: Option<(LagLevel, u32)>,
}

impl Alarm {
    /// The level now.
    pub(super) fn level(self) -> LagLevel {
        self.level
    }

    /// Takes a look. One that tells nothing changes nothing.
    pub(super) fn look(&mut self, config: &LagConfig, records: Option<i64>, seconds: Option<f64>) {
        if records.is_none() && seconds.is_none() {
            return;
        }
        let passes = |threshold: &LagThreshold, share: f64| {
            let beyond = |value: Option<f64>, limit: Option<f64>| {
                value.zip(limit).is_some_and(|(value, limit)| value > limit * share)
            };
            beyond(records.map(|n| n as f64), threshold.records.map(|n| n as f64))
                || beyond(seconds, threshold.seconds)
        };
        // The threshold of a level that is reached is lower by what releases it.
        let share = |level| if self.level >= level { RELEASE } else { 1.0 };
        let right = if passes(&config.critical, share(LagLevel::Critical)) {
            LagLevel::Critical
        } else if passes(&config.warning, share(LagLevel::Warning)) {
            LagLevel::Warning
        } else {
            LagLevel::Ok
        };
        self.next = match self.next {
            _ if right == self.level => None,
            Some((level, looks)) if level == right => Some((right, looks + 1)),
            _ => Some((right, 1)),
        };
        if self.next.is_some_and(|(_, looks)| looks >= LOOKS) {
            *self = Self { level: right, next: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LagConfig {
        LagConfig {
            warning: LagThreshold { records: Some(1000), seconds: Some(60.0) },
            critical: LagThreshold { records: None, seconds: Some(600.0) },
            ..LagConfig::default()
        }
    }

    fn levels(looks: &[(Option<i64>, Option<f64>)]) -> Vec<LagLevel> {
        let mut alarm = Alarm::default();
        let level = |(records, seconds): &(Option<i64>, Option<f64>)| {
            alarm.look(&config(), *records, *seconds);
            alarm.level()
        };
        looks.iter().map(level).collect()
    }

    #[test]
    fn a_level_comes_at_the_second_look_in_a_row() {
        use LagLevel::{Critical, Ok, Warning};
        let seconds = |seconds: &[f64]| {
            levels(&seconds.iter().map(|s| (Some(0), Some(*s))).collect::<Vec<_>>())
        };
        assert_eq!(seconds(&[61.0, 0.0, 61.0, 61.0]), [Ok, Ok, Ok, Warning]);
        assert_eq!(seconds(&[700.0, 700.0, 100.0, 100.0]), [Ok, Critical, Critical, Warning]);
        assert_eq!(levels(&[(Some(1001), None), (Some(1001), None)]), [Ok, Warning]);
        // It rises at once to where it belongs, not by steps.
        assert_eq!(seconds(&[100.0, 700.0, 700.0]), [Ok, Ok, Critical]);
    }

    #[test]
    fn what_swings_around_a_threshold_rings_once() {
        use LagLevel::{Ok, Warning};
        let swing: Vec<_> =
            [61.0, 61.0, 55.0, 55.0, 61.0, 49.0, 61.0, 47.0, 47.0, 55.0, 55.0, 61.0]
                .iter()
                .map(|s| (None, Some(*s)))
                .collect();
        let expected =
            [Ok, Warning, Warning, Warning, Warning, Warning, Warning, Warning, Ok, Ok, Ok, Ok];
        assert_eq!(levels(&swing), expected);
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        use LagLevel::{Ok, Warning};
        let looks =
            [(None, Some(61.0)), (None, None), (None, Some(61.0)), (None, None), (None, None)];
        assert_eq!(levels(&looks), [Ok, Ok, Warning, Warning, Warning]);
    }
}
