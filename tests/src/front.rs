//! A door with TLS in front of a service, whose certificate is whatever a test wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a door shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A certificate for `localhost`.
    Right,
    /// One that was for `localhost` until 2021.
    Expired,
    /// One for another host.
    OfAnother,
}

/// How a client gets to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// It begins with it.
    Tls,
    /// It asks for it as `PostgreSQL`'s do.
    Postgres,
    /// It asks for it as MySQL's do.
    Mysql,
}

/// An authority of a test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub file: PathBuf,
}

impl Authority {
    /// Writes its certificate into this folder.
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = folder.join("authority.pem");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn acceptor(&self, shown: Shown) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let host = if shown == Shown::OfAnother { "elsewhere.example" } else { "localhost" };
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        if shown == Shown::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(server))
    }

    /// Opens a door in front of a port on loopback; gives its own.
    pub async fn door(&self, to: u16, spoken: Spoken, shown: Shown) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = self.acceptor(shown);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to, spoken, acceptor.clone()));
            }
        });
        port
    }
}

/// A door to nobody is closed behind whoever comes in.
async fn pass(mut client: TcpStream, to: u16, spoken: Spoken, acceptor: TlsAcceptor) -> Option<()> {
    match spoken {
        Spoken::Tls => {}
        Spoken::Postgres => {
            // SSLRequest: eight bytes.
            client.read_exact(&mut [0; 8]).await.ok()?;
            client.write_all(b"S").await.ok()?;
        }
        Spoken::Mysql => {
            greet(&mut client).await?;
            // SSLRequest: a packet of 32 bytes.
            client.read_exact(&mut [0; 36]).await.ok()?;
        }
    }
    let mut inside = acceptor.accept(client).await.ok()?;
    let mut service = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
    join(&mut inside, &mut service).await
}

async fn join(
    inside: &mut (impl AsyncRead + AsyncWrite + Unpin),
    service: &mut TcpStream,
) -> Option<()> {
    copy_bidirectional(inside, service).await.ok().map(drop)
}

/// The greeting of a MySQL 8 that speaks TLS.
async fn greet(client: &mut TcpStream) -> Option<()> {
    let mut body = vec![10];
    body.extend_from_slice(b"8.4.0\0");
    body.extend_from_slice(&7_u32.to_le_bytes());
    body.extend_from_slice(b"abcdefgh\0");
    // Long passwords, protocol 4.1, TLS, transactions, secure connections, plugins of passwords.
    let capabilities: u32 = 0x0001 | 0x0200 | 0x0800 | 0x2000 | 0x8000 | 0x0008_0000;
    body.extend_from_slice(&(capabilities as u16).to_le_bytes());
    body.push(45);
    body.extend_from_slice(&2_u16.to_le_bytes());
    body.extend_from_slice(&((capabilities >> 16) as u16).to_le_bytes());
    body.push(21);
    body.extend_from_slice(&[0; 10]);
    body.extend_from_slice(b"ijklmnopqrst\0");
    body.extend_from_slice(b"caching_sha2_password\0");
    let mut packet = (body.len() as u32).to_le_bytes().to_vec();
    packet.extend_from_slice(&body);
    client.write_all(&packet).await.ok()
}
