//! Connections, TLS, and what every request carries.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_shared::config::{HttpMethod, Secret, TlsConfig, WebhookConfig};
use cdc_worker::sink::webhook::WebhookSink;
use cdc_worker::sink::{Disposition, Sink};
use hmac::{Hmac, Mac};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::driver::{Driver, QUICK, config};
use super::receiver::{Answer, Delivery, Receiver};

#[tokio::test]
async fn a_receiver_that_does_not_run_yet_is_waited_for() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let nobody = Receiver::start(|_| Answer::Status(500)).await;
    let sink = WebhookSink::new(&config(&format!("http://{address}/hook"))).unwrap();
    let error = sink.prove().await.unwrap_err();
    assert_eq!(error.code, "connection_refused");
    assert_eq!(error.disposition, Disposition::Retry(None));
    let mut early = Driver::on(&sink, &nobody, 0, QUICK);
    early.push_all(0..50, 50);
    early.until("refused", |driver| driver.trouble.borrow().is_some()).await;
    let trouble = early.trouble.borrow().clone().unwrap();
    assert_eq!(trouble.code, "connection_refused");
    assert!(trouble.message.contains(&address.to_string()), "{}", trouble.message);
    assert!(!trouble.message.contains("/hook"), "{}", trouble.message);

    let listener = TcpListener::bind(address).await.unwrap();
    let receiver = Receiver::serve(listener, address, |_| Answer::Status(200));
    early.follow(&receiver);
    early.until_durable(50).await;
    early.check_order();
    sink.prove().await.unwrap();
    assert_eq!(receiver.deliveries().len(), 50, "a proof is not a request");
}

fn verifies(delivery: &Delivery, secret: &str) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let id = delivery.header("webhook-id");
    let timestamp = delivery.header("webhook-timestamp");
    delivery.header("webhook-signature").split(' ').any(|signature| {
        let mac = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        let mut own = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        own.update(format!("{id}.{timestamp}.").as_bytes());
        own.update(&delivery.body);
        own.verify_slice(&mac).is_ok()
    })
}

#[tokio::test]
async fn a_receiver_with_either_secret_verifies_what_it_got() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let secrets = [7_u8, 8].map(|byte| format!("whsec_{}", STANDARD.encode([byte; 32])));
    let mut config = config(&receiver.url());
    config.method = HttpMethod::Put;
    config.signing_secrets = secrets.iter().map(|secret| Secret::from(secret.as_str())).collect();
    config.auth_token = Some(Secret::from("t0ken"));
    config.headers.insert("X-Source".to_owned(), Secret::from("cdc-platform"));
    let sink = WebhookSink::new(&config).unwrap();
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.push_all(0..3, 3);
    driver.until_durable(3).await;
    for delivery in receiver.deliveries() {
        assert!(secrets.iter().all(|secret| verifies(&delivery, secret)));
        assert!(!verifies(&delivery, &format!("whsec_{}", STANDARD.encode([9; 32]))));
        assert_eq!(delivery.method, "PUT");
        assert_eq!(delivery.header("authorization"), "Bearer t0ken");
        assert_eq!(delivery.header("x-source"), "cdc-platform");
        assert!(delivery.header("webhook-id").starts_with("evt_"));
        assert_eq!(delivery.header("accept-encoding"), "");
    }
}

/// Accepts TLS connections with a certificate for `localhost`.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A receiver with a certificate of its own authority, and that authority as PEM.
async fn tls_receiver() -> (Receiver, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca_params = CertificateParams::new(Vec::new()).unwrap();
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca_params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca_params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(server));
    let listener = TlsListener { tcp, acceptor };
    (Receiver::serve(listener, address, |_| Answer::Status(200)), ca.pem())
}

fn tls_config(host: &str, receiver: &Receiver, tls: TlsConfig) -> WebhookConfig {
    WebhookConfig { tls, ..config(&format!("https://{host}:{}/", receiver.address.port())) }
}

#[tokio::test]
async fn a_receiver_with_its_own_authority_is_believed_when_told() {
    let (receiver, ca) = tls_receiver().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let tls = TlsConfig { ca_file: Some(ca_file), ..TlsConfig::default() };
    let sink = WebhookSink::new(&tls_config("localhost", &receiver, tls.clone())).unwrap();
    sink.prove().await.unwrap();
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.push_all(0..20, 5);
    driver.until_durable(20).await;
    driver.check_order();

    for strange in [
        tls_config("localhost", &receiver, TlsConfig::default()),
        tls_config("127.0.0.1", &receiver, tls),
    ] {
        let sink = WebhookSink::new(&strange).unwrap();
        assert_eq!(sink.prove().await.unwrap_err().code, "tls");
        let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
        driver.push(100, "k");
        driver.until("trouble", |driver| driver.trouble.borrow().is_some()).await;
        let trouble = driver.trouble.borrow().clone().unwrap();
        assert_eq!(trouble.code, "tls", "{}", trouble.message);
    }
    assert_eq!(receiver.deliveries().len(), 20);
}

#[tokio::test]
async fn a_name_that_leads_home_is_refused_when_private_addresses_are() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let config = WebhookConfig { allow_private: false, ..config(&url) };
    let sink = WebhookSink::new(&config).unwrap();
    assert_eq!(sink.prove().await.unwrap_err().code, "address");
    let mut driver = Driver::on(&sink, &receiver, 0, QUICK);
    driver.push(0, "k");
    driver.until("trouble", |driver| driver.trouble.borrow().is_some()).await;
    let trouble = driver.trouble.borrow().clone().unwrap();
    assert_eq!(trouble.code, "address", "{}", trouble.message);
    assert!(receiver.deliveries().is_empty());
}
