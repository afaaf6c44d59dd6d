//! A worker as a child process: the program that users run, with its settings in a file.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::broker::PREFIX;

/// The program.
const KEYLANE: &str = env!("CARGO_BIN_EXE_keylane");
/// Longest wait for anything.
const WAIT_MAX: Duration = Duration::from_mins(2);
/// How often is looked whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where its servers are.
pub(crate) struct Site {
    pub(crate) amqp: String,
    pub(crate) database: String,
    pub(crate) partitions: i32,
}

impl Site {
    /// Brings the database up to date.
    pub(crate) async fn migrate(&self) -> anyhow::Result<()> {
        let (folder, _) = self.settings().await?;
        let mut command = keylane(&folder, "migrate");
        let migrated = command.stdout(Stdio::null()).status().context("run keylane")?;
        ensure!(migrated.success(), "keylane migrate failed");
        Ok(())
    }

    /// Starts a worker.
    pub(crate) async fn start(&self) -> anyhow::Result<Worker> {
        self.start_as("worker").await
    }

    /// Starts what serves, by its command.
    pub(crate) async fn start_as(&self, command: &str) -> anyhow::Result<Worker> {
        let (folder, address) = self.settings().await?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut command = keylane(&folder, command);
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        Ok(Worker { child: child.context("start keylane")?, address, folder })
    }

    /// A folder with settings, and the address that they listen on.
    async fn settings(&self) -> anyhow::Result<(TempDir, String)> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let Self { amqp, database, partitions } = self;
        let settings = format!(
            "[amqp]\nurl = {amqp:?}\nprefix = {PREFIX:?}\npartitions = {partitions}\n\
             [database]\nurl = {database:?}\n\
             [http]\nlisten = {address:?}\n\
             [entities.customer]\ntable = \"public.customers\"\nkey = [\"external_id\"]\n\
             version = \"version\"\noccurred_at = \"source_updated_at\"\n"
        );
        std::fs::write(folder.path().join("keylane.toml"), settings)?;
        Ok((folder, address))
    }
}

fn keylane(folder: &TempDir, command: &str) -> Command {
    let mut keylane = Command::new(KEYLANE);
    keylane.arg("--config").arg(folder.path().join("keylane.toml")).arg(command);
    keylane
}

/// A running worker; killed when it is dropped.
pub(crate) struct Worker {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Worker {
    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it has subscribed to every partition.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        self.until(
            |worker| async move { Ok(worker.get("/readyz").await?.starts_with("HTTP/1.1 200")) },
        )
        .await
    }

    /// Waits until so many writes have an outcome.
    pub(crate) async fn settled(&mut self, writes: u64) -> anyhow::Result<()> {
        self.until(|worker| async move { Ok(worker.outcomes().await? >= writes) }).await
    }

    async fn until<'a, Looking>(
        &'a mut self,
        look: impl Fn(&'a Self) -> Looking,
    ) -> anyhow::Result<()>
    where
        Looking: Future<Output = anyhow::Result<bool>> + 'a,
    {
        if let Some(status) = self.child.try_wait()? {
            bail!("the worker has ended, {status}:\n{}", self.log());
        }
        let worker = &*self;
        let deadline = Instant::now() + WAIT_MAX;
        while !look(worker).await.unwrap_or(false) {
            ensure!(Instant::now() < deadline, "the worker is not done in time:\n{}", worker.log());
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn outcomes(&self) -> anyhow::Result<u64> {
        let page = self.get("/metrics").await?;
        let counts = page.lines().filter(|line| line.starts_with("keylane_writes_total"));
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let asking = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            let ask = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
            stream.write_all(ask.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        timeout(Duration::from_secs(5), asking).await?
    }

    /// A field of its status in MiB: `VmRSS`, its memory, or `VmHWM`, the most that it ever had.
    pub(crate) fn memory_mib(&self, field: &str) -> anyhow::Result<f64> {
        let pid = self.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB")).context("find it")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    /// Stops it as an orchestrator would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = timeout(WAIT_MAX, self.ended()).await??;
        ensure!(status.success(), "the worker ended with {status}:\n{}", self.log());
        Ok(())
    }

    async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
