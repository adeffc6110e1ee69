//! A private PostgreSQL cluster: its own data folder, port, password and certificates.
//!
//! A guardian shell waits on a pipe from this process and stops the cluster when the process is
//! gone, however it went.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc_shared::config::{Secret, SourceConfig};

use tokio_postgres::{Client, NoTls};

/// The superuser's password.
pub(crate) const PASSWORD: &str = "p@ss 'word";

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Port on localhost.
    pub(crate) port: u16,
    /// PEM file of the authority that signed the server's certificate (for `localhost`).
    pub(crate) ca_file: PathBuf,
    bin: PathBuf,
    data: PathBuf,
    account: Option<(u32, u32)>,
    /// Closing it ends the cluster.
    #[expect(dead_code, reason = "held open, never written")]
    alive: ChildStdin,
}

impl Cluster {
    /// The cluster that tests share; each makes its own database in it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Starts a cluster with additional settings (`name=value`).
    pub(crate) fn start(settings: &[&str]) -> Self {
        let bin = newest_installation();
        let root = tempfile::Builder::new().prefix("cdc-postgres-").tempdir().unwrap().keep();
        let account = account();
        if let Some((user, group)) = account {
            chown(&root, Some(user), Some(group)).unwrap();
        }
        let data = root.join("data");
        let port = free_port();
        let password = root.join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some((user, group)) = account {
            chown(&password, Some(user), Some(group)).unwrap();
        }
        run(as_owner(&bin.join("initdb"), account)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(&data));
        let ca_file = certificates(&root, &data, account);
        let cluster = Self {
            port,
            ca_file,
            alive: guardian(&bin, &root, &data, account),
            bin,
            data,
            account,
        };
        cluster.write_settings(&root, settings);
        cluster.control("start");
        cluster
    }

    fn write_settings(&self, root: &Path, settings: &[&str]) {
        let mut text = format!(
            "port = {}\nlisten_addresses = 'localhost'\nunix_socket_directories = '{}'\n\
             ssl = on\nfsync = off\nmax_connections = 200\n",
            self.port,
            root.display()
        );
        for setting in settings {
            text.push_str(setting);
            text.push('\n');
        }
        let mut file =
            fs::OpenOptions::new().append(true).open(self.data.join("postgresql.conf")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Stops the server without a checkpoint, as a crash would, and starts it again.
    pub(crate) fn crash_and_restart(&self) {
        self.control("stop");
        self.control("start");
    }

    fn control(&self, action: &str) {
        run(as_owner(&self.bin.join("pg_ctl"), self.account)
            .args([action, "--wait", "--silent", "--timeout=60"])
            .args((action == "stop").then_some("--mode=immediate"))
            .arg(format!("--pgdata={}", self.data.display()))
            .args((action == "start").then(|| format!("--log={}/log", self.data.display()))));
    }

    /// A connection of an administrator, past every proxy.
    pub(crate) async fn admin(&self, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .port(self.port)
            .user("postgres")
            .password(PASSWORD)
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Makes an empty database and gives its name and a connection to it.
    pub(crate) async fn database(&self) -> (String, Client) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = self.admin("postgres").await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let client = self.admin(&name).await;
        (name, client)
    }

    /// A database of this server as the source of a pipeline.
    pub(crate) fn as_source(&self, database: String) -> SourceConfig {
        SourceConfig {
            host: "localhost".into(),
            port: self.port,
            database,
            username: "postgres".into(),
            password: Secret::from(PASSWORD),
            ..SourceConfig::default()
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn newest_installation() -> PathBuf {
    let version = |path: &PathBuf| {
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok())
    };
    let installed = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = installed.map(|entry| entry.unwrap().path()).max_by_key(version);
    newest.expect("PostgreSQL is installed").join("bin")
}

/// Who runs the server: it refuses root.
fn account() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}

fn as_owner(program: &Path, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a command to its end; the server that `pg_ctl` leaves behind must not hold a pipe of ours,
/// so the output goes to a file.
fn run(command: &mut Command) {
    let mut output = tempfile::tempfile().unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
    let status = command.status().unwrap();
    if !status.success() {
        use std::io::Seek;
        let mut text = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        panic!("{command:?}: {status}\n{text}");
    }
}

fn guardian(bin: &Path, root: &Path, data: &Path, account: Option<(u32, u32)>) -> ChildStdin {
    let script = format!(
        "trap '' INT TERM; while read -r _; do :; done; \
         '{}/pg_ctl' stop --wait --silent --mode=immediate --pgdata='{}'; rm -rf '{}'",
        bin.display(),
        data.display(),
        root.display()
    );
    let mut shell = Command::new("sh");
    if let Some((user, group)) = account {
        shell.uid(user).gid(group);
    }
    shell.current_dir("/").args(["-c", &script]).stdin(Stdio::piped());
    shell.stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap().stdin.take().unwrap()
}

/// An authority, and a server certificate of it for `localhost`.
fn certificates(root: &Path, data: &Path, account: Option<(u32, u32)>) -> PathBuf {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = root.join("ca.crt");
    let ca_key = root.join("ca.key");
    run(as_owner(Path::new("openssl"), account)
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=test authority"])
        .args(key)
        .arg("-keyout")
        .arg(&ca_key)
        .arg("-out")
        .arg(&ca));
    run(as_owner(Path::new("openssl"), account)
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(key)
        .arg("-CA")
        .arg(&ca)
        .arg("-CAkey")
        .arg(&ca_key)
        .arg("-keyout")
        .arg(data.join("server.key"))
        .arg("-out")
        .arg(data.join("server.crt")));
    ca
}
