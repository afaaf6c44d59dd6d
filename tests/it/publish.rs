//! `keylane publish`: lines of a file become writes, each once.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::servers::blocking;
use crate::support::{Scene, entities, wait};

struct Files {
    dir: TempDir,
}

impl Files {
    fn new(scene: &Scene, lines: &str) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(files.path("keylane.toml"), scene.config()).unwrap();
        fs::write(files.path("writes.ndjson"), lines).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keylane"));
        command.arg("--config").arg(self.path("keylane.toml")).arg("publish").args(more);
        command.arg(self.path("writes.ndjson")).stdin(Stdio::null());
        command
    }

    async fn publish(&self) -> Output {
        let mut command = self.command(&[]);
        blocking(move || command.output().unwrap()).await
    }
}

fn lines(count: u32) -> String {
    let mut lines = String::new();
    for number in 0..count {
        let key = number % 11;
        writeln!(
            lines,
            r#"{{"entity":"item","change":"increment","key":"k{key}","id":"n{number}","body":{{"stock":1}}}}"#
        )
        .unwrap();
    }
    lines
}

async fn applied(scene: &Scene, writes: i64) {
    wait::until_equal(wait::SOON, "all lines applied", writes, async || {
        scene.number("select count(*) from keylane.ledger").await
    })
    .await;
    assert_eq!(scene.number("select sum(stock) from items").await, writes);
    assert_eq!(scene.number("select sum(version) from items").await, writes);
}

#[tokio::test]
async fn a_file_that_is_published_twice_is_applied_once() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let files = Files::new(&scene, &lines(3000));
    for _ in 0..2 {
        let output = files.publish().await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{error}");
        assert!(error.contains("published 3000"), "{error}");
        assert!(output.stdout.is_empty());
        applied(&scene, 3000).await;
    }
}

#[tokio::test]
async fn a_publish_that_is_killed_in_the_middle_is_completed_by_the_next() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let files = Files::new(&scene, &lines(2000));
    let mut killed = files.command(&["--rate", "500"]).stderr(Stdio::null()).spawn().unwrap();
    wait::until(wait::SOON, "some lines are applied", async || {
        scene.number("select count(*) from keylane.ledger").await > 100
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(scene.number("select count(*) from keylane.ledger").await < 2000);
    assert_eq!(files.publish().await.status.code(), Some(0));
    applied(&scene, 2000).await;
}

#[tokio::test]
async fn lines_that_cannot_be_sent_are_named_and_the_others_are_sent() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let good = lines(2);
    let mut good = good.lines();
    let long = "x".repeat(256);
    let lines = [
        good.next().unwrap(),
        "{",
        r#"{"entity":"item","change":"upsert","key":"a","body":{}}"#,
        good.next().unwrap(),
        &format!(r#"{{"entity":"item","change":"upsert","key":"{long}","id":"1","body":{{}}}}"#),
        r#"{"entity":"item","change":"upsert","key":"a","id":"2","body":[]}"#,
    ];
    let files = Files::new(&scene, &lines.join("\n"));
    let output = files.publish().await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let failed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<Value> = failed.iter().map(|line| line["line"].clone()).collect();
    assert_eq!(numbers, [json!(2), json!(3), json!(5), json!(6)], "{text}");
    assert!(failed.iter().all(|line| line["problem"] == "refused"), "{text}");
    applied(&scene, 2).await;
}

#[tokio::test]
async fn publish_says_what_is_missing_and_what_it_was_asked_wrongly() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let files = Files::new(&scene, &lines(1));
    let output = files.publish().await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("start a worker once"), "{error}");
    let mut wrong = files.command(&["--rate", "0"]);
    assert_eq!(blocking(move || wrong.output().unwrap()).await.status.code(), Some(2));
}
