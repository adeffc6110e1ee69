//! When a reported position replaces the stored one.
//!
//! | stored | reported | outcome |
//! |---|---|---|
//! | nothing | anything | stored |
//! | incarnation n | incarnation > n, any topic, any offset | stored |
//! | incarnation n | incarnation < n | kept |
//! | incarnation n, topic A | incarnation n, topic B | kept |
//! | incarnation n, topic A | incarnation n, topic A, higher offset | stored |
//! | incarnation n, topic A | incarnation n, topic A, same or lower offset | kept |
//!
//! `advance.lua` is the same rule inside Redis; a test compares the two.

use cdc_shared::offset::Position;

/// Whether `reported` replaces `stored`.
pub fn advance(stored: Option<&Position>, reported: &Position) -> bool {
    stored.is_none_or(|stored| {
        reported.incarnation > stored.incarnation
            || (reported.incarnation == stored.incarnation
                && reported.topic_id == stored.topic_id
                && reported.next > stored.next)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cdc_shared::offset::{Incarnation, NextOffset, SchemaIds, TopicId};
    use proptest::prelude::*;

    pub(crate) fn position(incarnation: u64, topic: &str, next: i64) -> Position {
        Position {
            next: NextOffset::new(next).unwrap(),
            incarnation: Incarnation(incarnation),
            topic_id: TopicId(topic.into()),
            schemas: SchemaIds::default(),
        }
    }

    /// Positions close enough to each other that every row of the table is met.
    pub(crate) fn positions() -> impl Strategy<Value = Position> {
        let next = prop_oneof![0..4i64, 9_007_199_254_740_990..9_007_199_254_740_996i64];
        let id = proptest::option::of(1..100i32);
        (0..3u64, prop_oneof![Just("a"), Just("b")], next, id.clone(), id).prop_map(
            |(incarnation, topic, next, key, value)| Position {
                schemas: SchemaIds { key, value },
                ..position(incarnation, topic, next)
            },
        )
    }

    #[test]
    fn the_truth_table_holds() {
        let stored = position(2, "a", 10);
        assert!(advance(None, &position(0, "a", 0)));
        for (reported, replaces) in [
            (position(3, "a", 1), true),
            (position(3, "b", 1), true),
            (position(1, "a", 99), false),
            (position(2, "b", 99), false),
            (position(2, "a", 11), true),
            (position(2, "a", 10), false),
            (position(2, "a", 9), false),
        ] {
            assert_eq!(advance(Some(&stored), &reported), replaces, "{reported:?}");
        }
    }

    proptest! {
        #[test]
        fn within_an_incarnation_a_watermark_never_goes_back(
            reports in proptest::collection::vec(positions(), 1..40)
        ) {
            let mut stored: Option<Position> = None;
            for report in &reports {
                if advance(stored.as_ref(), report) {
                    if let Some(old) = &stored {
                        prop_assert!(
                            (report.incarnation, report.next) > (old.incarnation, old.next)
                                || report.incarnation > old.incarnation
                        );
                    }
                    stored = Some(report.clone());
                }
            }
            let highest = reports.iter().map(|report| report.incarnation).max();
            prop_assert_eq!(stored.map(|stored| stored.incarnation), highest);
        }
    }
}
