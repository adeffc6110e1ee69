//! Values that the PostgreSQL connector (3.6) sends other than they are, by the source's columns
//! and the connector's modes. Pure; `docs/replica-types.md` has the whole list.

use cdc_shared::config::PipelineConfig;

use super::tables::Column;

/// What happens to a column's values, and what avoids it.
pub(super) struct Change {
    pub(super) what: &'static str,
    pub(super) way_out: &'static str,
}

const LEAVE_OUT: &str = "leave the column out (column.exclude.list in \
                         source.connector_properties), or change its type";

/// Array types that the connector leaves out of every record, by their elements.
const NO_ARRAYS: [&str; 6] = ["money", "interval", "xml", "name", "varbit", "point"];

/// Whether the column is an array that does not arrive, although its elements alone would.
pub(super) fn is_dropped_array(column: &Column) -> bool {
    column.type_text.ends_with("[]")
        && (column.of_domains || NO_ARRAYS.contains(&column.base.as_str()))
}

/// The change that concerns a column, if one does.
pub(super) fn change(config: &PipelineConfig, column: &Column) -> Option<Change> {
    let is_array = column.type_text.ends_with("[]");
    let mode = |name: &str| config.source.connector_properties.0.get(name).map(String::as_str);
    let decimals = mode("decimal.handling.mode");
    let change = |what, way_out| Some(Change { what, way_out });
    match (column.base.as_str(), is_array) {
        ("varbit", _) => change("arrive without their number of bits", LEAVE_OUT),
        ("name", false) => change("arrive as NULL while streaming", LEAVE_OUT),
        ("time", true) if !has_digits(column, 3) => change("are cut to milliseconds", LEAVE_OUT),
        ("timetz", true) if !has_digits(column, 0) => change("are cut to seconds", LEAVE_OUT),
        ("numeric", _) if decimals == Some("precise") => change(
            "end the connector's task when one is NaN or infinite",
            "set decimal.handling.mode: string",
        ),
        ("numeric" | "money", _) if decimals == Some("double") => {
            change("lose what is beyond 15 digits", "set decimal.handling.mode: string")
        }
        ("interval", _) if mode("interval.handling.mode") == Some("numeric") => change(
            "arrive with months and days made microseconds",
            "set interval.handling.mode: string",
        ),
        ("time" | "timestamp", _)
            if mode("time.precision.mode") == Some("connect") && !has_digits(column, 3) =>
        {
            change("are cut to milliseconds", "set time.precision.mode: microseconds")
        }
        _ => None,
    }
}

/// Whether a time is declared with at most so many digits.
fn has_digits(column: &Column, most: u8) -> bool {
    let digits = column.type_text.split(['(', ')']).nth(1).and_then(|digits| digits.parse().ok());
    digits.is_some_and(|digits: u8| digits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_text: &str, base: &str) -> Column {
        Column { type_text: type_text.into(), base: base.into(), ..Column::default() }
    }

    fn is_changed(mode: Option<(&str, &str)>, type_text: &str, base: &str) -> bool {
        let mut config = PipelineConfig::default();
        let mode = mode.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.source.connector_properties.0.extend(mode);
        change(&config, &column(type_text, base)).is_some()
    }

    #[test]
    fn what_no_mode_avoids_is_always_said() {
        for (type_text, base) in [
            ("bit varying(8)", "varbit"),
            ("name", "name"),
            ("time without time zone[]", "time"),
            ("time(4) without time zone[]", "time"),
            ("time with time zone[]", "timetz"),
        ] {
            assert!(is_changed(None, type_text, base), "{type_text}");
        }
        for (type_text, base) in [
            ("bit(8)", "bit"),
            ("time(3) without time zone[]", "time"),
            ("time without time zone", "time"),
            ("timestamp without time zone[]", "timestamp"),
            ("numeric", "numeric"),
            ("interval", "interval"),
        ] {
            assert!(!is_changed(None, type_text, base), "{type_text}");
        }
    }

    #[test]
    fn what_a_mode_changes_is_said_with_that_mode() {
        let decimals = |mode| Some(("decimal.handling.mode", mode));
        assert!(is_changed(decimals("precise"), "numeric(12,2)", "numeric"));
        assert!(is_changed(decimals("double"), "money", "money"));
        assert!(!is_changed(decimals("string"), "numeric", "numeric"));
        assert!(is_changed(Some(("interval.handling.mode", "numeric")), "interval", "interval"));
        let connect = Some(("time.precision.mode", "connect"));
        assert!(is_changed(connect, "timestamp without time zone", "timestamp"));
        assert!(!is_changed(connect, "timestamp(3) without time zone", "timestamp"));
    }

    #[test]
    fn arrays_that_do_not_arrive_are_known() {
        assert!(is_dropped_array(&column("money[]", "money")));
        assert!(!is_dropped_array(&column("money", "money")));
        assert!(!is_dropped_array(&column("numeric[]", "numeric")));
        let domains = Column { of_domains: true, ..column("price[]", "numeric") };
        assert!(is_dropped_array(&domains));
    }
}
