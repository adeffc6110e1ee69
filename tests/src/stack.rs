//! The local stack (`deploy/local`), which must run before the tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the services are: the lines of `stack env`.
#[derive(Debug)]
pub struct Stack {
    values: HashMap<String, String>,
}

impl Stack {
    /// The stack's addresses, from the environment (`CDC_LOCAL_…`) and otherwise from `.local/env`
    /// of the checkout, which `stack up` writes.
    pub fn get() -> &'static Self {
        static STACK: OnceLock<Stack> = OnceLock::new();
        STACK.get_or_init(|| {
            cdc_shared::tls::install_crypto();
            let dir = cdc_shared::config::process_variables()
                .remove("CDC_LOCAL_DIR")
                .map_or_else(|| workspace().join(".local"), PathBuf::from);
            let file = dir.join("env");
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let mut values: HashMap<String, String> = text
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
                .collect();
            let own = cdc_shared::config::process_variables().into_iter();
            values.extend(own.filter(|(name, _)| name.starts_with("CDC_LOCAL_")));
            assert!(
                values.contains_key("CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS"),
                "the local stack's addresses are not known: neither {} nor CDC_LOCAL_* has them; \
                 start it with `deploy/local/stack up`",
                file.display()
            );
            Self { values }
        })
    }

    /// One value, by its name without `CDC_LOCAL_`.
    pub fn value(&self, name: &str) -> &str {
        let full = format!("CDC_LOCAL_{name}");
        self.values.get(&full).unwrap_or_else(|| panic!("the stack's env lacks {full}"))
    }

    /// Whether there is such a value, which an optional part has.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(&format!("CDC_LOCAL_{name}"))
    }

    /// Kafka's plain listener.
    pub fn kafka(&self) -> &str {
        self.value("KAFKA_BOOTSTRAP_SERVERS")
    }

    /// The registry's Confluent interface.
    pub fn registry(&self) -> &str {
        self.value("REGISTRY_URL")
    }

    /// Kafka Connect.
    pub fn connect(&self) -> &str {
        self.value("CONNECT_URL")
    }

    /// PostgreSQL's port on loopback.
    pub fn postgres_port(&self) -> u16 {
        self.value("POSTGRES_PORT").parse().unwrap()
    }
}

/// A broker of a test's own that knows only the classic group protocol, as brokers before Kafka 4
/// do. It ends when this is dropped.
#[derive(Debug)]
pub struct ClassicBroker {
    dir: tempfile::TempDir,
    ports: [u16; 4],
}

impl ClassicBroker {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("cdc-e2e-kafka-").tempdir().unwrap();
        let broker = Self { dir, ports: [(); 4].map(|()| free_port()) };
        broker.stack("up");
        broker
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    fn stack(&self, command: &str) {
        let names = ["KAFKA", "KAFKA_CONTROLLER", "KAFKA_SSL", "KAFKA_SASL_SSL"];
        let ports = names.iter().zip(self.ports);
        let status = std::process::Command::new(workspace().join("deploy/local/stack"))
            .args([command, "kafka"])
            .env("CDC_LOCAL_DIR", self.dir.path())
            .env("CDC_LOCAL_KAFKA_GROUP_PROTOCOLS", "classic")
            .env("CDC_LOCAL_KAFKA_READY_SECONDS", "180")
            .envs(ports.map(|(name, port)| (format!("CDC_LOCAL_{name}_PORT"), port.to_string())))
            .status()
            .unwrap();
        assert!(status.success() || command == "down", "stack {command} kafka: {status}");
    }
}

impl Drop for ClassicBroker {
    fn drop(&mut self) {
        self.stack("down");
    }
}

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A name that no other test and no earlier run has used: short, lower case, letters and digits.
pub fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{name}{:x}{:02x}", now & 0xff_ffff_ffff, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A port that nobody listens on, and that no other test of this process was given.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` such ports in a row. They lie below those that the system gives to
/// connections by itself, which come and go all the time.
pub fn free_ports(count: u16) -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two processes begin at different places.
    let offset = (std::process::id() % u32::from(PORTS)) as u16;
    loop {
        let place = (NEXT.fetch_add(count, Ordering::Relaxed) % PORTS + offset) % PORTS;
        let first = FIRST + place;
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}
