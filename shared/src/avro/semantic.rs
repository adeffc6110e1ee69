//! What a value means, beyond its Avro type: the names of Debezium, Connect and Avro.

use std::collections::BTreeMap;

/// The meaning of a value. Debezium and Connect say it in `connect.name`, plain Avro in
/// `logicalType`; where both are there, the former wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Semantic {
    /// No special meaning, or a name that is not known here (see `Type::connect_name`).
    #[default]
    Plain,
    /// Unscaled two's complement big-endian bytes with a fixed scale
    /// (`org.apache.kafka.connect.data.Decimal`, Avro `decimal`).
    Decimal {
        /// Digits behind the point; may be negative.
        scale: i32,
        /// Digits in all, where the schema says so.
        precision: Option<u32>,
    },
    /// Record of `scale` and unscaled `value` (`io.debezium.data.VariableScaleDecimal`).
    VariableScaleDecimal,
    /// int: days since 1970-01-01 (`io.debezium.time.Date`, Connect `Date`, Avro `date`).
    Date,
    /// int: milliseconds since midnight (`Time`, Connect `Time`, Avro `time-millis`).
    Time,
    /// long: microseconds since midnight, signed on `MySQL` (`MicroTime`, Avro `time-micros`).
    MicroTime,
    /// long: nanoseconds since midnight (`NanoTime`).
    NanoTime,
    /// long: milliseconds since 1970-01-01T00:00:00, no zone (`Timestamp`, Connect `Timestamp`,
    /// Avro `local-timestamp-millis`).
    Timestamp,
    /// long: microseconds, no zone (`MicroTimestamp`, Avro `local-timestamp-micros`).
    MicroTimestamp,
    /// long: nanoseconds, no zone (`NanoTimestamp`, Avro `local-timestamp-nanos`).
    NanoTimestamp,
    /// long: milliseconds since the epoch, UTC (Avro `timestamp-millis` without a Connect name).
    InstantMillis,
    /// long: microseconds since the epoch, UTC (Avro `timestamp-micros`).
    InstantMicros,
    /// long: nanoseconds since the epoch, UTC (Avro `timestamp-nanos`).
    InstantNanos,
    /// string: time with offset (`ZonedTime`).
    ZonedTime,
    /// string: timestamp with offset (`ZonedTimestamp`).
    ZonedTimestamp,
    /// long: microseconds (`MicroDuration`).
    MicroDuration,
    /// long: nanoseconds (`NanoDuration`).
    NanoDuration,
    /// string: ISO 8601 duration (`Interval`).
    Interval,
    /// int (`Year`).
    Year,
    /// string (`IsoDate`).
    IsoDate,
    /// string (`IsoTime`).
    IsoTime,
    /// string (`IsoTimestamp`).
    IsoTimestamp,
    /// bytes, least significant byte first (`io.debezium.data.Bits`).
    Bits {
        /// Number of bits, where the schema says so.
        length: Option<u32>,
    },
    /// string with JSON text (`io.debezium.data.Json`).
    Json,
    /// string (`Xml`).
    Xml,
    /// string, or fixed of 16 bytes (`Uuid`, Avro `uuid`).
    Uuid,
    /// string (`Ltree`).
    Ltree,
    /// string out of the parameter `allowed` (`io.debezium.data.Enum`).
    Enum,
    /// string: comma list out of the parameter `allowed` (`EnumSet`).
    EnumSet,
    /// string (`Tsvector`).
    Tsvector,
    /// array of double (`DoubleVector`).
    DoubleVector,
    /// array of float (`FloatVector`).
    FloatVector,
    /// record of `dimensions` and `vector` (`SparseDoubleVector`, `SparseVector`).
    SparseVector,
    /// record of `x`, `y`, `wkb`, `srid` (`io.debezium.data.geometry.Point`).
    Point,
    /// record of `wkb`, `srid` (`Geometry`).
    Geometry,
    /// record of `wkb`, `srid` (`Geography`).
    Geography,
}

impl Semantic {
    /// By `connect.name`; `None` if the name has no meaning here.
    pub(super) fn of_connect(name: &str, parameters: &BTreeMap<String, String>) -> Option<Self> {
        let number = |key: &str| parameters.get(key).and_then(|text| text.parse::<i64>().ok());
        if let Some(name) = name.strip_prefix("io.debezium.time.") {
            return Self::of_debezium_time(name);
        }
        if let Some(name) = name.strip_prefix("org.apache.kafka.connect.data.") {
            return Some(match name {
                "Decimal" => Self::Decimal {
                    scale: number("scale").and_then(|n| n.try_into().ok()).unwrap_or(0),
                    precision: number("connect.decimal.precision").and_then(|n| n.try_into().ok()),
                },
                "Date" => Self::Date,
                "Time" => Self::Time,
                "Timestamp" => Self::Timestamp,
                _ => return None,
            });
        }
        Some(match name.strip_prefix("io.debezium.data.")? {
            "VariableScaleDecimal" => Self::VariableScaleDecimal,
            "Bits" => Self::Bits { length: number("length").and_then(|n| n.try_into().ok()) },
            "Json" => Self::Json,
            "Xml" => Self::Xml,
            "Uuid" => Self::Uuid,
            "Ltree" => Self::Ltree,
            "Enum" => Self::Enum,
            "EnumSet" => Self::EnumSet,
            "Tsvector" | "TsVector" => Self::Tsvector,
            "DoubleVector" => Self::DoubleVector,
            "FloatVector" => Self::FloatVector,
            "SparseDoubleVector" | "SparseVector" => Self::SparseVector,
            "geometry.Point" => Self::Point,
            "geometry.Geometry" => Self::Geometry,
            "geometry.Geography" => Self::Geography,
            _ => return None,
        })
    }

    fn of_debezium_time(name: &str) -> Option<Self> {
        Some(match name {
            "Date" => Self::Date,
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "NanoTime" => Self::NanoTime,
            "Timestamp" => Self::Timestamp,
            "MicroTimestamp" => Self::MicroTimestamp,
            "NanoTimestamp" => Self::NanoTimestamp,
            "ZonedTime" => Self::ZonedTime,
            "ZonedTimestamp" => Self::ZonedTimestamp,
            "MicroDuration" => Self::MicroDuration,
            "NanoDuration" => Self::NanoDuration,
            "Interval" => Self::Interval,
            "Year" => Self::Year,
            "IsoDate" => Self::IsoDate,
            "IsoTime" => Self::IsoTime,
            "IsoTimestamp" => Self::IsoTimestamp,
            _ => return None,
        })
    }

    /// By Avro `logicalType`; `None` if it has no meaning here.
    pub(super) fn of_logical(
        name: &str,
        scale: Option<i64>,
        precision: Option<i64>,
    ) -> Option<Self> {
        Some(match name {
            "decimal" => Self::Decimal {
                scale: scale.and_then(|n| n.try_into().ok()).unwrap_or(0),
                precision: precision.and_then(|n| n.try_into().ok()),
            },
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time-millis" => Self::Time,
            "time-micros" => Self::MicroTime,
            "timestamp-millis" => Self::InstantMillis,
            "timestamp-micros" => Self::InstantMicros,
            "timestamp-nanos" => Self::InstantNanos,
            "local-timestamp-millis" => Self::Timestamp,
            "local-timestamp-micros" => Self::MicroTimestamp,
            "local-timestamp-nanos" => Self::NanoTimestamp,
            _ => return None,
        })
    }
}
