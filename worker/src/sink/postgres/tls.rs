//! TLS towards a PostgreSQL server, by `sslmode` as `libpq` means it.

use std::path::Path;
use std::sync::Arc;

use cdc_shared::config::{PostgresSinkConfig, SslMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// Nothing: encryption against listeners only.
    Anyone,
    /// That a trusted authority signed it.
    Authority,
    /// And that it is for the host that was asked for.
    Host,
}

impl Trust {
    fn of(mode: SslMode, has_ca: bool) -> Self {
        match mode {
            SslMode::Disable | SslMode::Prefer => Self::Anyone,
            // libpq: `require` with a CA file behaves like `verify-ca`.
            SslMode::Require if !has_ca => Self::Anyone,
            SslMode::Require | SslMode::VerifyCa => Self::Authority,
            SslMode::VerifyFull => Self::Host,
        }
    }
}

/// The TLS connector for these settings.
///
/// # Errors
/// A file that cannot be read or holds no certificate or key, by its path.
pub(super) fn connector(config: &PostgresSinkConfig) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    let trust = Trust::of(config.sslmode, config.ssl_ca_file.is_some());
    let inner = match trust {
        Trust::Anyone => None,
        Trust::Authority | Trust::Host => {
            let roots = Arc::new(roots(config.ssl_ca_file.as_deref())?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|why| format!("authorities to trust: {why}"))?;
            Some(verifier)
        }
    };
    let verifier = Arc::new(Verifier { trust, inner, provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let client = match (&config.ssl_cert_file, &config.ssl_key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|why| format!("ssl_cert_file {}: {why}", cert.display()))?,
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("ssl_cert_file and ssl_key_file go together".to_owned()),
    };
    Ok(MakeRustlsConnect::new(client))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|why| format!("{}: {why}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err("the system has no certificate authorities; set ssl_ca_file".to_owned());
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(found) => Ok(found),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|why| format!("{}: {why}", path.display()))
}

/// Checks as much as [`Trust`] says.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is what webpki checks last, so the chain is good when only the name is not.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.trust == Trust::Authority => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
