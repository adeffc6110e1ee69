//! What properties and the environment say of S3.

use cdc_shared::config::{Secret, process_variables};
use reqwest::Url;

use super::super::{Properties, encoded};
use crate::error::{Kind, LakeError, Result};

/// The region where nothing names one.
const REGION: &str = "us-east-1";

/// See the module.
#[derive(Debug)]
pub(super) struct Settings {
    /// `None`: that of AWS in the region.
    endpoint: Option<Url>,
    pub(super) region: String,
    /// Whether the bucket stands in the path and not before the host.
    path_style: bool,
    pub(super) keys: Option<Keys>,
}

/// Keys that the configuration or the catalog names.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) id: Secret,
    pub(super) secret: Secret,
    pub(super) session: Option<Secret>,
}

impl Settings {
    pub(super) fn read(properties: &Properties) -> Result<Self> {
        let get = |names: &[&str]| {
            let found = names.iter().find_map(|name| properties.get(*name));
            found.filter(|value| !value.is_empty()).cloned()
        };
        let variables = process_variables();
        let environment = |names: &[&str]| {
            let found = names.iter().find_map(|name| variables.get(*name));
            found.filter(|value| !value.is_empty()).cloned()
        };
        let endpoint = match get(&["s3.endpoint"]) {
            Some(endpoint) => Some(("s3.endpoint", endpoint.expose().to_owned())),
            None => environment(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
                .map(|endpoint| ("AWS_ENDPOINT_URL", endpoint)),
        };
        let endpoint = endpoint.map(|(name, text)| address(name, &text)).transpose()?;
        let path_style = match get(&["s3.path-style-access"]) {
            Some(value) => yes_or_no("s3.path-style-access", value.expose())?,
            None => match get(&["s3.force-virtual-addressing"]) {
                Some(value) => !yes_or_no("s3.force-virtual-addressing", value.expose())?,
                None => endpoint.is_some(),
            },
        };
        let region = get(&["s3.region", "client.region"]);
        let region = region
            .map(|region| region.expose().to_owned())
            .or_else(|| environment(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
            .unwrap_or_else(|| REGION.to_owned());
        let id = get(&["s3.access-key-id", "client.access-key-id"]);
        let secret = get(&["s3.secret-access-key", "client.secret-access-key"]);
        let session = get(&["s3.session-token", "client.session-token"]);
        let keys = match (id, secret) {
            (Some(id), Some(secret)) => Some(Keys { id, secret, session }),
            (None, None) => None,
            _ => {
                return Err(wrong(
                    "s3.access-key-id and s3.secret-access-key need each other",
                    "give both, or neither: then the keys come from the environment and AWS's chain",
                ));
            }
        };
        Ok(Self { endpoint, region, path_style, keys })
    }

    /// Where requests go, for messages.
    pub(super) fn place(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.as_str().trim_end_matches('/').to_owned(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        }
    }

    /// The address of a key.
    pub(super) fn url(&self, bucket: &str, key: &str) -> String {
        let key = encoded(key);
        let place = self.place();
        // A certificate for all buckets holds for no bucket with a dot.
        let path_style = self.path_style || (place.starts_with("https:") && bucket.contains('.'));
        match place.split_once("://") {
            Some((scheme, host)) if !path_style => format!("{scheme}://{bucket}.{host}/{key}"),
            _ => format!("{place}/{bucket}/{key}"),
        }
    }
}

fn wrong(message: &str, hint: &str) -> LakeError {
    let message = format!("catalog_properties: {message}");
    LakeError::new(Kind::Configuration, "configuration", message).hint(hint)
}

fn address(name: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    url.ok_or_else(|| {
        let message = format!("{name} is no address of http or https");
        wrong(&message, "write http(s)://host:port, and keys as s3.access-key-id and so on")
    })
}

fn yes_or_no(name: &str, text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(&format!("{name} is neither true nor false"), "write true or false")),
    }
}
