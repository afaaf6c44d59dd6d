//! What operators see of dead letters, and how they carry them elsewhere.

use std::fs;

use serde_json::json;

use crate::support::raw::{RawSender, short};
use crate::support::{Operator, Scene, Worker, entities, wait, write};

/// A worker that has rejected: item k1 (w1, w2), item k2 (w3), a body that is no text (w4, k3), and
/// a message without a write id.
pub(crate) async fn rejected(scene: &Scene) -> (Worker, Operator) {
    let worker = scene.worker().await;
    let sender = scene.sender().await;
    let mut nameless = write("item.upsert", "k4", "", r#"{"stock":1}"#);
    nameless.id = None;
    let not_text = [vec![0x00, 0xa0], short(b"w4"), short(b"item.upsert")].concat();
    let mut raw = RawSender::connect(&scene.servers.amqp).await;
    raw.publish(&format!("{}.writes", scene.prefix), b"k3", &not_text, b"\xff\x00").await;
    raw.close().await;
    sender
        .send(&[
            write("item.upsert", "k1", "w0", r#"{"stock":1,"label":"first"}"#),
            write("item.upsert", "k1", "w1", r#"{"label":"l","stock": "many"}"#)
                .header("x", "a\\b"),
            write("item.upsert", "k1", "w2", r#"{"color":"red"}"#),
            write("item.upsert", "k1", "w5", r#"{"stock":5}"#),
            write("item.update", "k2", "w3", r#"{"stock":1.5}"#),
            nameless,
        ])
        .await;
    let dead = "select count(*) from keylane.dead_letters";
    wait::until_equal(wait::SOON, "dead letters", 5, async || scene.number(dead).await).await;
    let applied = "select count(*) from keylane.ledger where outcome = 'applied'";
    wait::until_equal(wait::SOON, "applied", 2, async || scene.number(applied).await).await;
    (worker, Operator::new(scene))
}

pub(crate) async fn id_of(scene: &Scene, write_id: &str) -> String {
    let sql = format!("select id from keylane.dead_letters where write_id = '{write_id}'");
    scene.number(&sql).await.to_string()
}

#[tokio::test]
async fn lists_and_counts_show_what_matches_and_nothing_else() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let w1 = id_of(&scene, "w1").await;
    let ids = format!("{w1},{}", id_of(&scene, "w3").await);
    let table: [(&[&str], &[&str]); 12] = [
        (&["--key", "k1"], &["w1", "w2"]),
        (&["--entity", "item", "--reason", "type_mismatch"], &["w1", "w3"]),
        (&["--reason", "missing_write_id"], &["-"]),
        (&["--key", "k4"], &["-"]),
        (&["--id", &ids], &["w1", "w3"]),
        (&["--text", "\"many\""], &["w1"]),
        (&["--text", "color"], &["w2"]),
        (&["--text", "MANY"], &[]),
        (&["--since", "1h"], &["-", "w1", "w2", "w3", "w4"]),
        (&["--until", "1h"], &[]),
        (&["--state", "parked"], &[]),
        (&["--entity", "item", "--after", &w1, "--key", "k1"], &[]),
    ];
    for (filter, expected) in table {
        let found = operator.json(&[&["dead-letters", "list"], filter].concat()).await;
        let found = found.as_array().unwrap().iter();
        let mut ids: Vec<&str> =
            found.map(|letter| letter["write_id"].as_str().unwrap_or("-")).collect();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{filter:?}");
    }
    let (page, talk) = operator.run(&["dead-letters", "list", "--limit", "2"]).await;
    assert_eq!(page.lines().count(), 3, "{page}");
    assert!(talk.contains("--after"), "{talk}");

    let stats = operator.json(&["dead-letters", "stats", "--entity", "item"]).await;
    let brief: Vec<String> = stats
        .as_array()
        .unwrap()
        .iter()
        .map(|group| format!("{} {} {}", group["reason"], group["count"], group["keys"]))
        .collect();
    let expected = [r#""type_mismatch" 2 2"#, r#""malformed_body" 1 1"#, r#""unknown_column" 1 1"#];
    assert_eq!(brief, expected);
    assert_eq!(stats[2]["sample"].to_string(), id_of(&scene, "w2").await);
    let (table, _) = operator.run(&["dead-letters", "stats", "--reason", "none_such"]).await;
    assert!(table.trim_start().starts_with("ENTITY"), "{table}");
}

#[tokio::test]
async fn one_dead_letter_is_shown_with_its_row_and_what_waits_behind_it() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let w1 = id_of(&scene, "w1").await;
    scene.execute("update keylane.dead_letters set stops = true where write_id = 'w2'").await;
    let shown = operator.json(&["dead-letters", "show", &w1]).await;
    assert_eq!(shown["pointer"], "/stock");
    assert_eq!(shown["json"], json!({"label": "l", "stock": "many"}));
    assert_eq!(shown["properties"]["headers"]["x"], "a\\\\b");
    let row = json!({"is": {"sku": "k1", "label": "first", "stock": 5, "version": 2}});
    assert_eq!(shown["row"], row);
    assert_eq!(shown["applied_since"], 1, "w5 came later");
    assert_eq!(shown["behind"]["count"], 1);
    assert_eq!(shown["behind"]["first"][0]["write_id"], "w2");
    let (text, _) = operator.run(&["dead-letters", "show", &w1]).await;
    for part in ["type_mismatch", "/stock", "\n    \"stock\": \"many\"\n", "applied since: 1;"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let w4 = id_of(&scene, "w4").await;
    let shown = operator.json(&["dead-letters", "show", &w4]).await;
    assert_eq!((&shown["body_encoding"], &shown["body"]), (&json!("hex"), &json!("ff00")));
    assert_eq!(shown["row"], "absent");

    scene.execute("update keylane.dead_letters set entity = 'gone' where write_id = 'w4'").await;
    let (text, _) = operator.run(&["dead-letters", "show", &w4]).await;
    assert!(text.contains("row now: not known: no entity `gone`"), "{text}");
    let error = operator.fails(1, &["dead-letters", "show", "999"]).await;
    assert!(error.contains("no dead letter 999"), "{error}");
}

#[tokio::test]
async fn what_is_exported_and_imported_is_exported_again_byte_by_byte() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let w1 = id_of(&scene, "w1").await;
    operator.run(&["dead-letters", "edit", &w1, "--because", "é", "--set", "stock=1e2"]).await;
    operator.run(&["dead-letters", "edit", &w1, "--because", "x", "--set", "stock=2"]).await;
    scene
        .execute(
            "update keylane.dead_letters set state = 'parked' where write_id = 'w2';
             update keylane.dead_letters set result = '{\"outcome\":\"applied\",\"n\":1.50}',
                    state = 'resolved', state_changed_at = dead_at where write_id = 'w3'",
        )
        .await;
    let (exported, talk) = operator.run(&["dead-letters", "export"]).await;
    assert!(talk.contains("exported 5"), "{talk}");
    assert!(exported.contains(r#""body_encoding":"hex","body":"ff00""#), "{exported}");
    assert_eq!(exported.matches("replaced_by").count(), 2);
    let (one, _) = operator.run(&["dead-letters", "export", "--key", "k2"]).await;
    assert_eq!(one.lines().count(), 1);

    let other = Scene::new(entities::ITEMS, entities::ITEM).await;
    let there = Operator::new(&other);
    let file = there.file("letters.ndjson", exported.as_bytes());
    there.run(&["dead-letters", "import", &file, "--dry-run"]).await;
    assert_eq!(other.number("select count(*) from keylane.dead_letters").await, 0);
    let (_, talk) = there.run(&["dead-letters", "import", &file]).await;
    assert!(talk.contains("imported 5 dead letters (0 under another number)"), "{talk}");
    let again = there.dir.path().join("again.ndjson");
    there.run(&["dead-letters", "export", "--file", again.to_str().unwrap()]).await;
    assert_eq!(fs::read_to_string(&again).unwrap(), exported);
    let parked = "select key, resting, due_at is not null as due from keylane.parked_keys";
    assert_eq!(other.rows(parked).await, [json!({"key": "k1", "resting": 1, "due": true})]);

    let (_, talk) = there.run(&["dead-letters", "import", &file]).await;
    assert!(talk.contains("imported 0") && talk.contains("skipped 5"), "{talk}");
    // A number that another one has.
    other
        .execute(
            "delete from keylane.dead_letters where write_id = 'w1';
             update keylane.dead_letters set id = default where write_id = 'w3'",
        )
        .await;
    let moved = other.number("select id from keylane.dead_letters where write_id = 'w3'").await;
    assert_eq!(moved, 6, "the sequence went on");
    let taken = exported.lines().find(|line| line.contains("\"w1\"")).unwrap();
    let taken = taken.replacen(&format!("\"id\":{w1}"), "\"id\":6", 1);
    let file = there.file("taken.ndjson", taken.as_bytes());
    let (_, talk) = there.run(&["dead-letters", "import", &file]).await;
    assert!(talk.contains("imported 1 dead letters (1 under another number)"), "{talk}");
    let number = "select id from keylane.dead_letters where write_id = 'w1'";
    assert_eq!(other.number(number).await, 7);
    let revisions = "select count(*) from keylane.dead_letter_revisions where dead_letter = 7";
    assert_eq!(other.number(revisions).await, 2);
    assert_eq!(there.json(&["actions", "list"]).await[0]["action"], "import");
}

#[tokio::test]
async fn of_a_bad_file_nothing_is_imported() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let (exported, _) = operator.run(&["dead-letters", "export"]).await;
    scene.execute("delete from keylane.dead_letters").await;
    let bad = format!("{exported}\ngarbage\n{{\"id\":1}}\n");
    let file = operator.file("bad.ndjson", bad.as_bytes());
    let error = operator.fails(1, &["dead-letters", "import", &file]).await;
    assert!(error.contains("in 2 of its lines") && error.contains("line 7:"), "{error}");
    assert!(error.contains("line 8:"), "{error}");
    let replaying = exported.replace(r#""state":"dead""#, r#""state":"replaying""#);
    let twice = replaying.lines().next().unwrap();
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 0);
    assert_eq!(scene.number("select count(*) from keylane.operator_actions").await, 0);
    let file = operator.file("twice.ndjson", format!("{twice}\n{twice}\n").as_bytes());
    let (_, talk) = operator.run(&["dead-letters", "import", &file]).await;
    assert!(talk.contains("imported 1 ") && talk.contains("skipped 1 "), "{talk}");
    let dead = "select count(*) from keylane.dead_letters where state = 'dead'";
    assert_eq!(scene.number(dead).await, 1, "nobody asked for a replay here");
    let error = operator.fails(1, &["dead-letters", "import", "/nowhere"]).await;
    assert!(error.contains("open /nowhere"), "{error}");
}
