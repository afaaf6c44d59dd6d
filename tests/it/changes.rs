//! Every change and guard, seen by a sender: the outcome, the row, the ledger.

use serde_json::{Value, json};

use crate::support::sender::brief;
use crate::support::{Scene, Write, entities, write};

/// Key, change, body, guard (`name value`), and the outcome in short.
type Step = (&'static str, &'static str, &'static str, &'static str, &'static str);

const OLD: &str = "occurred-at 2026-01-01T00:00:00Z";
const NEW: &str = "occurred-at 2026-01-01T02:00:00+01:00";

fn customers() -> Vec<Step> {
    vec![
        ("A", "customer.upsert", r#"{"name":"a"}"#, "", "applied created 1"),
        ("A", "customer.upsert", r#"{"name":"b","external_id":"A"}"#, "", "applied updated 2"),
        ("A", "customer.create", r#"{"name":"c"}"#, "", "precondition_failed already_exists 2"),
        ("A", "customer.update", r#"{"points":null}"#, "", "rejected constraint_violation -"),
        ("A", "customer.update", r#"{"balance":1.25}"#, "if-version 2", "applied updated 3"),
        ("A", "customer.update", "{}", "if-version 2", "precondition_failed version_mismatch 3"),
        ("A", "customer.upsert", "{}", "if-version 0", "precondition_failed version_mismatch 3"),
        ("A", "customer.upsert", "{}", "if-version *", "applied updated 4"),
        ("A", "customer.increment", r#"{"points":5,"balance":0.75}"#, "", "applied updated 5"),
        ("A", "customer.replace", r#"{"name":"d"}"#, NEW, "applied updated 6"),
        ("A", "customer.update", r#"{"name":"e"}"#, OLD, "precondition_failed older_than_row 6"),
        ("A", "customer.update", r#"{"name":"f"}"#, NEW, "applied updated 7"),
        // An older delete must not win, and an older write must not bring the row back.
        ("A", "customer.delete", "{}", OLD, "precondition_failed older_than_row 7"),
        ("A", "customer.delete", "", "", "applied deleted -"),
        ("A", "customer.delete", "", "", "applied unchanged -"),
        ("A", "customer.upsert", r#"{"name":"g"}"#, OLD, "precondition_failed older_than_row -"),
        ("A", "customer.update", r#"{"name":"h"}"#, "", "precondition_failed not_found -"),
        ("A", "customer.upsert", "{}", "if-version *", "precondition_failed version_mismatch -"),
        ("A", "customer.create", r#"{"name":"i"}"#, "if-version 0", "applied created 9"),
        ("B", "customer.increment", r#"{"points":-3}"#, "", "applied created 1"),
        ("C", "customer.update", "{}", "", "precondition_failed not_found -"),
        ("C", "customer.delete", "", "", "applied unchanged -"),
        ("C", "customer.replace", r#"{"balance":2.505}"#, "", "rejected type_mismatch -"),
        ("C", "customer.replace", r#"{"balance":2.50}"#, "", "applied created 1"),
    ]
}

fn items() -> Vec<Step> {
    vec![
        ("a/b%2F", "item.create", r#"{"stock":1}"#, "", "applied created 1"),
        ("a/b%2F", "item.increment", r#"{"stock":2147483646}"#, "", "applied updated 2"),
        ("a/b%2F", "item.increment", r#"{"stock":1}"#, "", "rejected type_mismatch -"),
        ("a/b%2F", "item.upsert", r#"{"label":null}"#, NEW, "rejected unsupported_guard -"),
        ("a/b%2F", "item.upsert", r#"{"label":null}"#, "if-version 2", "applied updated 3"),
        // A hard delete forgets the version.
        ("D", "item.upsert", "{}", "", "applied created 1"),
        ("D", "item.upsert", "{}", "", "applied updated 2"),
        ("D", "item.delete", "{}", "if-version 1", "precondition_failed version_mismatch 2"),
        ("D", "item.delete", "{}", "if-version 2", "applied deleted -"),
        ("D", "item.create", r#"{"label":"again"}"#, "", "applied created 1"),
        ("E", "item.upsert", "{}", "", "applied created 1"),
        ("E", "item.delete", "{}", "", "applied deleted -"),
    ]
}

fn writes(steps: &[Step]) -> Vec<Write> {
    let numbered = steps.iter().enumerate();
    numbered
        .map(|(number, (key, kind, body, guard, _))| {
            let write = write(kind, key, &format!("{kind} {number}"), body);
            match guard.split_once(' ') {
                Some((name, value)) => write.header(name, value),
                None => write,
            }
        })
        .collect()
}

#[tokio::test]
async fn every_change_and_guard_gives_its_outcome_and_its_row() {
    let tables = [entities::CUSTOMERS, entities::ITEMS].concat();
    let scene = Scene::new(&tables, &[entities::CUSTOMER, entities::ITEM].concat()).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let steps = [customers(), items()].concat();
    let writes = writes(&steps);

    let outcomes = sender.outcomes(&writes).await;
    for (step, outcome) in steps.iter().zip(&outcomes) {
        assert_eq!(brief(outcome), step.4, "{step:?}: {outcome}");
    }
    assert_shape(&outcomes[0]);

    let rows = "select external_id, name, points, balance, version, deleted_at is not null as gone,
                       source_updated_at from customers order by external_id";
    let expected_rows = vec![
        json!({"external_id": "A", "name": "i", "points": 10, "balance": null, "version": 9,
               "gone": false, "source_updated_at": "2026-01-01T01:00:00+00:00"}),
        json!({"external_id": "B", "name": null, "points": 7, "balance": null, "version": 1,
               "gone": false, "source_updated_at": null}),
        json!({"external_id": "C", "name": null, "points": 10, "balance": number("2.50"),
               "version": 1, "gone": false, "source_updated_at": null}),
    ];
    assert_eq!(scene.rows(rows).await, expected_rows);
    let items = "select sku, label, stock, version from items order by sku";
    let expected_items = vec![
        json!({"sku": "D", "label": "again", "stock": 0, "version": 1}),
        json!({"sku": "a/b%2F", "label": null, "stock": i32::MAX, "version": 3}),
    ];
    assert_eq!(scene.rows(items).await, expected_items);

    let ledger = scene.rows("select * from keylane.ledger order by applied_at, write_id").await;
    assert_eq!(ledger.len(), writes.len());
    for outcome in &outcomes {
        let line = ledger.iter().find(|line| line["write_id"] == outcome["write_id"]).unwrap();
        for name in ["entity", "key", "outcome", "effect", "reason", "version"] {
            assert_eq!(line[name], outcome[name], "{name} of {outcome}");
        }
    }

    // The same again changes nothing, in any order and however often.
    let mut again = writes.clone();
    again.reverse();
    let mut replayed = sender.outcomes(&again).await;
    replayed.reverse();
    for (first, repeat) in outcomes.iter().zip(&replayed) {
        let mut expected = first.clone();
        expected["replayed"] = json!(true);
        assert_eq!(*repeat, expected);
    }
    assert_eq!(scene.rows(rows).await, expected_rows);
    assert_eq!(scene.rows(items).await, expected_items);
    let after = scene.rows("select * from keylane.ledger order by applied_at, write_id").await;
    assert_eq!(after, ledger);
    let rejected = outcomes.iter().filter(|outcome| outcome["outcome"] == "rejected").count();
    let dead = scene.number("select count(*) from keylane.dead_letters").await;
    assert_eq!(usize::try_from(dead).unwrap(), rejected, "a repeat is no second dead letter");
}

/// WIRE.md, section 4: these members, in these types.
fn assert_shape(outcome: &Value) {
    let mut names: Vec<&String> = outcome.as_object().unwrap().keys().collect();
    names.sort();
    let expected = [
        "applied_at",
        "detail",
        "effect",
        "entity",
        "key",
        "outcome",
        "reason",
        "replayed",
        "version",
        "write_id",
    ];
    assert_eq!(names, expected);
    let applied_at = outcome["applied_at"].as_str().unwrap();
    assert!(applied_at.ends_with('Z') && applied_at.as_bytes()[10] == b'T', "{applied_at}");
    let mut rest = outcome.clone();
    rest.as_object_mut().unwrap().remove("applied_at");
    let expected = json!({
        "entity": "customer", "key": "A", "write_id": "customer.upsert 0", "outcome": "applied",
        "effect": "created", "version": 1, "reason": null, "detail": null, "replayed": false,
    });
    assert_eq!(rest, expected);
}

/// A number with all its digits.
fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_write_id_stands_for_one_content_only() {
    let scene = Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let first = write("customer.upsert", "A", "w", r#"{"name":"a","points":1}"#);
    assert_eq!(brief(&sender.outcome(first.clone()).await), "applied created 1");

    // The order of members, blanks, a key column in the body and the form of a number do not
    // make another content.
    for body in [
        r#"{"points":1,"name":"a"}"#,
        "{ \"name\" : \"\\u0061\", \"points\" : 1 }",
        r#"{"name":"a","points":1,"external_id":"A"}"#,
    ] {
        let repeat = sender.outcome(write("customer.upsert", "A", "w", body)).await;
        assert_eq!(
            (brief(&repeat), &repeat["replayed"]),
            ("applied created 1".into(), &json!(true))
        );
    }
    let others = [
        write("customer.upsert", "A", "w", r#"{"name":"b","points":1}"#),
        write("customer.upsert", "A", "w", "{"),
        write("customer.update", "A", "w", r#"{"name":"a","points":1}"#),
        first.clone().header("if-version", "1"),
        first.clone().header("occurred-at", "2026-01-01T00:00:00Z"),
    ];
    for other in &others {
        let outcome = sender.outcome(other.clone()).await;
        assert_eq!(brief(&outcome), "rejected write_id_reused -", "{other:?}");
        assert_eq!(outcome["replayed"], false);
    }
    // Sent once more each, they are still one dead letter each.
    sender.outcomes(&others).await;
    let dead = "select count(*) from keylane.dead_letters where reason = 'write_id_reused'";
    assert_eq!(scene.number(dead).await, i64::try_from(others.len()).unwrap());
    assert_eq!(scene.number("select count(*) from keylane.ledger").await, 1);
    let row = scene.rows("select name, points, version from customers").await;
    assert_eq!(row, [json!({"name": "a", "points": 1, "version": 1})]);
    assert_eq!(sender.outcome(first).await["replayed"], true, "the first one stands");
}
