//! A replay whose servers die in the middle is completed by the next one.

use crate::replay::{MEND, Stage};
use crate::support::{OwnServers, Scene, entities, wait};

#[tokio::test]
async fn a_replay_outlives_the_broker_and_the_database() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::ITEMS, entities::ITEM).await;
    let mut stage = Stage::on(scene).await;
    stage.dead(900).await;
    stage.scene.execute(MEND).await;
    let mut args = vec!["--all".to_owned(), "--yes".to_owned()];
    for command in ["kill-rabbit", "kill-postgres"] {
        let before = stage.count("resolved").await;
        let args_now: Vec<&str> = args.iter().map(String::as_str).collect();
        let replay = [&["dead-letters", "replay", "--rate", "100"], &args_now[..]].concat();
        let running = stage.cli.start(&replay);
        wait::until(wait::SOON, "some are resolved", async || {
            stage.count("resolved").await > before + 30
        })
        .await;
        own.run(command).await;
        let said = running.ended().await;
        eprintln!("{command}: {:?} {}", said.code, said.error);
        if said.code == Some(0) {
            break;
        }
        assert!(said.error.contains("--continue 1"), "{}", said.error);
        args = vec!["--continue".to_owned(), "1".to_owned()];
    }
    wait::until(wait::SOON, "the database is back", async || {
        stage.scene.try_number("select 1").await.is_ok()
    })
    .await;
    stage.cli.run(&["dead-letters", "replay", "--continue", "1"]).await.ended(0);
    stage.all_applied(900).await;
}
