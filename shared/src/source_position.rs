//! Places in the log of a source database, as a person names them and as change events tell them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::SourceType;
use crate::envelope::Envelope;

/// A place in the log of a source database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SourcePosition {
    /// `PostgreSQL`: `0/16B3748`.
    Lsn(u64),
    /// MySQL and `MariaDB`: a binlog file and a place in it, `binlog.000003:1234`.
    Binlog(BinlogFile, u64),
    /// A transaction of MySQL (`uuid:23`) or `MariaDB` (`0-1-23`).
    Transaction(Gtid),
}

/// A file of a binlog: `binlog.000003`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BinlogFile {
    base: String,
    number: u64,
    /// How many digits are written.
    digits: usize,
}

/// The id of a transaction. Only those of one origin have an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gtid {
    /// MySQL: the server's uuid, with a tag where it has one. `MariaDB`: the domain.
    origin: String,
    /// `MariaDB`: the server that wrote it.
    server: Option<u64>,
    number: u64,
}

/// Text that names no place in a log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no place in a source's log: neither 0/16B3748, nor binlog.000003:1234, nor the id of \
     a transaction (uuid:23, 0-1-23)"
)]
pub struct NoPosition(String);

impl SourcePosition {
    /// Whether logs of this kind of database have such places.
    pub fn fits(&self, source: SourceType) -> bool {
        match self {
            Self::Lsn(_) => source == SourceType::Postgres,
            Self::Binlog(..) => source != SourceType::Postgres,
            Self::Transaction(gtid) if gtid.server.is_some() => source == SourceType::Mariadb,
            Self::Transaction(_) => source == SourceType::Mysql,
        }
    }

    /// Whether an event lies here or behind; `None` where it does not tell, or in no order with it.
    pub fn is_reached_by(&self, event: &Envelope<'_, '_>) -> Option<bool> {
        let source = event.source()?;
        let field = |name: &str| source.get(source.position(name)?);
        match self {
            Self::Lsn(lsn) => Some(u64::try_from(event.lsn()?).ok()? >= *lsn),
            Self::Binlog(file, place) => {
                let at = BinlogFile::parse(field("file")?.as_str()?)?;
                let pos = u64::try_from(field("pos")?.as_i64()?).ok()?;
                (at.base == file.base).then(|| (at.number, pos) >= (file.number, *place))
            }
            Self::Transaction(gtid) => {
                let at = Gtid::parse(field("gtid")?.as_str()?)?;
                let is_one_order =
                    at.origin == gtid.origin && at.server.is_some() == gtid.server.is_some();
                is_one_order.then_some(at.number >= gtid.number)
            }
        }
    }
}

impl BinlogFile {
    fn parse(text: &str) -> Option<Self> {
        let (base, digits) = text.rsplit_once('.')?;
        let is_name = !base.is_empty() && !base.contains(['/', ':']);
        (is_name && is_number(digits)).then(|| {
            Some(Self { base: base.to_owned(), number: digits.parse().ok()?, digits: digits.len() })
        })?
    }
}

impl Gtid {
    fn parse(text: &str) -> Option<Self> {
        if let Some((origin, number)) = text.rsplit_once(':') {
            let uuid = origin.split(':').next()?;
            let is_uuid = uuid.len() == 36
                && uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
                && uuid.matches('-').count() == 4;
            return (is_uuid && is_number(number)).then(|| {
                Some(Self {
                    origin: origin.to_ascii_lowercase(),
                    server: None,
                    number: number.parse().ok()?,
                })
            })?;
        }
        let parts: Vec<&str> = text.split('-').collect();
        let [domain, server, number] = parts[..] else { return None };
        // As they are written: 2026-01-31 is a day.
        let is_written = |part: &&str| is_number(part) && (*part == "0" || !part.starts_with('0'));
        parts.iter().all(is_written).then(|| {
            Some(Self {
                origin: domain.parse::<u32>().ok()?.to_string(),
                server: Some(server.parse().ok()?),
                number: number.parse().ok()?,
            })
        })?
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |text: &str| {
        let is_hex = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok())?
    };
    Some((half(high)? << 32) | half(low)?)
}

fn binlog(text: &str) -> Option<SourcePosition> {
    let (file, place) = text.rsplit_once(':')?;
    let place = is_number(place).then(|| place.parse().ok())??;
    Some(SourcePosition::Binlog(BinlogFile::parse(file)?, place))
}

impl FromStr for SourcePosition {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        lsn(text)
            .map(Self::Lsn)
            .or_else(|| Gtid::parse(text).map(Self::Transaction))
            .or_else(|| binlog(text))
            .ok_or_else(|| NoPosition(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for SourcePosition {
    type Error = NoPosition;

    fn try_from(text: String) -> Result<Self, NoPosition> {
        text.parse()
    }
}

impl From<SourcePosition> for String {
    fn from(position: SourcePosition) -> Self {
        position.to_string()
    }
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff),
            Self::Binlog(BinlogFile { base, number, digits }, place) => {
                write!(f, "{base}.{number:0digits$}:{place}")
            }
            Self::Transaction(Gtid { origin, server: Some(server), number }) => {
                write!(f, "{origin}-{server}-{number}")
            }
            Self::Transaction(Gtid { origin, server: None, number }) => {
                write!(f, "{origin}:{number}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["0/16B3748", "1A/0", "binlog.000003:1234", "my-bin.x.000012:4", "0-1-23"] {
            assert_eq!(text.parse::<SourcePosition>().unwrap().to_string(), text);
        }
        let gtid = format!("{UUID}:23");
        assert_eq!(gtid.parse::<SourcePosition>().unwrap().to_string(), gtid);
        assert_eq!("0/16b3748".parse(), Ok(SourcePosition::Lsn(0x16b_3748)));
    }

    #[test]
    fn what_is_no_place_is_told() {
        for text in [
            "",
            "/",
            "0/",
            "/1",
            "0/123456789",
            "g/1",
            "0/-1",
            "binlog.000003",
            ".000003:1",
            "binlog.:1",
            "binlog.3:x",
            "binlog:1",
            "1-2",
            "1-2-3-4",
            "1--3",
            "2026-01-31",
            "3e11fa47:7",
            "99999999999999999999-1-1",
            "binlog.1:99999999999999999999",
        ] {
            let error = text.parse::<SourcePosition>().unwrap_err();
            assert!(error.to_string().contains("is no place"), "{text}");
        }
    }

    #[test]
    fn a_place_belongs_to_one_kind_of_database() {
        use SourceType::{Mariadb, Mysql, Postgres};
        for (text, fits) in [
            ("0/1".to_owned(), [true, false, false]),
            ("binlog.000001:4".to_owned(), [false, true, true]),
            (format!("{UUID}:1"), [false, true, false]),
            ("0-1-1".to_owned(), [false, false, true]),
        ] {
            let place: SourcePosition = text.parse().unwrap();
            assert_eq!([Postgres, Mysql, Mariadb].map(|source| place.fits(source)), fits, "{text}");
        }
    }
}
