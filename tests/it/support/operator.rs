//! The command line as an operator uses it.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::Scene;
use super::servers::blocking;

/// The command line, with the settings of a scene.
pub(crate) struct Operator {
    pub dir: TempDir,
}

impl Operator {
    pub(crate) fn new(scene: &Scene) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("keylane.toml"), scene.config()).unwrap();
        Self { dir }
    }

    /// A file of the operator's.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keylane"));
        command.arg("--config").arg(self.dir.path().join("keylane.toml")).args(args);
        command.env("KEYLANE_OPERATOR", "ada").stdin(Stdio::null());
        command.env_remove("VISUAL").env("EDITOR", "sed -i s/many/9/");
        blocking(move || command.output().unwrap()).await
    }

    /// Standard output and standard error of a command that does what it is asked.
    pub(crate) async fn run(&self, args: &[&str]) -> (String, String) {
        let output = self.output(args).await;
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {talk}");
        (String::from_utf8(output.stdout).unwrap(), talk)
    }

    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_str(&self.run(&args).await.0).unwrap()
    }

    /// What a command says that fails with this code.
    pub(crate) async fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.output(args).await;
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {talk}");
        talk
    }
}
