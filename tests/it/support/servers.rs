//! The servers of a test: the runner's, which all tests share, or a pair of its own.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::certificates::Certificates;

/// Addresses of a broker and a database server.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub amqp: String,
    /// The broker's port for TLS, for those who secured it.
    pub amqps: String,
    /// As the role that workers use.
    pub database: String,
    /// As a role that may create databases.
    pub admin: String,
}

impl Servers {
    /// The runner's. Never restarted, stopped or filled by a test.
    pub(crate) fn shared() -> Self {
        let read = |name: &str| {
            env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use scripts/test.sh"))
        };
        let database = read("DATABASE_URL");
        let admin = env::var("DATABASE_ADMIN_URL").unwrap_or_else(|_| database.clone());
        Self { amqp: read("AMQP_URL"), amqps: String::new(), database, admin }
    }
}

/// The broker's major version, as the runner says.
pub(crate) fn broker_version() -> u32 {
    env::var("KEYLANE_BROKER").map_or(3, |version| version.parse().unwrap())
}

/// A virtual host of the shared broker that belongs to one test; gone when dropped.
pub(crate) struct Vhost {
    /// Where the broker's management takes it.
    management: String,
    pub url: String,
}

impl Vhost {
    pub(crate) fn new(name: &str) -> Self {
        let base = env::var("KEYLANE_MANAGEMENT_URL").unwrap();
        let management = format!("{base}/api/vhosts/{name}");
        ureq::put(&management).send_empty().unwrap();
        let mut url: url::Url = Servers::shared().amqp.parse().unwrap();
        url.set_path(name);
        Self { management, url: url.into() }
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        if let Err(error) = ureq::delete(&self.management).call() {
            eprintln!("a virtual host was not deleted: {error}");
        }
    }
}

/// A broker and a database server that belong to one test; gone when dropped.
pub(crate) struct OwnServers {
    dir: Folder,
    /// The broker's management API over TLS, for those who secured it.
    pub managements: String,
    pub servers: Servers,
}

/// The folder that the servers belong to: whatever was started in it is stopped with it, also
/// where the other one did not start.
struct Folder(TempDir);

impl OwnServers {
    pub(crate) async fn start() -> Self {
        let dir = Folder(tempfile::Builder::new().prefix("kl-it-").tempdir().unwrap());
        let path = dir.0.path().to_owned();
        let exports = blocking(move || {
            script("start", &path);
            script("env", &path)
        })
        .await;
        let read = |name: &str| {
            let line =
                exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("servers.sh says nothing of {name}")).to_owned()
        };
        let servers = Servers {
            amqp: read("AMQP_URL"),
            amqps: read("AMQPS_URL"),
            database: read("DATABASE_URL"),
            admin: read("DATABASE_ADMIN_URL"),
        };
        Self { dir, managements: read("KEYLANE_MANAGEMENTS_URL"), servers }
    }

    /// Opens the broker's port for TLS, which wants a certificate of its clients.
    pub(crate) async fn secure_rabbit(&self) -> Certificates {
        let folder = self.dir.0.path().join("certificates");
        let made = blocking(move || Certificates::make(folder)).await;
        self.run("secure-rabbit").await;
        made
    }

    /// `restart-`, `kill-` or `stop-` and `rabbit` or `postgres`; `block-rabbit` and `unblock-rabbit`,
    /// an alarm and its end; `cut-rabbit`, the end of all connections. It is done when this returns.
    pub(crate) async fn run(&self, command: &'static str) {
        let path = self.dir.0.path().to_owned();
        blocking(move || script(command, &path)).await;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers.sh");
        let stopped = Command::new(script)
            .args(["stop", "--wipe"])
            .arg(self.0.path())
            .stdin(Stdio::null())
            .status();
        if !stopped.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("servers in {} were not stopped: {stopped:?}", self.0.path().display());
        }
    }
}

fn script(command: &str, dir: &Path) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers.sh");
    // With Khepri, where there is one and nobody says otherwise: the ring survives a restart.
    let khepri = env::var("KEYLANE_KHEPRI").unwrap_or_else(|_| "1".to_owned());
    let output = Command::new(path)
        .arg(command)
        .arg(dir)
        .env("KEYLANE_KHEPRI", khepri)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "servers.sh {command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs what blocks beside the test, so that its other futures go on.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
