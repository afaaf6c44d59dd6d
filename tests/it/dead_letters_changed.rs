//! What operators do with dead letters: edit, discard, restore.

use serde_json::json;

use crate::dead_letters::{id_of, rejected};
use crate::support::{Operator, Scene, entities, wait, write};

/// Runs `edit` of a dead letter.
async fn edit(operator: &Operator, id: &str, more: &[&str]) -> (String, String) {
    operator.run(&[&["dead-letters", "edit", id, "--because", "typo"], more].concat()).await
}

#[tokio::test]
async fn an_edit_keeps_what_was_there_and_says_whether_it_helps() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let w1 = id_of(&scene, "w1").await;
    let all = "select * from keylane.dead_letters order by id";
    let before = scene.rows(all).await;
    let (diff, talk) = edit(&operator, &w1, &["--set", "stock=7", "--dry-run"]).await;
    assert_eq!(diff, "body /stock: \"many\" -> 7\n");
    assert!(talk.contains("would be accepted"), "{talk}");
    assert_eq!(before, scene.rows(all).await);

    let (_, talk) = edit(&operator, &w1, &["--set", "stock=x"]).await;
    assert!(talk.contains("rejected again: type_mismatch at /stock"), "{talk}");
    let file = operator.file("body", b"{\"stock\":8}\n");
    let (_, talk) = edit(&operator, &w1, &["--body-file", &file]).await;
    assert!(talk.contains("revision 2") && talk.contains("would be accepted"), "{talk}");

    let kept = "select r.revision, convert_from(r.body, 'UTF8') as body, replaced_by, r.reason
                  from keylane.dead_letter_revisions r join keylane.dead_letters d
                    on d.id = r.dead_letter where d.write_id = 'w1' order by r.revision";
    let of = |revision, body| json!({"revision": revision, "body": body, "replaced_by": "ada", "reason": "typo"});
    let expected =
        [of(0, r#"{"label":"l","stock": "many"}"#), of(1, r#"{"label":"l","stock":"x"}"#)];
    assert_eq!(scene.rows(kept).await, expected);
    let fingerprints = "select count(*) from keylane.dead_letters d join keylane.ledger l
                         using (write_id, fingerprint)";
    assert_eq!(scene.number(fingerprints).await, 4, "identities stay");
    let (text, _) = operator.run(&["dead-letters", "show", &w1]).await;
    for part in ["revision 2, by ada", "body /label: \"l\" -> nothing"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn body_type_and_a_missing_write_id_can_be_edited() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let (w2, w3) = (id_of(&scene, "w2").await, id_of(&scene, "w3").await);
    let more = ["--unset", "color", "--set", "label=red", "--type", "item.update"];
    edit(&operator, &w2, &more).await;
    let now = "select convert_from(body, 'UTF8') as body, properties->>'type' as type, state
                 from keylane.dead_letters where write_id = 'w2'";
    let expected = json!({"body": r#"{"label":"red"}"#, "type": "item.update", "state": "dead"});
    assert_eq!(scene.rows(now).await, [expected]);

    // Nothing says how: the editor makes `9` of `many`.
    let many = r#"update keylane.dead_letters set body = '{"stock":"many"}' where id = "#;
    scene.execute(&format!("{many}{w3}")).await;
    let (diff, talk) = edit(&operator, &w3, &[]).await;
    assert_eq!(diff, "body /stock: \"many\" -> \"9\"\n");
    assert!(talk.contains("revision 1"), "{talk}");
    let again = operator.fails(1, &["dead-letters", "edit", &w3, "--because", "x"]).await;
    assert!(again.contains("nothing changed"), "{again}");

    let nameless = "select id from keylane.dead_letters where write_id is null";
    let nameless = scene.number(nameless).await.to_string();
    let (diff, talk) = edit(&operator, &nameless, &["--write-id", "w9"]).await;
    assert_eq!(diff, "properties /message_id: nothing -> \"w9\"\n");
    assert!(talk.contains("would be accepted"), "{talk}");
}

#[tokio::test]
async fn an_edit_that_cannot_be_is_refused_and_changes_nothing() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let w1 = id_of(&scene, "w1").await;
    let garbage = operator.file("garbage", b"{");
    let table: [(&[&str], i32, &str); 8] = [
        (&["--set", "/stock/deep=8"], 1, "`/stock/deep` points to nothing"),
        (&["--type", "order.upsert"], 1, "cannot be changed"),
        (&["--type", "item.merge"], 1, "ENTITY.CHANGE"),
        (&["--write-id", "w9"], 1, "without one"),
        (&["--body-file", &garbage], 1, "no JSON object"),
        (&["--body-file", "/nowhere"], 1, "read /nowhere"),
        (&["--set", "/a~2=1"], 2, "followed by 0 or 1"),
        (&["--set", "a"], 2, "PATH=VALUE"),
    ];
    for (more, code, says) in table {
        let args = [&["dead-letters", "edit", &w1, "--because", "x"], more].concat();
        let error = operator.fails(code, &args).await;
        assert!(error.contains(says), "{more:?}: {error}");
    }
    operator.fails(2, &["dead-letters", "edit", &w1, "--set", "a=1"]).await;
    scene.execute("update keylane.dead_letters set state = 'resolved'").await;
    let error =
        operator.fails(1, &["dead-letters", "edit", &w1, "--because", "x", "--set", "a=1"]).await;
    assert!(error.contains("is resolved"), "{error}");
    assert_eq!(scene.number("select max(revision) from keylane.dead_letters").await, 0);
    assert_eq!(scene.number("select count(*) from keylane.operator_actions").await, 0);
}

/// The state of each dead letter.
async fn states(scene: &Scene) -> String {
    let states =
        "select string_agg(coalesce(write_id, '-') || ' ' || state, ', ' order by write_id)
                      as states from keylane.dead_letters";
    scene.rows(states).await.remove(0)["states"].as_str().unwrap().to_owned()
}

const ALL: [&str; 6] = ["dead-letters", "discard", "--entity", "item", "--because", "test data"];

#[tokio::test]
async fn nothing_is_discarded_that_was_not_clearly_asked_for() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (_worker, operator) = rejected(&scene).await;
    let before = states(&scene).await;
    let (groups, talk) = operator.run(&[&ALL[..], &["--dry-run"]].concat()).await;
    assert!(groups.contains("type_mismatch") && talk.contains("would discard 4"), "{groups}{talk}");
    let table: [(&[&str], i32, &str); 7] = [
        (&["--because", "x", "--entity", "item"], 1, "4 dead letters match; add --yes"),
        (&["--because", "x", "--entity", "nobody", "--yes"], 1, "nothing matches"),
        (&["--because", "x", "--id", "999"], 1, "no dead letter 999"),
        (&["--because", "x", "--yes"], 1, "say which"),
        (&["--entity", "item"], 2, "--because"),
        (&["--because", "x", "--since", "noon"], 2, "must be a time"),
        (&["--because", "x", "--state", "gone"], 2, "possible values"),
    ];
    for (more, code, says) in table {
        let error = operator.fails(code, &[&["dead-letters", "discard"], more].concat()).await;
        assert!(error.contains(says), "{more:?}: {error}");
    }
    let w1 = id_of(&scene, "w1").await;
    let error = operator.fails(1, &["dead-letters", "restore", &w1, "--because", "x"]).await;
    assert!(error.contains("is dead"), "{error}");
    assert_eq!(states(&scene).await, before);
    assert_eq!(scene.number("select count(*) from keylane.operator_actions").await, 0);
}

#[tokio::test]
async fn a_discard_closes_dead_letters_and_a_restore_opens_them() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let (mut worker, operator) = rejected(&scene).await;
    // What the lane does with held keys is not looked at here.
    worker.kill();
    // One that stops its key, and one that rests behind it without a line in the ledger.
    scene
        .execute(
            "update keylane.dead_letters set stops = true where write_id = 'w1';
             update keylane.dead_letters set state = 'parked' where write_id = 'w2';
             delete from keylane.ledger where write_id = 'w2';
             insert into keylane.parked_keys (entity, key, generation, partition, resting)
             values ('item', 'k1', 1, 0, 1)",
        )
        .await;
    let w1 = id_of(&scene, "w1").await;
    let one = ["dead-letters", "discard", &w1, "--because", "one"];
    let (_, talk) = operator.run(&[&one[..], &["--as", "bob"]].concat()).await;
    assert!(talk.contains("discarded 1"), "{talk}");
    let key = "select resting, due_at is not null as due from keylane.parked_keys where key = 'k1'";
    assert_eq!(scene.rows(key).await, [json!({"resting": 1, "due": true})]);
    operator.run(&[&ALL[..], &["--yes"]].concat()).await;
    let expected = "w1 discarded, w2 discarded, w3 discarded, w4 discarded, - dead";
    assert_eq!(states(&scene).await, expected);
    let w2 = "select outcome, reason, key from keylane.ledger where write_id = 'w2'";
    let expected = json!({"outcome": "rejected", "reason": "discarded", "key": "k1"});
    assert_eq!(scene.rows(w2).await, [expected]);
    assert_eq!(scene.rows(key).await, [json!({"resting": 0, "due": true})]);
    let error = operator.fails(1, &one).await;
    assert!(error.contains("is discarded"), "{error}");
    let nameless = ["dead-letters", "discard", "--reason", "missing_write_id", "--because", "n"];
    operator.run(&nameless).await;

    operator.run(&["dead-letters", "restore", &w1, "--because", "needed"]).await;
    let restored = "select state, stops, state_changed_by, note from keylane.dead_letters
                     where write_id = 'w1'";
    let expected =
        json!({"state": "dead", "stops": false, "state_changed_by": "ada", "note": "needed"});
    assert_eq!(scene.rows(restored).await, [expected]);
    check_audit(&operator).await;
}

async fn check_audit(operator: &Operator) {
    let actions = operator.json(&["actions", "list"]).await;
    let brief: Vec<String> = actions
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {} {} {}", a["actor"], a["action"], a["count"], a["reason"]))
        .collect();
    let expected = [
        r#""ada" "restore" 1 "needed""#,
        r#""ada" "discard" 1 "n""#,
        r#""ada" "discard" 3 "test data""#,
        r#""bob" "discard" 1 "one""#,
    ];
    assert_eq!(brief, expected);
    assert_eq!(actions[2]["filter"], json!({"entity": "item"}));
    let bobs = operator.json(&["actions", "list", "--actor", "bob", "--action", "discard"]).await;
    assert_eq!(bobs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_a_transaction_takes_is_discarded_in_several_and_noted_once() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let operator = Operator::new(&scene);
    scene
        .execute(
            "insert into keylane.dead_letters (entity, key, write_id, fingerprint, reason,
                    routing_key, properties, body, generation, partition)
             select 'item', 'k' || n % 700, 'w' || n, sha256(n::text::bytea), 'type_mismatch',
                    'k' || n % 700, '{}', '', 1, 0 from generate_series(1, 2500) n",
        )
        .await;
    let (_, talk) = operator.run(&[&ALL[..], &["--yes"]].concat()).await;
    assert!(talk.contains("discarded 2500"), "{talk}");
    let left = "select count(*) from keylane.dead_letters where state <> 'discarded'";
    assert_eq!(scene.number(left).await, 0);
    let actions = operator.json(&["actions", "list"]).await;
    assert_eq!(actions.as_array().unwrap().len(), 1);
    assert_eq!(
        (&actions[0]["count"], &actions[0]["result"]),
        (&json!(2500), &json!("2500 discarded"))
    );
}

#[tokio::test]
async fn a_key_goes_on_when_what_stops_it_is_discarded() {
    let parking = [entities::ITEM, "on_reject = 'park'\n"].concat();
    let scene = Scene::new(entities::ITEMS, &parking).await;
    let _worker = scene.worker().await;
    let operator = Operator::new(&scene);
    let mut sender = scene.sender().await;
    let stock =
        |id: &str, stock: &str| write("item.upsert", "k", id, &format!(r#"{{"stock":{stock}}}"#));
    let writes = [stock("w1", "\"many\""), stock("w2", "2"), stock("w3", "3")];
    sender.send(&writes).await;
    let resting = "select count(*) from keylane.dead_letters where state = 'parked'";
    wait::until_equal(wait::SOON, "parked writes", 2, async || scene.number(resting).await).await;
    let w1 = id_of(&scene, "w1").await;
    let shown = operator.json(&["dead-letters", "show", &w1]).await;
    assert_eq!((&shown["behind"]["count"], &shown["stops"]), (&json!(2), &json!(true)));

    let w3 = id_of(&scene, "w3").await;
    operator.run(&["dead-letters", "edit", &w3, "--because", "x", "--set", "stock=4"]).await;
    let w2 = id_of(&scene, "w2").await;
    operator.run(&["dead-letters", "discard", &w2, "--because", "not this one"]).await;
    assert_eq!(scene.number("select count(*) from items").await, 0, "it stands still");
    let (_, talk) = operator.run(&["dead-letters", "discard", &w1, "--because", "typo"]).await;
    assert_eq!(talk, "discarded 1\n");
    let free = "select count(*) from keylane.parked_keys";
    wait::until_equal(wait::SOON, "keys that stand still", 0, async || scene.number(free).await)
        .await;
    let row = "select stock, version from items";
    assert_eq!(scene.rows(row).await, [json!({"stock": 4, "version": 1})]);
    let repeat = sender.outcome(writes[1].clone()).await;
    assert_eq!((&repeat["reason"], &repeat["replayed"]), (&json!("discarded"), &json!(true)));
}
