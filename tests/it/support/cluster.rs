//! A cluster of three brokers, and a database server, that belong to one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::servers::{Servers, blocking};

/// How its nodes are called.
pub(crate) const NODES: [usize; 3] = [1, 2, 3];

/// What a node gives up in after so many seconds of silence: clients must notice a hung node too.
const HEARTBEAT_S: u32 = 5;

/// The cluster; gone when dropped.
pub(crate) struct Cluster {
    folder: Folder,
    /// Where senders reach the nodes, in the order of [`NODES`].
    pub urls: Vec<String>,
    database: String,
    admin: String,
}

struct Folder(TempDir);

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = Folder(tempfile::Builder::new().prefix("kl-it-").tempdir().unwrap());
        let path = folder.path();
        let exports = blocking(move || {
            script(&["start"], &path);
            script(&["env"], &path)
        })
        .await;
        let read = |name: &str| {
            let line =
                exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("cluster.sh says nothing of {name}")).to_owned()
        };
        let urls = NODES.map(|node| {
            let url = read(&format!("AMQP_URL_{node}"));
            format!("{url}?heartbeat={HEARTBEAT_S}")
        });
        let (database, admin) = (read("DATABASE_URL"), read("DATABASE_ADMIN_URL"));
        Self { folder, urls: urls.into(), database, admin }
    }

    /// The servers as whoever knows one node sees them.
    pub(crate) fn servers(&self, node: usize) -> Servers {
        let (database, admin) = (self.database.clone(), self.admin.clone());
        Servers { amqp: self.url(node).to_owned(), amqps: String::new(), database, admin }
    }

    pub(crate) fn url(&self, node: usize) -> &str {
        &self.urls[node - 1]
    }

    /// `kill`, `restart`, `hang`, `wake`, `cut` or `heal`. It is done when this returns.
    pub(crate) async fn run(&self, command: &'static str, node: usize) {
        let path = self.folder.path();
        eprintln!("{command} node {node}");
        blocking(move || script(&[command, &node.to_string()], &path)).await;
    }

    /// The node that leads a queue.
    pub(crate) async fn leader(&self, queue: String) -> usize {
        let path = self.folder.path();
        blocking(move || script(&["leader", &queue], &path)).await.trim().parse().unwrap()
    }
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let stopped = command(&["stop", "--wipe"], self.0.path()).status();
        if !stopped.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the cluster in {} was not stopped: {stopped:?}", self.0.path().display());
        }
    }
}

fn command(words: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh"));
    command.args(words).arg(dir).stdin(Stdio::null());
    command
}

fn script(words: &[&str], dir: &Path) -> String {
    let output = command(words, dir).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cluster.sh {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
