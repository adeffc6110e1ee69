//! TLS towards the services we call and for those who call us, by rustls with one crypto provider
//! (ring).

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::{ServerTlsConfig, TlsConfig};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("read {what} from {path}: {reason}")]
    File {
        /// CA, certificate or key.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The pieces do not fit.
    #[error("set up TLS: {0}")]
    Setup(String),
}

/// How far a server's certificate is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// Chain and host name (the only safe one).
    Full,
    /// Chain only.
    Chain,
    /// Nothing.
    Nothing,
}

/// Makes ring the process's crypto provider. Called once at the start of every binary; a
/// repetition does no harm.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A client configuration that trusts `ca_file` (or the system's authorities).
///
/// # Errors
/// When a file is unreadable or holds nothing usable.
pub fn client_config(tls: &TlsConfig, verify: Verify) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let verify = if tls.allow_insecure { Verify::Nothing } else { verify };
    let builder = match verify {
        Verify::Full => builder.with_root_certificates(roots(tls.ca_file.as_deref())?),
        Verify::Chain => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainOnly {
                roots: roots(tls.ca_file.as_deref())?,
                provider,
            }))
        }
        Verify::Nothing => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything { provider }))
        }
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("certificate", cert)?, private_key(key)?)
            .map_err(|error| TlsError::Setup(error.to_string())),
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// A server configuration: our certificate, and whose callers must show one.
///
/// # Errors
/// When a file is unreadable or holds nothing usable, or certificate and key do not belong together.
pub fn server_config(tls: &ServerTlsConfig) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(Some(path))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| setup(&error))?)
        }
    };
    builder
        .with_single_cert(certificates("certificate", &tls.cert_file)?, private_key(&tls.key_file)?)
        .map_err(|error| setup(&error))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let certificates = match ca_file {
        Some(path) => certificates("certificate authorities", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(certificates);
    match (added, ca_file) {
        (0, Some(path)) => Err(file_error("certificate authorities", path, &"none found")),
        _ => Ok(store),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(what, path, &error))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file_error("private key", path, &error))
}

fn file_error(what: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { what, path: path.display().to_string(), reason: reason.to_string() }
}

/// Believes a certificate whose chain leads to a known authority, whatever its name
/// (PostgreSQL's `verify-ca`).
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

/// Believes everything (PostgreSQL's `require` and `prefer`, and `allow_insecure`).
#[derive(Debug)]
struct Anything {
    provider: Arc<CryptoProvider>,
}

macro_rules! signature_checks {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, cert, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, cert, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    signature_checks!();
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signature_checks!();
}
