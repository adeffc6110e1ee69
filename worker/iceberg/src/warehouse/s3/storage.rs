//! S3 as the crate `iceberg` has its storages.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::SCHEMES;
use super::client::{Client, Place};
use super::error::S3Error;

/// A file is brought in parts of so many bytes, if it is longer.
const PART: usize = 16 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct S3Storage(Arc<Client>);

impl S3Storage {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(client))
    }
}

/// Gives a storage that is there already.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Factory(pub(super) S3Storage);

#[typetag::serde(name = "CdcS3Factory")]
impl StorageFactory for Factory {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// The crate sends storages to other machines, this program does not: it has keys in it.
const STAYS: &str = "a storage stays in its process";

impl Serialize for S3Storage {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(ser::Error::custom(STAYS))
    }
}

impl<'de> Deserialize<'de> for S3Storage {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(de::Error::custom(STAYS))
    }
}

fn failed(error: S3Error) -> Error {
    Error::new(ErrorKind::Unexpected, "S3").with_source(error)
}

fn place(path: &str) -> Result<Place> {
    let parts = path.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme));
    let parts = parts.and_then(|(_, rest)| rest.split_once('/'));
    match parts {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
            Ok(Place { bucket: bucket.to_owned(), key: key.to_owned() })
        }
        _ => Err(Error::new(ErrorKind::DataInvalid, format!("{path} is no file of S3"))),
    }
}

#[async_trait]
#[typetag::serde(name = "CdcS3")]
impl Storage for S3Storage {
    async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.0.length(&place(path)?).await.map_err(failed)?.is_some())
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        match self.0.length(&place(path)?).await.map_err(failed)? {
            Some(size) => Ok(FileMetadata { size }),
            None => Err(Error::new(ErrorKind::DataInvalid, format!("{path} is not there"))),
        }
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        self.0.get(&place(path)?, None).await.map_err(failed)
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { client: self.0.clone(), place: place(path)? }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let mut writer = self.writer(path).await?;
        writer.write(bytes).await?;
        writer.close().await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (client, place) = (self.0.clone(), place(path)?);
        Ok(Box::new(Writer { client, place, open: BytesMut::new(), upload: None }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.0.delete(&place(path)?).await.map_err(failed)
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let message = format!("{path}: files are removed one by one");
        Err(Error::new(ErrorKind::FeatureUnsupported, message))
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    client: Arc<Client>,
    place: Place,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.client.get(&self.place, Some(range)).await.map_err(failed)
    }
}

/// A file on its way. It is there when it is closed, all of it.
struct Writer {
    client: Arc<Client>,
    place: Place,
    open: BytesMut,
    upload: Option<Upload>,
}

/// A file that comes in parts.
struct Upload {
    id: String,
    tags: Vec<String>,
}

impl Writer {
    async fn bring(&mut self, part: Bytes) -> std::result::Result<(), S3Error> {
        if self.upload.is_none() {
            let id = self.client.begin(&self.place).await?;
            self.upload = Some(Upload { id, tags: Vec::new() });
        }
        if let Some(upload) = &mut self.upload {
            let number = upload.tags.len() + 1;
            let tag = self.client.part(&self.place, &upload.id, number, part).await?;
            upload.tags.push(tag);
        }
        Ok(())
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.open.extend_from_slice(&bytes);
        while self.open.len() > PART {
            let part = self.open.split_to(PART).freeze();
            self.bring(part).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let last = std::mem::take(&mut self.open).freeze();
        if self.upload.is_none() {
            return self.client.put(&self.place, last).await.map_err(failed);
        }
        self.bring(last).await.map_err(failed)?;
        if let Some(upload) = &self.upload {
            let done = self.client.complete(&self.place, &upload.id, &upload.tags).await;
            done.map_err(failed)?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(Upload { id, .. }) = self.upload.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, place) = (self.client.clone(), self.place.clone());
        runtime.spawn(async move {
            if let Err(error) = client.abort(&place, &id).await {
                tracing::debug!(%error, "the parts of a file that was given up are still there");
            }
        });
    }
}
