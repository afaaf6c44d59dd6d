//! Commands whose reader has seen enough: `keylane … | head -1`.

use std::io::pipe;
use std::process::Stdio;

use crate::support::servers::blocking;
use crate::support::{Cli, Scene, entities};

const COMMANDS: [&[&str]; 12] = [
    &["openapi"],
    &["completions", "bash"],
    &["completions", "zsh"],
    &["settings"],
    &["--help"],
    &["help", "worker"],
    &["doctor", "--output", "json"],
    &["generations"],
    &["generations", "--output", "json"],
    &["dead-letters", "list"],
    &["dead-letters", "stats", "--output", "json"],
    &["actions", "list", "--output", "ndjson"],
];

#[tokio::test]
async fn a_command_that_nobody_reads_ends_without_a_word() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let cli = Cli::new(&scene);
    for args in COMMANDS {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = cli.command(args);
        command.stdout(writer).stderr(Stdio::piped());
        let ended = blocking(move || command.spawn().unwrap().wait_with_output().unwrap()).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}
