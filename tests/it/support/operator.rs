//! The command line as an operator uses it, who is called ada.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::Scene;
use super::cli::{Cli, Said};

/// Whoever asks and decides.
pub(crate) struct Operator {
    cli: Cli,
    pub dir: TempDir,
}

impl Operator {
    pub(crate) fn new(scene: &Scene) -> Self {
        Self { cli: Cli::new(scene), dir: tempfile::tempdir().unwrap() }
    }

    /// A file of the operator's.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn said(&self, args: &[&str]) -> Said {
        let editor = [("EDITOR", "sed -i s/many/9/"), ("VISUAL", "")];
        self.cli.run_with(args, &[&[("KEYLANE_OPERATOR", "ada")], &editor[..]].concat()).await
    }

    /// Standard output and standard error of a command that does what it is asked.
    pub(crate) async fn run(&self, args: &[&str]) -> (String, String) {
        let said = self.said(args).await.ended(0);
        (said.out, said.error)
    }

    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_str(&self.run(&args).await.0).unwrap()
    }

    /// What a command says that fails with this code.
    pub(crate) async fn fails(&self, code: i32, args: &[&str]) -> String {
        self.said(args).await.ended(code).error
    }
}
