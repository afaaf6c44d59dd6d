//! Files that are looked at again while the process runs: certificates, tokens.
//!
//! Owns: what is news. A broken file is told of once, and only when it is the same at two looks:
//! somebody may be in the middle of writing it.
//! Never: keeps what it has read, only a digest of it.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};

/// Settings and the files that they name.
pub(crate) struct Files {
    named: Vec<(&'static str, PathBuf)>,
    used: [u8; 32],
    broken: Option<Broken>,
}

struct Broken {
    digest: [u8; 32],
    told: bool,
}

/// What a look came to.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// Nothing that has not been said.
    Same,
    /// There is something new, and it is good.
    New(T),
    /// There is something new, and it is not.
    Broken(anyhow::Error),
}

type Contents = Vec<io::Result<Vec<u8>>>;

impl Files {
    /// Reads them for the first time.
    pub(crate) fn open<T>(
        named: Vec<(&'static str, PathBuf)>,
        parse: impl FnOnce(&[Vec<u8>]) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
        let contents: Contents = named.iter().map(|(_, path)| std::fs::read(path)).collect();
        let used = digest(&contents);
        let files = Self { named, used, broken: None };
        let parsed = files.parse(contents, parse)?;
        Ok((files, parsed))
    }

    /// Reads them again.
    pub(crate) async fn look<T>(
        &mut self,
        parse: impl FnOnce(&[Vec<u8>]) -> anyhow::Result<T>,
    ) -> Look<T> {
        let mut contents = Contents::new();
        for (_, path) in &self.named {
            contents.push(tokio::fs::read(path).await);
        }
        let digest = digest(&contents);
        if digest == self.used {
            self.broken = None;
            return Look::Same;
        }
        let error = match self.parse(contents, parse) {
            Ok(parsed) => {
                (self.used, self.broken) = (digest, None);
                return Look::New(parsed);
            }
            Err(error) => error,
        };
        match &mut self.broken {
            Some(broken) if broken.digest == digest => {
                if std::mem::replace(&mut broken.told, true) {
                    Look::Same
                } else {
                    Look::Broken(error)
                }
            }
            _ => {
                self.broken = Some(Broken { digest, told: false });
                Look::Same
            }
        }
    }

    fn parse<T>(
        &self,
        contents: Contents,
        parse: impl FnOnce(&[Vec<u8>]) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut read = Vec::with_capacity(contents.len());
        for (content, (setting, path)) in contents.into_iter().zip(&self.named) {
            read.push(content.with_context(|| format!("{setting}: read {}", path.display()))?);
        }
        parse(&read).map_err(|error| {
            let named = self
                .named
                .iter()
                .map(|(setting, path)| format!("{setting} = \"{}\"", path.display()));
            let named: Vec<String> = named.collect();
            anyhow!("{}: {error:#}", named.join(", "))
        })
    }
}

fn digest(contents: &Contents) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in contents {
        match content {
            Ok(bytes) => {
                digest.update([0]);
                digest.update(bytes.len().to_be_bytes());
                digest.update(bytes);
            }
            Err(error) => {
                digest.update([1]);
                digest.update(error.kind().to_string());
            }
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(read: &[Vec<u8>]) -> anyhow::Result<String> {
        let text = String::from_utf8(read.concat())?;
        anyhow::ensure!(!text.contains("bad"), "it is bad");
        Ok(text)
    }

    /// What is written, and what the looks after it come to.
    #[tokio::test]
    async fn news_is_taken_once_and_trouble_is_told_once_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "a").unwrap();
        let named = || vec![("http.one", one.clone()), ("http.two", two.clone())];
        let missing = Files::open(named(), parse).map(|_| ()).unwrap_err();
        assert!(format!("{missing:#}").contains("http.two: read /"), "{missing:#}");
        fs::write(&two, "bad").unwrap();
        let bad = Files::open(named(), parse).map(|_| ()).unwrap_err();
        assert!(format!("{bad:#}").contains("two\": it is bad"), "{bad:#}");
        fs::write(&two, "b").unwrap();
        let (mut files, parsed) = Files::open(named(), parse).unwrap();
        assert_eq!(parsed, "ab");

        let table: [(Option<&str>, &[&str]); 8] = [
            (Some("b"), &["same", "same"]),
            (Some("c"), &["ac", "same"]),
            (Some("bad"), &["same", "it is bad", "same"]),
            (Some("c"), &["same"]),
            (Some("bad"), &["same", "it is bad", "same"]),
            (Some("bad 2"), &["same", "it is bad", "same"]),
            (None, &["same", "http.two: read", "same"]),
            (Some("d"), &["ad", "same"]),
        ];
        for (row, (content, looks)) in table.into_iter().enumerate() {
            match content {
                Some(content) => fs::write(&two, content).unwrap(),
                None => fs::remove_file(&two).unwrap(),
            }
            for expected in looks {
                let look = match files.look(parse).await {
                    Look::Same => "same".to_owned(),
                    Look::New(parsed) => parsed,
                    Look::Broken(error) => format!("{error:#}"),
                };
                assert!(look.contains(expected), "row {row}: {look}, not {expected}");
            }
        }
    }
}
