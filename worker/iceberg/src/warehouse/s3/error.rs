//! What S3 says when it does not do as it is told.

use std::fmt;

use http::StatusCode;

/// An error of one request. Holds neither keys nor data.
#[derive(Debug, Clone)]
pub(crate) struct S3Error {
    operation: &'static str,
    /// `s3://bucket/key`.
    what: String,
    place: String,
    cause: Cause,
}

#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// Nobody answers.
    Unreachable(String),
    /// There are no keys to sign with.
    NoKeys(String),
    /// What the server says.
    Answer(Answer),
    /// The server's answer is not what the protocol has.
    Malformed(&'static str),
}

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The server's own code, such as `NoSuchBucket`; empty where it gives none.
    pub(super) code: String,
    message: String,
    /// Where the bucket is, if the server says so.
    region: Option<String>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, region: Option<String>, body: &str) -> Self {
        let part = |name: &str| super::client::element(body, name).unwrap_or_default();
        Self { status, code: part("Code"), message: part("Message"), region }
    }

    /// Whether it may go well another time.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || matches!(self.code.as_str(), "SlowDown" | "RequestTimeout")
    }
}

impl S3Error {
    pub(super) fn new(operation: &'static str, what: String, place: String, cause: Cause) -> Self {
        Self { operation, what, place, cause }
    }

    /// Whether the file, and not the bucket, is missing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(&self.cause, Cause::Answer(answer)
            if answer.status == StatusCode::NOT_FOUND && answer.code != "NoSuchBucket")
    }

    /// Stable code, and what an operator can do.
    pub(crate) fn advice(&self) -> (&'static str, String) {
        let answer = match &self.cause {
            Cause::Unreachable(_) => {
                return (
                    "warehouse_unreachable",
                    format!("start what serves {}, or correct s3.endpoint", self.place),
                );
            }
            Cause::NoKeys(_) => {
                return (
                    "warehouse_no_keys",
                    "give s3.access-key-id and s3.secret-access-key in catalog_properties, or \
                     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the worker's environment, or a \
                     role that AWS's chain finds"
                        .to_owned(),
                );
            }
            Cause::Malformed(_) => {
                let hint = format!("see whether {} is an endpoint of S3", self.place);
                return ("warehouse_unavailable", hint);
            }
            Cause::Answer(answer) => answer,
        };
        let bucket = self.what.trim_start_matches("s3://").split('/').next().unwrap_or_default();
        match answer.code.as_str() {
            "NoSuchBucket" => (
                "warehouse_bucket_missing",
                format!("create bucket {bucket}, or correct warehouse and s3.endpoint"),
            ),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" => (
                "warehouse_wrong_keys",
                "correct s3.access-key-id and s3.secret-access-key, or the keys of the worker's \
                 environment"
                    .to_owned(),
            ),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                ("warehouse_expired_keys", "give keys that are valid now".to_owned())
            }
            "RequestTimeTooSkewed" => {
                ("warehouse_unavailable", "set this machine's clock right".to_owned())
            }
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => {
                let region = answer.region.as_deref().unwrap_or("the bucket's region");
                ("warehouse_wrong_region", format!("set s3.region to {region}"))
            }
            _ if answer.status == StatusCode::FORBIDDEN => (
                "warehouse_denied",
                format!(
                    "allow these keys to get, put and delete objects of bucket {bucket}, or correct \
                     them"
                ),
            ),
            _ if answer.status.is_redirection() => {
                let region = answer.region.as_deref().unwrap_or("the bucket's region");
                ("warehouse_wrong_region", format!("set s3.region to {region}"))
            }
            _ => ("warehouse_unavailable", format!("see the log of {}", self.place)),
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, what, place, cause } = self;
        write!(f, "{operation} {what} at {place}: ")?;
        match cause {
            Cause::Unreachable(why) => f.write_str(why),
            Cause::NoKeys(why) => write!(f, "no keys to sign with: {why}"),
            Cause::Malformed(what) => f.write_str(what),
            Cause::Answer(Answer { status, code, message, .. }) => {
                write!(f, "{}", status.as_u16())?;
                for part in [code, message].into_iter().filter(|part| !part.is_empty()) {
                    write!(f, " {part}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for S3Error {}
