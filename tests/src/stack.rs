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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
