//! `keylane dead-letters replay`: what was dead is applied once, in order, or says why not.

use crate::support::{Cli, Scene, Sender, Worker, entities, wait, write};

/// Nothing above 99 until somebody mends it.
const LOW: &str = "alter table items add constraint low check (stock < 100)";
pub(crate) const MEND: &str = "alter table items drop constraint low";

/// A scene with dead letters.
pub(crate) struct Stage {
    pub scene: Scene,
    pub cli: Cli,
    sender: Sender,
    worker: Worker,
}

impl Stage {
    /// A worker, and a table that refuses what `dead` sends. `on_reject` is a line of settings.
    async fn new(on_reject: &str) -> Self {
        let entity = format!("{}{on_reject}", entities::ITEM);
        Self::on(Scene::new(entities::ITEMS, &entity).await).await
    }

    pub(crate) async fn on(scene: Scene) -> Self {
        scene.execute(LOW).await;
        let worker = scene.worker().await;
        let sender = scene.sender().await;
        let cli = Cli::new(&scene);
        Self { scene, cli, sender, worker }
    }

    /// Sends `count` writes over 7 keys that all become dead letters.
    pub(crate) async fn dead(&mut self, count: i64) {
        let writes: Vec<_> = (0..count)
            .map(|number| {
                let (key, id) = (format!("k{}", number % 7), format!("w{number}"));
                write("item.upsert", &key, &id, &format!(r#"{{"stock":{}}}"#, 1000 + number))
            })
            .collect();
        self.sender.send(&writes).await;
        self.states("dead", count).await;
    }

    pub(crate) async fn count(&self, state: &str) -> i64 {
        let sql = format!("select count(*) from keylane.dead_letters where state = '{state}'");
        self.scene.number(&sql).await
    }

    async fn states(&self, state: &str, count: i64) {
        wait::until_equal(wait::SOON, state, count, async || self.count(state).await).await;
    }

    /// Every one of the writes was applied once, each key's last one last.
    pub(crate) async fn all_applied(&self, count: i64) {
        assert_eq!(self.count("resolved").await, count);
        let applied = "select count(*) from keylane.ledger where outcome = 'applied'";
        assert_eq!(self.scene.number(applied).await, count);
        assert_eq!(self.scene.number("select sum(version) from items").await, count);
        let last = format!("select count(*) from items where stock >= {}", 1000 + count - 7);
        assert_eq!(self.scene.number(&last).await, count.min(7));
        wait::until_equal(wait::SOON, "no key that stands still", 0, async || {
            self.scene.number("select count(*) from keylane.parked_keys").await
        })
        .await;
    }
}

#[tokio::test]
async fn a_mended_set_is_applied_once_in_order_and_each_result_is_told() {
    let mut stage = Stage::new("").await;
    stage.dead(50).await;
    stage.scene.execute(MEND).await;
    let replay = ["dead-letters", "replay", "--reason", "constraint_violation", "--output", "json"];
    let refused = stage.cli.run(&replay).await.ended(1);
    assert!(refused.error.contains("50 dead letters match: --yes"), "{}", refused.error);
    assert_eq!(stage.scene.number("select count(*) from keylane.replays").await, 0);

    let said = stage.cli.run(&[&replay[..], &["--yes", "--because", "mended"]].concat()).await;
    let results = said.ended(0).list();
    assert_eq!(results.len(), 50);
    assert!(results.iter().all(|line| line["outcome"] == "applied" && line["state"] == "done"));
    stage.all_applied(50).await;
    let audit = "select actor, reason, count, result from keylane.operator_actions order by id";
    let audit = stage.scene.rows(audit).await;
    assert_eq!(audit[0]["actor"], "tester");
    assert_eq!(audit[0]["reason"], "mended");
    assert_eq!(audit[1]["result"], "50 of 50 resolved, 0 dead again");

    let nothing = stage.cli.run(&[&replay[..], &["--yes"]].concat()).await.ended(1);
    assert!(nothing.error.contains("no dead letter matches"), "{}", nothing.error);
}

#[tokio::test]
async fn what_is_not_mended_is_dead_again_and_one_that_was_edited_is_applied() {
    let mut stage = Stage::new("").await;
    stage.dead(3).await;
    let edit = r#"update keylane.dead_letters set body = '{"stock":7}' where write_id = 'w1'"#;
    stage.scene.execute(edit).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--output", "ndjson"];
    let said = stage.cli.run(&replay).await.ended(1);
    assert!(said.error.contains("1 of 3 resolved, 2 dead again"), "{}", said.error);
    assert_eq!(said.out.matches("constraint_violation").count(), 2, "{}", said.out);
    let stock = "select stock from items where sku = 'k1'";
    assert_eq!(stage.scene.number(stock).await, 7);
    assert_eq!(stage.count("dead").await, 2);

    // One alone is not asked about.
    stage.scene.execute(MEND).await;
    let id = "select min(id) from keylane.dead_letters where state = 'dead'";
    let id = stage.scene.number(id).await.to_string();
    stage.cli.run(&["dead-letters", "replay", "--id", &id]).await.ended(0);
    assert_eq!(stage.count("dead").await, 1);
}

#[tokio::test]
async fn what_was_applied_since_is_told_before_a_replay_comes_after_it() {
    let mut stage = Stage::new("").await;
    stage.dead(10).await;
    stage.scene.execute(MEND).await;
    stage.sender.outcome(write("item.upsert", "k0", "later", r#"{"stock":1}"#)).await;
    let replay = ["dead-letters", "replay", "--all"];
    let said = stage.cli.run(&replay).await.ended(1);
    assert!(said.error.contains("warning: 2 of them have later writes"), "{}", said.error);
    let first = ["--key", "k0", "--yes", "--limit", "1"];
    stage.cli.run(&[&["dead-letters", "replay"], &first[..]].concat()).await.ended(0);
    let stock = "select stock from items where sku = 'k0'";
    assert_eq!(stage.scene.number(stock).await, 1000);
}

#[tokio::test]
async fn a_replay_of_a_paused_key_says_what_it_waits_for() {
    let mut stage = Stage::new("").await;
    stage.dead(8).await;
    stage.scene.execute(MEND).await;
    stage.cli.run(&["key", "pause", "item", "k0"]).await.ended(0);
    let said = stage.cli.run(&["dead-letters", "replay", "--all", "--yes"]).await.ended(1);
    assert!(said.error.contains("6 of 8 resolved"), "{}", said.error);
    assert!(said.error.contains("its key is paused"), "{}", said.error);
    stage.cli.run(&["key", "resume", "item", "k0"]).await.ended(0);
    let replay = stage.scene.number("select id from keylane.replays").await.to_string();
    stage.cli.run(&["dead-letters", "replay", "--continue", &replay]).await.ended(0);
    stage.all_applied(8).await;
}

#[tokio::test]
async fn a_canary_that_dies_of_something_new_saves_the_rest() {
    let mut stage = Stage::new("").await;
    stage.dead(20).await;
    stage.scene.execute(MEND).await;
    let edit = r#"update keylane.dead_letters set body = '{"stok":7}'
                   where id = (select id from keylane.dead_letters order by id limit 1 offset 2)"#;
    stage.scene.execute(edit).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--canary", "1,4"];
    let said = stage.cli.run(&replay).await.ended(1);
    assert!(said.error.contains("a canary died of unknown_column"), "{}", said.error);
    assert_eq!((stage.count("resolved").await, stage.count("dead").await), (4, 16));
    let replay = stage.scene.number("select id from keylane.replays").await.to_string();
    assert!(said.error.contains(&format!("--continue {replay}")), "{}", said.error);

    let said = stage.cli.run(&["dead-letters", "replay", "--continue", &replay]).await.ended(1);
    assert!(said.error.contains("19 of 20 resolved, 1 dead again"), "{}", said.error);
}

#[tokio::test]
async fn two_replays_of_the_same_at_once_apply_each_write_once() {
    let mut stage = Stage::new("").await;
    stage.dead(700).await;
    stage.scene.execute(MEND).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--output", "ndjson"];
    let (first, second) = tokio::join!(stage.cli.run(&replay), stage.cli.run(&replay));
    let nothing_left = |said: &str| said.contains("no dead letter matches");
    for said in [first, second] {
        assert!(said.code == Some(0) || nothing_left(&said.error), "{}", said.error);
    }
    stage.all_applied(700).await;
}

#[tokio::test]
async fn a_replay_that_is_killed_is_completed_by_another() {
    let mut stage = Stage::new("").await;
    stage.dead(400).await;
    stage.scene.execute(MEND).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--rate", "200"];
    let killed = stage.cli.start(&replay);
    wait::until(wait::SOON, "some are resolved", async || stage.count("resolved").await > 50).await;
    killed.signal("KILL");
    killed.ended().await;
    let resolved = stage.count("resolved").await;
    assert!(resolved < 400, "{resolved}");
    let replay = stage.scene.number("select id from keylane.replays").await.to_string();
    // Two who go on with it at once share what is left.
    let goes_on = ["dead-letters", "replay", "--continue", &replay];
    let (first, second) = tokio::join!(stage.cli.run(&goes_on), stage.cli.run(&goes_on));
    for said in [first.ended(0), second.ended(0)] {
        assert!(said.error.contains("400 of 400 resolved"), "{}", said.error);
    }
    stage.all_applied(400).await;
}

#[tokio::test]
async fn an_interrupted_replay_stops_and_says_how_to_go_on() {
    let mut stage = Stage::new("").await;
    stage.dead(100).await;
    stage.scene.execute(MEND).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--rate", "50"];
    for signal in ["INT", "TERM"] {
        let running = stage.cli.start(&replay);
        let before = stage.count("resolved").await;
        wait::until(wait::SOON, "some are resolved", async || {
            stage.count("resolved").await > before + 5
        })
        .await;
        running.signal(signal);
        let said = running.ended().await.ended(1);
        assert!(said.error.contains("interrupted; `keylane dead-letters replay --continue"));
    }
    let stopped = "select count(*) from keylane.replays where state = 'stopped'";
    assert_eq!(stage.scene.number(stopped).await, 2);
    let dead = stage.count("dead").await;
    assert!(dead > 0, "the replay was not stopped");
    for replay in stage.scene.rows("select id from keylane.replays order by id").await {
        let id = replay["id"].to_string();
        stage.cli.run(&["dead-letters", "replay", "--continue", &id]).await.ended(0);
    }
    stage.all_applied(100).await;
}

#[tokio::test]
async fn without_the_broker_nothing_is_changed() {
    let mut stage = Stage::new("").await;
    stage.dead(3).await;
    let away = [("KEYLANE__AMQP__URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let replay = ["dead-letters", "replay", "--all", "--yes"];
    let said = stage.cli.run_with(&replay, &away).await.ended(1);
    assert!(said.error.contains("nothing was changed: connect to the broker"), "{}", said.error);
    assert_eq!(stage.count("dead").await, 3);
    assert_eq!(stage.scene.number("select count(*) from keylane.replays").await, 0);
    assert_eq!(stage.scene.number("select count(*) from keylane.operator_actions").await, 0);
}

#[tokio::test]
async fn behind_a_dead_letter_that_parks_its_key_everything_goes_on_in_order() {
    let mut stage = Stage::new("on_reject = 'park'\n").await;
    let head = write("item.upsert", "a", "head", r#"{"stock":100}"#);
    stage.sender.outcome(head).await;
    let later: Vec<_> = (0..20)
        .map(|number| write("item.increment", "a", &format!("i{number}"), r#"{"stock":1}"#))
        .collect();
    stage.sender.send(&later).await;
    stage.states("parked", 20).await;
    let replay = ["dead-letters", "replay", "--key", "a"];
    let said = stage.cli.run(&replay).await.ended(1);
    assert!(said.error.contains("1 dead again"), "{}", said.error);
    stage.states("parked", 20).await;

    stage.scene.execute(MEND).await;
    stage.cli.run(&replay).await.ended(0);
    stage.states("parked", 0).await;
    assert_eq!(stage.scene.number("select stock from items where sku = 'a'").await, 120);
    stage.sender.outcome(write("item.update", "a", "after", r#"{"stock":1}"#)).await;
    assert_eq!(stage.scene.number("select version from items where sku = 'a'").await, 22);
}

#[tokio::test]
async fn a_replay_while_no_worker_runs_says_so_and_a_worker_completes_it() {
    let mut stage = Stage::new("").await;
    stage.dead(5).await;
    stage.scene.execute(MEND).await;
    stage.worker.signal("TERM");
    stage.worker.exit_code().await;
    let said = stage.cli.run(&["dead-letters", "replay", "--all", "--yes"]).await.ended(1);
    assert!(said.error.contains("does a worker run?"), "{}", said.error);
    assert!(said.error.contains("--continue"), "{}", said.error);
    let _worker = stage.scene.worker().await;
    stage.states("resolved", 5).await;
    let replay = stage.scene.number("select id from keylane.replays").await.to_string();
    stage.cli.run(&["dead-letters", "replay", "--continue", &replay]).await.ended(0);
    stage.all_applied(5).await;
}

#[tokio::test]
async fn what_never_was_a_write_goes_through_the_front_door_once_it_is_mended() {
    let stage = Stage::new("").await;
    let mut no_type = write("x", "a", "w1", r#"{"stock":1}"#);
    no_type.kind = None;
    let mut no_id = write("item.upsert", "b", "w2", r#"{"stock":2}"#);
    no_id.id = None;
    let unknown = write("items.upsert", "c", "w3", r#"{"stock":3}"#).header("origin", "shop");
    stage.sender.send(&[no_type, no_id, unknown]).await;
    stage.states("dead", 3).await;
    let replay = ["dead-letters", "replay", "--all", "--yes", "--output", "json"];
    let results = stage.cli.run(&replay).await.ended(1).list();
    assert!(results.iter().all(|line| line["reason"] == "edit_first"), "{results:?}");
    for (reason, edit) in [
        ("missing_type", r#"{"type": "item.upsert"}"#),
        ("missing_write_id", r#"{"message_id": "w2"}"#),
        ("unknown_entity", r#"{"type": "item.upsert"}"#),
    ] {
        let edit = format!(
            "update keylane.dead_letters set properties = properties || '{edit}'
              where reason = '{reason}'"
        );
        stage.scene.execute(&edit).await;
    }
    let results = stage.cli.run(&replay).await.ended(0).list();
    assert!(results.iter().all(|line| line["outcome"] == "published"), "{results:?}");
    wait::until_equal(wait::SOON, "all of them applied", 6, async || {
        stage.scene.number("select sum(stock) from items").await
    })
    .await;
    assert_eq!(stage.count("resolved").await, 3);
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_of_each_and_changes_nothing() {
    let mut stage = Stage::new("").await;
    stage.dead(500).await;
    let edit = r#"update keylane.dead_letters set body = '{"stok":7}'
                   where id = (select id from keylane.dead_letters order by id limit 1 offset 2)"#;
    stage.scene.execute(edit).await;
    let mut no_type = write("x", "a", "anonymous", "{}");
    no_type.kind = None;
    stage.sender.send(&[no_type]).await;
    stage.states("dead", 501).await;
    let before = stage.scene.rows("select * from keylane.dead_letters order by id").await;
    let away = [("KEYLANE__AMQP__URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let args = ["dead-letters", "replay", "--all", "--dry-run", "--output", "json"];
    let said = stage.cli.run_with(&args, &away).await.ended(1);
    assert!(
        said.error.contains("499 would be resolved, 1 dead again, 1 skipped"),
        "{}",
        said.error
    );
    let results = said.list();
    assert_eq!(results.len(), 501);
    let count = |name: &str, value: &str| results.iter().filter(|line| line[name] == value).count();
    assert_eq!((count("effect", "created"), count("effect", "updated")), (7, 492));
    assert_eq!((count("reason", "unknown_column"), count("reason", "edit_first")), (1, 1));
    let after = stage.scene.rows("select * from keylane.dead_letters order by id").await;
    assert_eq!(before, after);
    for table in ["replays", "replay_letters", "operator_actions", "parked_keys"] {
        let rows = format!("select count(*) from keylane.{table}");
        assert_eq!(stage.scene.number(&rows).await, 0, "{table}");
    }
}

#[tokio::test]
async fn wrong_questions_are_answered_without_a_change() {
    let stage = Stage::new("").await;
    let table: [(&[&str], i32, &str); 9] = [
        (&[], 2, "--all"),
        (&["--limit", "3"], 2, "--all"),
        (&["--state", "parked"], 2, "only dead letters in state `dead`"),
        (&["--all", "--canary", "0"], 2, "1,10,100"),
        (&["--all", "--rate", "0"], 2, "--rate"),
        (&["--continue", "1", "--id", "3"], 2, "cannot be used with"),
        (&["--continue", "99"], 1, "no replay 99"),
        (&["--id", "12345"], 1, "no dead letter matches"),
        (&["--all"], 1, "no dead letter matches"),
    ];
    for (args, code, says) in table {
        let said = stage.cli.run(&[&["dead-letters", "replay"], args].concat()).await.ended(code);
        assert!(said.error.contains(says), "{args:?}: {}", said.error);
    }
    assert_eq!(stage.scene.number("select count(*) from keylane.replays").await, 0);
    assert_eq!(stage.scene.number("select count(*) from keylane.operator_actions").await, 0);
}
