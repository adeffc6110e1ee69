//! Requests of S3's protocol.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use sha2::{Digest, Sha256};

use super::super::encoded_part;
use super::Connections;
use super::error::{Answer, Cause, S3Error};
use super::keys::signer;
use super::settings::Settings;

/// Waits between attempts. What takes longer is the sink's own backoff.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

type Result<T> = std::result::Result<T, S3Error>;

/// A file's bucket and key.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    signer: Signer<Credential>,
    settings: Settings,
}

/// What is asked.
struct Ask<'a> {
    operation: &'static str,
    method: Method,
    query: &'a str,
    range: Option<std::ops::Range<u64>>,
    body: Bytes,
    /// Whether it may be asked again.
    again: bool,
}

impl Ask<'_> {
    fn new(operation: &'static str, method: Method) -> Self {
        Self { operation, method, query: "", range: None, body: Bytes::new(), again: true }
    }
}

/// What came back.
struct Reply {
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    pub(super) fn new(settings: Settings, connections: Connections) -> Self {
        let Connections { files: http, keys } = connections;
        Self { http, signer: signer(&settings, keys), settings }
    }

    /// A file, or a part of it.
    pub(super) async fn get(
        &self,
        place: &Place,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Bytes> {
        let expected = range.as_ref().map(|range| range.end.saturating_sub(range.start));
        let ask = Ask { range, ..Ask::new("GetObject", Method::GET) };
        let body = self.ask(place, &ask).await?.body;
        if expected.is_some_and(|expected| expected != body.len() as u64) {
            let cause = Cause::Malformed("the answer is not as long as the part asked for");
            return Err(self.error("GetObject", place, cause));
        }
        Ok(body)
    }

    /// Length of a file; `None` where there is none.
    pub(super) async fn length(&self, place: &Place) -> Result<Option<u64>> {
        let reply = match self.ask(place, &Ask::new("HeadObject", Method::HEAD)).await {
            Ok(reply) => reply,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = reply.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|text| text.parse().ok());
        let malformed = || Cause::Malformed("the answer has no length");
        length.map(Some).ok_or_else(|| self.error("HeadObject", place, malformed()))
    }

    pub(super) async fn put(&self, place: &Place, body: Bytes) -> Result<()> {
        let ask = Ask { body, ..Ask::new("PutObject", Method::PUT) };
        self.ask(place, &ask).await.map(drop)
    }

    pub(super) async fn delete(&self, place: &Place) -> Result<()> {
        match self.ask(place, &Ask::new("DeleteObject", Method::DELETE)).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Begins a file that comes in parts, and gives the id of that.
    pub(super) async fn begin(&self, place: &Place) -> Result<String> {
        let operation = "CreateMultipartUpload";
        let ask = Ask { query: "uploads=", ..Ask::new(operation, Method::POST) };
        let reply = self.ask(place, &ask).await?;
        let id = element(&String::from_utf8_lossy(&reply.body), "UploadId");
        let malformed = || Cause::Malformed("the answer has no id of the upload");
        id.ok_or_else(|| self.error(operation, place, malformed()))
    }

    /// Brings a part, and gives its tag.
    pub(super) async fn part(
        &self,
        place: &Place,
        upload: &str,
        number: usize,
        body: Bytes,
    ) -> Result<String> {
        let query = format!("partNumber={number}&uploadId={}", encoded_part(upload));
        let ask = Ask { query: &query, body, ..Ask::new("UploadPart", Method::PUT) };
        let reply = self.ask(place, &ask).await?;
        let tag = reply.headers.get("etag").and_then(|tag| tag.to_str().ok());
        let malformed = || Cause::Malformed("the answer has no tag of the part");
        tag.map(str::to_owned).ok_or_else(|| self.error("UploadPart", place, malformed()))
    }

    /// Makes the parts a file.
    pub(super) async fn complete(
        &self,
        place: &Place,
        upload: &str,
        tags: &[String],
    ) -> Result<()> {
        let parts = tags.iter().zip(1..).map(|(tag, number)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        });
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}\
             </CompleteMultipartUpload>",
            parts.collect::<String>()
        );
        let query = format!("uploadId={}", encoded_part(upload));
        let operation = "CompleteMultipartUpload";
        // Asked again it knows no such upload.
        let ask = Ask {
            query: &query,
            body: body.into(),
            again: false,
            ..Ask::new(operation, Method::POST)
        };
        let reply = self.ask(place, &ask).await?;
        // It begins its answer before it knows how it ends.
        let text = String::from_utf8_lossy(&reply.body);
        if text.contains("<Error>") {
            let answer = Answer::new(StatusCode::INTERNAL_SERVER_ERROR, None, &text);
            return Err(self.error(operation, place, Cause::Answer(answer)));
        }
        Ok(())
    }

    /// Gives up what was begun.
    pub(super) async fn abort(&self, place: &Place, upload: &str) -> Result<()> {
        let query = format!("uploadId={}", encoded_part(upload));
        let ask = Ask { query: &query, ..Ask::new("AbortMultipartUpload", Method::DELETE) };
        self.ask(place, &ask).await.map(drop)
    }

    fn error(&self, operation: &'static str, place: &Place, cause: Cause) -> S3Error {
        let what = format!("s3://{}/{}", place.bucket, place.key);
        S3Error::new(operation, what, self.settings.place(), cause)
    }

    async fn ask(&self, place: &Place, ask: &Ask<'_>) -> Result<Reply> {
        let mut waits = WAITS.iter().filter(|_| ask.again);
        loop {
            let cause = match self.ask_once(place, ask).await {
                Ok(reply) => return Ok(reply),
                Err(cause) => cause,
            };
            let passes = match &cause {
                Cause::Answer(answer) => answer.is_passing(),
                Cause::Unreachable(_) => true,
                Cause::NoKeys(_) | Cause::Malformed(_) => false,
            };
            let Some(wait) = waits.next().filter(|_| passes) else {
                return Err(self.error(ask.operation, place, cause));
            };
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn ask_once(&self, place: &Place, ask: &Ask<'_>) -> std::result::Result<Reply, Cause> {
        let request = self.signed(place, ask).await?;
        let failed = |error: reqwest::Error| Cause::Unreachable(cdc_shared::http::cause(&error));
        let answer = self.http.execute(request).await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(Reply { headers, body });
        }
        let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let region = region.map(str::to_owned);
        Err(Cause::Answer(Answer::new(status, region, &String::from_utf8_lossy(&body))))
    }

    async fn signed(
        &self,
        place: &Place,
        ask: &Ask<'_>,
    ) -> std::result::Result<reqwest::Request, Cause> {
        let mut url = self.settings.url(&place.bucket, &place.key);
        if !ask.query.is_empty() {
            url = format!("{url}?{}", ask.query);
        }
        let request = http::Request::builder().method(&ask.method).uri(url).body(ask.body.clone());
        let request = request.map_err(|_| Cause::Malformed("the address cannot be asked"))?;
        let (mut parts, body) = request.into_parts();
        let hash = cdc_shared::hex::encode(&Sha256::digest(&body));
        let text = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| Cause::Malformed("a header cannot be written"))
        };
        parts.headers.insert("x-amz-content-sha256", text(hash)?);
        if let Some(range) = &ask.range {
            let last = range.end.saturating_sub(1);
            parts.headers.insert(RANGE, text(format!("bytes={}-{last}", range.start))?);
        }
        let signed = self.signer.sign(&mut parts, None).await;
        signed.map_err(|error| Cause::NoKeys(error.to_string()))?;
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body));
        request.map_err(|_| Cause::Malformed("the address cannot be asked"))
    }
}

/// The text of an element that occurs once.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    Some(plain.replace("&amp;", "&"))
}
