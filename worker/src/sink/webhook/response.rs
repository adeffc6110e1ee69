//! What an answer, or its absence, means.

use std::error::Error;
use std::time::{Duration, SystemTime};

use cdc_shared::error::{caused_by, innermost};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Response, StatusCode};
use reqwest::Url;

use super::transport::TransportError;
use crate::sink::{Disposition, SinkError};

/// Longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How long the rest of a successful answer may take: it only serves to use the connection again.
const DRAIN: Duration = Duration::from_secs(1);
/// Characters of an answer shown to an operator.
const SHOWN: usize = 100;

/// Decides by status and headers alone; `None` is success.
pub(super) fn judge(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Disposition> {
    match status {
        200..=299 => None,
        400 | 413 | 415 | 422 => Some(Disposition::Reject),
        410 => Some(Disposition::Stop),
        // Redirects are not followed; 401, 403 and 404 are our access, which an operator can mend.
        _ => Some(Disposition::Retry(retry_after(headers, now))),
    }
}

/// The wait that the receiver asks for, in seconds or until a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait, not nonsense.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Reads an answer to its verdict. `address` is what messages name.
pub(super) async fn outcome(
    mut response: Response<Incoming>,
    address: &str,
    max_bytes: usize,
) -> Result<(), SinkError> {
    let status = response.status();
    let Some(disposition) = judge(status.as_u16(), response.headers(), SystemTime::now()) else {
        if response.body().size_hint().exact() != Some(0) {
            // The status is the acknowledgement: what becomes of the rest changes nothing.
            let _ = tokio::time::timeout(DRAIN, read(response.body_mut(), max_bytes)).await;
        }
        return Ok(());
    };
    let body = match tokio::time::timeout(DRAIN, read(response.body_mut(), max_bytes)).await {
        Ok(start) if status.is_client_error() || status.is_server_error() => sanitized(&start),
        _ => String::new(),
    };
    Err(refused(status, &response, disposition, address, &body))
}

/// Reads at most `max_bytes` and gives the start. Not reading to the end leaves the connection
/// unusable, and dropping the response closes it.
async fn read(body: &mut Incoming, max_bytes: usize) -> Vec<u8> {
    let mut start = Vec::new();
    let mut total = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(chunk) = frame.data_ref() else { continue };
        let room = (4 * SHOWN).saturating_sub(start.len()).min(chunk.len());
        start.extend_from_slice(&chunk[..room]);
        total += chunk.len();
        if total > max_bytes {
            break;
        }
    }
    start
}

fn refused(
    status: StatusCode,
    response: &Response<Incoming>,
    disposition: Disposition,
    address: &str,
    body: &str,
) -> SinkError {
    let reason = status.canonical_reason().unwrap_or("without a known reason");
    let mut message = format!("{address} answered {} {reason}", status.as_u16());
    if !body.is_empty() {
        message.push_str(": ");
        message.push_str(body);
    }
    SinkError {
        code: format!("http_{}", status.as_u16()),
        message,
        hint: hint(status, response.headers()),
        disposition,
        source: None,
    }
}

fn hint(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let text = match status.as_u16() {
        300..=399 if headers.contains_key("location") => {
            "redirects are not followed: set url to the receiver's own address"
        }
        401 | 403 => "check auth_token, headers and signing_secrets against the receiver",
        404 | 405 => "check url and method against the receiver",
        410 => "the receiver is gone: set url to its successor, or remove the sink, then resume",
        413 => "raise the receiver's limit for request bodies",
        429 => "lower max_in_flight, or raise the receiver's rate limit",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The start of an answer on one line, as an operator may see it.
fn sanitized(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start);
    let mut shown = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || c == '\u{fffd}') {
        if word.is_empty() {
            continue;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    match shown.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// An attempt without an answer: always worth another one.
pub(super) fn unanswered(error: TransportError, address: &str) -> SinkError {
    let (code, tried) = match &error {
        TransportError::Timeout => ("timeout", "wait for an answer of"),
        TransportError::Request(error) if error.is_connect() => (connect_code(error), "connect to"),
        TransportError::Request(error) => (sent_code(error), "send a request to"),
    };
    let message = format!("{tried} {address}: {}", innermost(&error));
    unreachable(code, message, Some(Box::new(error)))
}

/// An error of reaching the receiver.
pub(super) fn unreachable(
    code: &str,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
) -> SinkError {
    let hint = match code {
        "tls" => Some("check the receiver's certificate against tls.ca_file and the host of url"),
        "connection_refused" | "connect_timeout" | "connect" | "address" => {
            Some("check that the receiver runs and that url names its host and port")
        }
        "timeout" => Some("the receiver answers too late: raise timeout_seconds or speed it up"),
        _ => None,
    };
    SinkError {
        code: code.to_owned(),
        message,
        hint: hint.map(str::to_owned),
        disposition: Disposition::Retry(None),
        source,
    }
}

/// Names the address in messages: no path and no query, since both may hold a secret.
pub(super) fn shown_address(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn connect_code(error: &(dyn Error + 'static)) -> &'static str {
    if caused_by::<rustls::Error>(error).is_some() {
        return "tls";
    }
    if caused_by::<super::address::PrivateAddress>(error).is_some() {
        return "address";
    }
    match caused_by::<std::io::Error>(error) {
        Some(error) => io_code(error),
        None => "connect",
    }
}

/// The code of an error while connecting.
pub(super) fn io_code(error: &std::io::Error) -> &'static str {
    if let Some(inner) = error.get_ref()
        && inner.is::<rustls::Error>()
    {
        return "tls";
    }
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection_refused",
        std::io::ErrorKind::TimedOut => "connect_timeout",
        _ => "connect",
    }
}

fn sent_code(error: &(dyn Error + 'static)) -> &'static str {
    if caused_by::<std::io::Error>(error).is_some() {
        return "connection_reset";
    }
    match caused_by::<hyper::Error>(error) {
        Some(error) if error.is_parse() => "http",
        _ => "connection_closed",
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn asked(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        match judge(503, &headers, now()) {
            Some(Disposition::Retry(asked)) => asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_status_has_its_disposition() {
        for status in 100..600 {
            let expected = match status {
                200..300 => None,
                400 | 413 | 415 | 422 => Some(Disposition::Reject),
                410 => Some(Disposition::Stop),
                _ => Some(Disposition::Retry(None)),
            };
            assert_eq!(judge(status, &HeaderMap::new(), now()), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_capped() {
        let date = |seconds| httpdate::fmt_http_date(now() + Duration::from_secs(seconds));
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("0"), Some(Duration::ZERO));
        assert_eq!(asked("7200"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(asked("99999999999999999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(asked(&date(90)), Some(Duration::from_secs(90)));
        assert_eq!(asked(&date(90_000)), Some(LONGEST_RETRY_AFTER));
        assert_eq!(asked("Mon, 01 Jan 2001 00:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "-1", "1.5", "soon", "+5"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_answer_is_shown_short_and_clean() {
        assert_eq!(sanitized(b" a\x1b[31m\r\n\r\nb\xff\0c "), "a [31m b c");
        let long = sanitized("ä".repeat(500).as_bytes());
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert_eq!(sanitized(b""), "");
    }

    #[test]
    fn a_messages_address_holds_no_path() {
        let url = Url::parse("https://hooks.example.com/services/T0/secret?key=1").unwrap();
        assert_eq!(shown_address(&url), "https://hooks.example.com");
    }
}
