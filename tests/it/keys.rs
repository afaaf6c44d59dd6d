//! `keylane key`: a paused key stands still from the moment that the command returns, and goes on
//! in order.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cli, Scene, Write, entities, wait, write};

/// How long a paused key is watched for a write that should not come.
const WATCHED: Duration = Duration::from_millis(300);

fn increments(key: &str, from: u32, count: u32) -> Vec<Write> {
    let increment =
        |number: u32| write("item.increment", key, &format!("{key}-{number}"), r#"{"stock":1}"#);
    (from..from + count).map(increment).collect()
}

async fn stock(scene: &Scene, key: &str) -> i64 {
    scene.number(&format!("select stock from items where sku = '{key}'")).await
}

#[tokio::test]
async fn nothing_of_a_paused_key_is_applied_until_it_is_resumed() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    let (busy, mut other) = (scene.sender().await, scene.sender().await);
    let cli = Cli::new(&scene);
    let sent = 12 * 500;
    let sending = async {
        for round in 0..12 {
            busy.send(&increments("a", round * 500, 500)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let pausing = async {
        for round in 0..4 {
            cli.run(&["key", "pause", "item", "a", "--because", "a look"]).await.ended(0);
            let paused_at = stock(&scene, "a").await;
            let write = write("item.increment", "b", &format!("b{round}"), r#"{"stock":1}"#);
            other.outcome(write).await;
            tokio::time::sleep(WATCHED).await;
            assert_eq!(stock(&scene, "a").await, paused_at, "round {round}");
            cli.run(&["key", "resume", "item", "a"]).await.ended(0);
        }
    };
    tokio::join!(sending, pausing);
    wait::until_equal(wait::SOON, "all applied", i64::from(sent), async || {
        stock(&scene, "a").await
    })
    .await;
    assert_eq!(scene.number("select version from items where sku = 'a'").await, i64::from(sent));
    wait::until_equal(wait::SOON, "the key is free", 0, async || {
        scene.number("select count(*) from keylane.parked_keys").await
    })
    .await;
    let audit = "select count(*) from keylane.operator_actions where actor = 'tester'";
    assert_eq!(scene.number(audit).await, 8);
}

#[tokio::test]
async fn what_came_during_a_pause_is_applied_in_its_order() {
    let scene = Scene::new(entities::LOAD_TABLES, entities::LOAD_ENTITIES).await;
    let _worker = scene.worker().await;
    let sender = scene.sender().await;
    let cli = Cli::new(&scene);
    cli.run(&["key", "pause", "line", "K"]).await.ended(0);
    let line =
        |seq: u32| write("line.upsert", "K", &format!("l{seq}"), &format!(r#"{{"seq":{seq}}}"#));
    sender.send(&(0..300).map(line).collect::<Vec<_>>()).await;
    wait::until_equal(wait::SOON, "all of them rest", 300, async || {
        scene.number("select resting from keylane.parked_keys").await
    })
    .await;
    assert_eq!(scene.number("select count(*) from lines").await, 0);
    cli.run(&["key", "resume", "line", "K"]).await.ended(0);
    sender.send(&(300..400).map(line).collect::<Vec<_>>()).await;
    wait::until_equal(wait::SOON, "all of them applied", 400, async || {
        scene.number("select count(*) from history").await
    })
    .await;
    let in_order = "select count(*) from (select seq, row_number() over (order by id) - 1 as n \
                      from history) h where seq = n";
    assert_eq!(scene.number(in_order).await, 400);
}

#[tokio::test]
async fn a_key_says_why_it_stands_still() {
    let entity = format!("{}on_reject = 'park'\n", entities::ITEM);
    let scene = Scene::new(entities::ITEMS, &entity).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let cli = Cli::new(&scene);
    sender.outcome(write("item.upsert", "a", "bad", r#"{"stock":"x"}"#)).await;
    sender.outcome(write("item.upsert", "a", "later", r#"{"stock":1}"#)).await;
    for key in ["b", "c"] {
        cli.run(&["key", "pause", "item", key]).await.ended(0);
    }
    let list = ["key", "list", "--parked", "--output", "json"];
    let keys = cli.run(&list).await.ended(0).list();
    let short = |key: &serde_json::Value| {
        json!([key["key"], key["paused"], key["resting"], key["behind"].is_number()])
    };
    let short: Vec<_> = keys.iter().map(short).collect();
    let expected = [json!(["a", false, 1, true]), json!(["b", true, 0, false])];
    assert_eq!(short[..2], expected, "{keys:?}");
    let page = cli.run(&[&list[..], &["--limit", "1", "--after", "item/a"]].concat()).await;
    assert_eq!(page.ended(0).list()[0]["key"], "b");
    let table = cli.run(&["key", "list", "--parked", "--entity", "item"]).await.ended(0);
    assert!(table.out.contains("behind dead letter"), "{}", table.out);
    let none = cli.run(&["key", "list", "--parked", "--entity", "other"]).await.ended(0);
    assert_eq!(none.out.lines().count(), 1, "{}", none.out);

    let shown = cli.run(&["key", "show", "item", "a", "--output", "json"]).await.ended(0);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["line"][0]["reason"], "type_mismatch");
    assert_eq!(shown["line"][1]["state"], "parked");
    assert_eq!(shown["standing"]["resting"], 1);
    assert_eq!(shown["lane"]["generation"], 1);
    assert!(shown["lane"]["worker"].is_string(), "{shown}");
    let text = cli.run(&["key", "show", "item", "a"]).await.ended(0);
    for says in ["stands still: behind dead letter", "partition 1.00", "the line, in order"] {
        assert!(text.out.contains(says), "{says}: {}", text.out);
    }
}

#[tokio::test]
async fn busy_keys_are_added_up_over_workers() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let cli = Cli::new(&scene);
    let counted = "insert into keylane.hot_keys (worker, entity, key, writes, counted_at) values
        ('w1', 'item', 'a', 5, now()), ('w2', 'item', 'a', 4, now()), ('w1', 'item', 'b', 7, now()),
        ('w3', 'item', 'c', 99, now() - interval '1 hour')";
    scene.execute(counted).await;
    let hot = cli.run(&["key", "list", "--hot", "--output", "json"]).await.ended(0).list();
    let hot: Vec<_> =
        hot.iter().map(|key| json!([key["key"], key["writes"], key["workers"]])).collect();
    assert_eq!(hot, [json!(["a", 9, 2]), json!(["b", 7, 1])]);
    let one = cli.run(&["key", "list", "--hot", "--limit", "1", "--output", "ndjson"]).await;
    assert_eq!(one.ended(0).out.lines().count(), 1);
    let shown = cli.run(&["key", "show", "item", "b"]).await.ended(0);
    assert!(shown.out.contains("at most 7 writes"), "{}", shown.out);
}

#[tokio::test]
async fn wrong_questions_about_keys_are_answered_without_a_change() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let cli = Cli::new(&scene);
    cli.run(&["key", "pause", "item", "a"]).await.ended(0);
    let table: [(&[&str], i32, &str); 8] = [
        (&["pause", "item", "a"], 1, "item a is paused already"),
        (&["resume", "item", "b"], 1, "item b is not paused"),
        (&["pause", "items", "a"], 1, "no entity `items` in the settings"),
        (&["resume", "item", ""], 1, "is no key of item"),
        (&["list"], 2, "--parked"),
        (&["list", "--parked", "--hot"], 2, "cannot be used with"),
        (&["list", "--parked", "--after", "a"], 2, "customer/C-1"),
        (&["list", "--hot", "--limit", "0"], 2, "--limit"),
    ];
    for (args, code, says) in table {
        let said = cli.run(&[&["key"], args].concat()).await.ended(code);
        assert!(said.error.contains(says), "{args:?}: {}", said.error);
    }
    assert_eq!(scene.number("select count(*) from keylane.operator_actions").await, 1);
    assert_eq!(scene.number("select count(*) from keylane.parked_keys where paused").await, 1);
}
