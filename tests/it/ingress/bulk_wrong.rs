//! What is wrong in a bulk request: said in its place, and no harm to what stands beside it.

use serde_json::{Value, json};

use super::bulk::{bulk, item, result};
use super::{Stage, brief, patch};
use crate::support::{Request, request};

fn array() -> Request {
    request("POST", "/v1/writes").header("content-type", "application/json")
}

async fn results(stage: &mut Stage, call: Request) -> Vec<Value> {
    let answer = stage.send(call).await.was(200);
    if answer.header("content-type") == Some("application/json") {
        return answer.json().as_array().unwrap().clone();
    }
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn brief_of(results: &[Value]) -> Vec<String> {
    results.iter().map(result).collect()
}

#[tokio::test]
async fn a_wrong_element_of_an_array_costs_nobody_behind_it_their_place() {
    let mut stage = Stage::with(&[("http.body_bytes_max", "2000")]).await;
    let good = |id: &str| item("increment", "A", id, r#"{"points":1}"#);
    let long = item("upsert", "A", "long", &json!({"name": "x".repeat(9_000)}).to_string());
    let body = format!("[{},1,{},{long},[[{{}}],\"]\"],{}]", good("1"), good("2"), good("3"));
    let found = results(&mut stage, array().body(body)).await;
    let (wrong, none) = ("rejected malformed_body", "rejected body_too_large");
    let applied = |version: u32| {
        let effect = if version == 1 { "created" } else { "updated" };
        format!("applied {effect} {version}")
    };
    let expected =
        [applied(1), wrong.to_owned(), applied(2), none.to_owned(), wrong.to_owned(), applied(3)];
    assert_eq!(brief_of(&found), expected);

    // What is no JSON any more ends it, behind what stood before.
    for (text, id) in [(",]", "4"), ("{}]", "5"), ("", "6"), ("]]", "7")] {
        let found = results(&mut stage, array().body(format!("[{}{text}", good(id)))).await;
        assert_eq!(found.len(), 2, "{text}: {found:?}");
        assert_eq!(found[0]["outcome"], "applied", "{text}: {found:?}");
        assert_eq!(result(&found[1]), wrong, "{text}: {found:?}");
    }
    for text in ["", "{}", "7", "  \n", "\"[\""] {
        let answer = stage.send(array().body(text)).await;
        assert_eq!(brief(&answer), "400 malformed_body", "{text}");
    }
    let lines = [good("8"), "x".repeat(9_000), good("9")].join("\n");
    let found = results(&mut stage, bulk().body(lines)).await;
    assert_eq!(brief_of(&found), [applied(8), none.to_owned(), applied(9)]);
}

#[tokio::test]
async fn a_result_names_its_item_and_the_member_to_blame() {
    let mut stage = Stage::new().await;
    let with =
        |members: &str| format!(r#"{{"entity":"customer","change":"upsert","key":"A",{members}}}"#);
    let table = [
        (with(r#""body":{}"#), "rejected missing_write_id /id", None),
        (with(r#""id":"","body":{}"#), "rejected missing_write_id /id", Some("")),
        (with(r#""id":"1","body":[]"#), "rejected malformed_body /body", Some("1")),
        (with(r#""id":"2","body":{},"x":1"#), "rejected malformed_body", Some("2")),
        (
            with(r#""id":"3","body":{},"occurred_at":"yesterday""#),
            "rejected type_mismatch /occurred_at",
            Some("3"),
        ),
        (
            with(r#""id":"4","body":{},"if_version":-1"#),
            "rejected type_mismatch /if_version",
            Some("4"),
        ),
        (with(r#""id":"5","body":{"nmae":1}"#), "rejected unknown_column /nmae", Some("5")),
    ];
    let lines: Vec<&str> = table.iter().map(|(line, ..)| line.as_str()).collect();
    let found = results(&mut stage, bulk().body(lines.join("\n"))).await;
    assert_eq!(found.len(), table.len());
    for ((line, expected, id), found) in table.iter().zip(&found) {
        assert_eq!(&result(found), expected, "{line}");
        let names = (&found["entity"], &found["key"], &found["write_id"]);
        assert_eq!(names, (&json!("customer"), &json!("A"), &json!(id)), "{line}");
    }
    let positions = r#"["customer","upsert","A","6",{},null,null]"#;
    let found = results(&mut stage, bulk().body(positions)).await;
    assert_eq!(brief_of(&found), ["rejected malformed_body"]);
    for found in found {
        assert!(!found["detail"].as_str().unwrap().contains("struct"), "{found}");
    }
    assert_eq!(stage.number("select count(*) from customers").await, 0);
}

#[tokio::test]
async fn an_id_that_the_ledger_knows_is_not_published_again() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "1", r#"{"points":1}"#)).await.was(201);
    let lines = [
        item("upsert", "A", "1", r#"{"points":1}"#),
        item("upsert", "A", "1", r#"{"points":2}"#),
        item("upsert", "B", "1", r#"{"points":1}"#),
        item("upsert", "A", "2", r#"{"points":2}"#),
    ];
    let found = results(&mut stage, bulk().body(lines.join("\n"))).await;
    let reused = "rejected write_id_reused";
    let expected = ["applied created 1 again", reused, reused, "applied updated 2"];
    assert_eq!(brief_of(&found), expected);
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 0);
    assert_eq!(stage.number("select points from customers").await, 2);
}

#[tokio::test]
async fn a_header_that_would_guard_one_write_guards_no_bulk_request() {
    let mut stage = Stage::new().await;
    let headers = [
        ("if-match", "*", "400 precondition_invalid"),
        ("if-none-match", "*", "400 precondition_invalid"),
        ("occurred-at", "2026-11-21T02:00:00Z", "400 precondition_invalid"),
        ("idempotency-key", "\"1\"", "400 missing_write_id"),
    ];
    for (name, value, expected) in headers {
        let call = bulk().header(name, value).body(item("upsert", "A", "1", "{}"));
        assert_eq!(brief(&stage.send(call).await), expected, "{name}");
    }
    assert_eq!(stage.number("select count(*) from customers").await, 0);
}
