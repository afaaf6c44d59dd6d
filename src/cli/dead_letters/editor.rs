//! Lets a person change a text in the editor of their choice.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use uuid::Uuid;

/// What a person made of a text. The file goes when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    kept: bool,
}

impl Text {
    /// Opens an editor with `text`, and waits until it is closed.
    pub fn edit(name: &str, text: &[u8]) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("keylane-{name}-{}.json", Uuid::new_v4()));
        write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let edited = Self { path, kept: false };
        // The shell knows the variables, and splits an editor with arguments as everybody does.
        let ended = Command::new("sh")
            .args(["-c", r#"exec ${VISUAL:-${EDITOR:-vi}} "$1""#, "sh"])
            .arg(&edited.path)
            .status()
            .context("start the editor")?;
        if !ended.success() {
            bail!("the editor ended with {ended}; nothing was changed");
        }
        Ok(edited)
    }

    /// What it is now.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.path)
    }

    /// Leaves the file for its author; says where.
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Bodies may be personal data: only the owner may read them.
fn write(path: &PathBuf, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)
}
