//! SIGHUP: what changes while a process runs, and what it says of the rest.

use crate::support::{Process, Scene, entities, wait};

#[tokio::test]
async fn sighup_changes_what_is_logged_and_says_what_needs_a_restart() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let config = scene.config();
    let louder = config
        .replace("format = 'text'", "format = 'text', log = 'debug'")
        .replace(&format!("prefix = '{}'", scene.prefix), "prefix = 'another'")
        + "\n[http]\nwait_ms = 77\n";
    for role in ["worker", "ingress", "run"] {
        let mut process = Process::spawn_command(role, &config, &[]).ready().await;
        assert!(!process.log().contains("DEBUG"), "{role}");
        process.configure("nonsense = 1");
        process.signal("HUP");
        says(&process, "The settings stay as they are").await;
        process.configure(&louder);
        process.signal("HUP");
        says(&process, "Changed settings need a restart").await;
        let log = process.log();
        let line = log.lines().find(|line| line.contains("need a restart")).unwrap();
        assert!(line.contains("amqp.prefix, http.wait_ms"), "{line}");
        assert!(!line.contains("telemetry.log"), "that one has changed: {line}");
        process.get("/livez").await.unwrap();
        says(&process, "DEBUG").await;
        process.signal("TERM");
        assert_eq!(process.exit_code().await, 0, "{role}");
    }
}

async fn says(process: &Process, what: &str) {
    wait::until(wait::SOON, what, async || process.log().contains(what)).await;
}
