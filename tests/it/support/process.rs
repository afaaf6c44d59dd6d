//! Processes of the built binary: started, signalled, and never left behind.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{http, wait};

/// How long a process may take to become ready.
const READY_MAX: Duration = Duration::from_mins(1);
/// Lines of the log that a failing test prints.
const LOG_LINES_SHOWN: usize = 60;

/// The name of its settings file.
const SETTINGS: &str = "keylane.toml";

/// A long-running process: `worker`, `ingress` or `run`.
pub(crate) struct Process {
    child: Child,
    pub port: u16,
    log: PathBuf,
    dir: TempDir,
}

/// A worker process.
pub(crate) type Worker = Process;

impl Process {
    /// Starts a worker; does not wait for anything. `settings` are `section.field` and value;
    /// those of OpenTelemetry have its own names.
    pub(crate) fn spawn(config: &str, settings: &[(&str, &str)]) -> Self {
        Self::spawn_command("worker", config, settings)
    }

    /// The same with another command.
    pub(crate) fn spawn_command(name: &str, config: &str, settings: &[(&str, &str)]) -> Self {
        Self::spawn_program(env!("CARGO_BIN_EXE_keylane"), name, config, settings)
    }

    /// The same with another program, of an older version.
    pub(crate) fn spawn_program(
        program: &str,
        name: &str,
        config: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join(SETTINGS), dir.path().join("log"));
        fs::write(&file, config).unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        command.arg("--config").arg(&file).arg(name);
        command.env("KEYLANE__HTTP__LISTEN", format!("127.0.0.1:{port}"));
        for (path, value) in settings {
            if path.starts_with("OTEL_") {
                command.env(path, value);
                continue;
            }
            let name = path.replace('.', "__").to_uppercase();
            command.env(format!("KEYLANE__{name}"), value);
        }
        let output = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap();
        Self { child, port, log, dir }
    }

    /// Puts other settings into its file; it does not look there by itself.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.dir.path().join(SETTINGS), config).unwrap();
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(mut self) -> Self {
        let end = Instant::now() + READY_MAX;
        loop {
            match self.get("/readyz").await {
                Some((200, _)) => return self,
                answer => assert!(Instant::now() < end, "never ready: {answer:?}"),
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the process ended ({ended:?}) before it was ready");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body of a page; `None` while nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.port, path).await
    }

    /// The value of a series of the page for monitoring; `None` while nobody answers, or without it.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let page = self.get("/metrics").await?.1;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// A field of `/proc/PID/status` in kB, for example `VmHWM`, the most memory it ever held.
    pub(crate) fn status_kb(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many file descriptors it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Sends a signal, for example `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success(), "SIG{signal} did not reach the process");
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end; the exit code.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        let mut code = None;
        wait::until(READY_MAX, "the process has ended", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code().unwrap_or_else(|| panic!("a signal ended the process: {code:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("--- process {}:\n{}", self.child.id(), lines[tail..].join("\n"));
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
