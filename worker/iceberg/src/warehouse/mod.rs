//! Where the files of tables are: folders of this machine and S3, by one interface.

mod s3;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cdc_shared::config::{Secret, TlsConfig};
use iceberg::io::FileIO;

pub(crate) use self::s3::S3Error;
use crate::error::{Kind, LakeError, Result};

/// Properties of a catalog or of files, by the names that PyIceberg and Iceberg's Java give them.
pub(crate) type Properties = BTreeMap<String, Secret>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Warehouse {
    properties: Properties,
    tls: TlsConfig,
    opened: Mutex<Opened>,
}

/// What was opened before.
#[derive(Debug, Default)]
struct Opened {
    /// Connections, which all files share, whatever keys they have.
    connections: Option<s3::Connections>,
    /// The files that were asked for last, by the properties that the catalog gave for them.
    files: Option<(Properties, FileIO)>,
}

impl Warehouse {
    /// A warehouse. Nothing is opened yet.
    pub(crate) fn new(properties: Properties, tls: TlsConfig) -> Self {
        Self { properties, tls, opened: Mutex::default() }
    }

    /// The files at a location. `vended`: properties that the catalog gave for them.
    ///
    /// # Errors
    /// A location of a kind that is not built, or properties that cannot be used.
    pub(crate) fn files(&self, location: &str, vended: &Properties) -> Result<FileIO> {
        let scheme = location.split_once("://").map_or("file", |(scheme, _)| scheme);
        match scheme {
            "file" => Ok(FileIO::new_with_fs()),
            scheme if s3::SCHEMES.contains(&scheme) => self.on_s3(vended),
            _ => {
                let message = format!("warehouse: `{location}` is neither a local folder nor S3");
                let error = LakeError::new(Kind::Configuration, "configuration", message);
                Err(error.hint("write file:///path/to/warehouse or s3://bucket/path"))
            }
        }
    }

    /// Whether files at a location can be reached without a table: not by a name, nor without keys
    /// where a catalog may give some.
    pub(crate) fn is_reachable(&self, location: &str, more: &Properties) -> bool {
        match location.split_once("://") {
            Some(("file", _)) => true,
            Some((scheme, _)) if s3::SCHEMES.contains(&scheme) => {
                [&self.properties, more].iter().any(|has| has.contains_key("s3.access-key-id"))
            }
            _ => false,
        }
    }

    fn on_s3(&self, vended: &Properties) -> Result<FileIO> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((by, files)) = &opened.files
            && by == vended
        {
            return Ok(files.clone());
        }
        let mut properties = self.properties.clone();
        if vended.contains_key("s3.access-key-id") {
            // A session of ours is none of those keys'.
            properties.remove("s3.session-token");
        }
        properties.extend(vended.clone());
        let connections = match &opened.connections {
            Some(connections) => connections.clone(),
            None => opened.connections.insert(s3::Connections::new(&self.tls)?).clone(),
        };
        let files = s3::open(&properties, connections)?;
        opened.files = Some((vended.clone(), files.clone()));
        Ok(files)
    }
}

/// A text as it stands in an address, slashes as they are.
pub(crate) fn encoded(key: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A String takes everything.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The same of a text that is one part of a path, or a value of a query.
pub(crate) fn encoded_part(text: &str) -> String {
    encoded(text).replace('/', "%2F")
}
