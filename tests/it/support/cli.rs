//! Commands of the built binary, beside a test's workers.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::Scene;
use super::servers::blocking;

/// How often it is looked whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The commands of one scene.
pub(crate) struct Cli {
    dir: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
}

impl Cli {
    pub(crate) fn new(scene: &Scene) -> Self {
        let cli = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(cli.dir.path().join("keylane.toml"), scene.config()).unwrap();
        cli
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keylane"));
        command.arg("--config").arg(self.dir.path().join("keylane.toml")).args(args);
        command.env("KEYLANE_OPERATOR", "tester").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        said(&blocking(move || command.output().unwrap()).await)
    }

    /// The same with settings over those of the file, as [`super::Worker::spawn`] takes them.
    pub(crate) async fn run_set(&self, args: &[&str], settings: &[(&str, &str)]) -> Said {
        let mut command = self.command(args);
        for (path, value) in settings {
            let name = path.replace('.', "__").to_uppercase();
            command.env(format!("KEYLANE__{name}"), value);
        }
        said(&blocking(move || command.output().unwrap()).await)
    }

    /// Starts a command; what it says can be read when it has ended.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        Running(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }
}

impl Said {
    /// It must have ended like this.
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.error, self.out);
        self
    }

    /// Standard output as a list.
    pub(crate) fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// A command that runs; killed when dropped.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success(), "SIG{signal} did not reach the command");
    }

    /// Waits for its end, for so long; whether it came.
    pub(crate) async fn ends_within(&mut self, life: Duration) -> bool {
        let end = Instant::now() + life;
        while Instant::now() < end {
            if self.0.as_mut().unwrap().try_wait().unwrap().is_some() {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Said {
        let child = self.0.take().unwrap();
        said(&blocking(move || child.wait_with_output().unwrap()).await)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn said(output: &Output) -> Said {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) }
}
