//! The keys that requests are signed with: those of the configuration or the catalog, else what the
//! environment and AWS's chain have (profile, SSO, web identity, container, machine).

use bytes::Bytes;
use cdc_shared::config::process_variables;
use reqsign_aws_v4::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{Context, Error, FileRead, HttpSend, Result, Signer, StaticEnv};

use super::settings::Settings;

pub(super) fn signer(settings: &Settings, services: reqwest::Client) -> Signer<Credential> {
    let builder = RequestSigner::new("s3", &settings.region);
    let variables = process_variables();
    let home_dir = variables.get("HOME").map(Into::into);
    let environment = StaticEnv { home_dir, envs: variables.into_iter().collect() };
    let context = Context::new()
        .with_env(environment)
        .with_file_read(Files)
        .with_http_send(Services(services));
    match &settings.keys {
        Some(keys) => {
            let given = StaticCredentialProvider::new(keys.id.expose(), keys.secret.expose());
            let given = match &keys.session {
                Some(session) => given.with_session_token(session.expose()),
                None => given,
            };
            Signer::new(context, given, builder)
        }
        None => Signer::new(context, DefaultCredentialProvider::new(), builder),
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        tokio::fs::read(path).await.map_err(|error| Error::unexpected(format!("{path}: {error}")))
    }
}

#[derive(Debug)]
struct Services(reqwest::Client);

impl HttpSend for Services {
    async fn http_send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let failed = |error: reqwest::Error| Error::unexpected(cdc_shared::http::cause(&error));
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let answer = self.0.execute(request).await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut response = http::Response::new(answer.bytes().await.map_err(failed)?);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
