//! Rules about the tree itself, so that they do not decay.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs;
use std::path::{Path, PathBuf};

use keylane::telemetry::help::HELP;

const LINES_MAX: usize = 400;

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds files that end in {ending}");
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn no_source_file_is_too_long_to_be_read() {
    let sources = files("src", ".rs").into_iter().chain(files("tests", ".rs"));
    let long: Vec<_> = sources.filter(|path| text(path).lines().count() > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn the_core_neither_waits_nor_asks() {
    let forbidden = ["async ", ".await", "tokio", "sqlx", "lapin", "std::env", "now_utc", "rand::"];
    for path in files("src/core", ".rs") {
        let code: Vec<String> = text(&path)
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default().to_owned())
            .collect();
        for word in forbidden {
            assert!(!code.iter().any(|line| line.contains(word)), "{word} in {}", path.display());
        }
        for line in &code {
            let ours = line.contains("use crate::") && !line.contains("use crate::core");
            assert!(!ours, "the core uses {line} in {}", path.display());
        }
    }
}

#[test]
fn types_of_a_library_stay_in_their_folder() {
    for (word, folder) in [("lapin::", "src/rabbit"), ("clap::", "src/cli")] {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in files("src", ".rs") {
            let at_home = path.starts_with(&home) || path.ends_with("main.rs");
            let uses = text(&path)
                .lines()
                .any(|line| !line.trim().starts_with("//") && line.contains(word));
            assert!(at_home || !uses, "{word} in {}", path.display());
        }
    }
}

#[test]
fn every_migration_opens_with_its_reasons() {
    for path in files("migrations", ".sql") {
        let text = text(&path);
        for word in ["-- Why:", "-- Locks:", "-- Old binary"] {
            assert!(text.contains(word), "{} says {word}", path.display());
        }
    }
}

#[test]
fn the_operators_guide_names_every_metric() {
    let guide = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md"));
    for (name, _) in HELP {
        assert!(guide.contains(name), "docs/OPERATING.md names {name}");
    }
}
