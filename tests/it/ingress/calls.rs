//! Each call of the contract: method and precondition are the change, the status is the outcome.

use serde_json::json;

use super::{Stage, brief};
use crate::support::request;

/// Method, path below `/v1/customer`, a header (or none), body, and what comes of it.
type Step = (&'static str, &'static str, &'static str, &'static str, &'static str);

const NEVER: &str = "occurred-at: 2020-01-01T00:00:00Z";
const LATER: &str = "occurred-at: 2021-01-01T00:00:00.5+01:00";

/// One row's life, in order.
const LIFE: &[Step] = &[
    ("PATCH", "/A", "if-match: *", r#"{"name":"Ada"}"#, "412 not_found"),
    ("PATCH", "/A", "if-match: \"1\"", r#"{"name":"Ada"}"#, "412 version_mismatch"),
    ("PUT", "/A", "if-match: *", r#"{"name":"Ada"}"#, "412 version_mismatch"),
    ("DELETE", "/A", "if-match: \"1\"", "", "412 version_mismatch"),
    ("DELETE", "/A", "", "", "200 unchanged -"),
    ("PATCH", "/A", "", r#"{"name":"Ada"}"#, "201 created 1"),
    ("PATCH", "/A", "if-match: \"1\"", r#"{"points":5}"#, "200 updated 2"),
    ("PATCH", "/A", "if-match: \"1\"", r#"{"points":6}"#, "412 version_mismatch"),
    ("PATCH", "/A", "if-none-match: *", r#"{"points":7}"#, "412 already_exists"),
    ("PATCH", "/A", "if-match: *", r#"{"balance":1.50}"#, "200 updated 3"),
    ("POST", "/A", "", r#"{"points":2}"#, "200 updated 4"),
    ("POST", "/A", "if-match: \"3\"", r#"{"points":2}"#, "412 version_mismatch"),
    ("POST", "/A", "if-match: \"4\"", r#"{"points":-1}"#, "200 updated 5"),
    ("PUT", "/A", "if-none-match: *", r#"{"name":"Eve"}"#, "412 version_mismatch"),
    ("PUT", "/A", "if-match: \"5\"", r#"{"name":"Eve","points":1}"#, "200 updated 6"),
    ("PUT", "/A", "if-match: *", r#"{"name":"Eva"}"#, "200 updated 7"),
    ("PUT", "/A", "", r#"{"name":"Eva","points":3}"#, "200 updated 8"),
    ("POST", "", "", r#"{"external_id":"A","points":4}"#, "200 updated 9"),
    ("POST", "", "if-none-match: *", r#"{"external_id":"A"}"#, "412 already_exists"),
    ("POST", "", "if-match: \"9\"", r#"{"external_id":"A","name":"Ev"}"#, "200 updated 10"),
    ("POST", "", "if-none-match: *", r#"{"external_id":"B"}"#, "201 created 1"),
    ("POST", "/C", "", r#"{"points":1}"#, "201 created 1"),
    ("PUT", "/D", "if-none-match: *", r#"{"name":"Dan"}"#, "201 created 1"),
    ("PATCH", "/A", LATER, r#"{"points":9}"#, "200 updated 11"),
    ("PATCH", "/A", NEVER, r#"{"points":8}"#, "412 older_than_row"),
    ("PATCH", "/A", "if-match: \"abc\"", r#"{"points":8}"#, "412 version_mismatch"),
    ("PATCH", "/A", "if-match: \"011\"", r#"{"points":8}"#, "412 version_mismatch"),
    ("DELETE", "/A", "if-match: \"1\"", "", "412 version_mismatch"),
    ("DELETE", "/A", "if-match: \"11\"", "", "200 deleted -"),
    ("DELETE", "/A", "", "", "200 unchanged -"),
    ("PATCH", "/A", "if-match: *", r#"{"points":8}"#, "412 not_found"),
    ("PATCH", "/A", "if-match: \"12\"", r#"{"points":8}"#, "412 version_mismatch"),
    ("PATCH", "/A", "if-none-match: *", r#"{"points":8}"#, "201 created 13"),
    ("DELETE", "/A", "if-match: *", "{}", "200 deleted -"),
];

#[tokio::test]
async fn every_method_with_every_precondition_is_the_change_that_the_contract_names() {
    let mut stage = Stage::new().await;
    let mut answers = Vec::new();
    for (number, (method, path, header, body, expected)) in LIFE.iter().enumerate() {
        let mut call = request(method, &format!("/v1/customer{path}"));
        if let Some((name, value)) = header.split_once(": ") {
            call = call.header(name, value);
        }
        let call = call.id(&format!("life-{number}")).body(*body);
        let answer = stage.send(call.clone()).await;
        assert_eq!(brief(&answer), *expected, "{number}: {method} {path} {header}");
        answers.push((call, answer));
    }
    // The same again, in any order: nothing changes, and everybody is told the same.
    let rows = "select to_jsonb(c) as c from customers c order by external_id";
    let before = stage.scene.rows(rows).await;
    for (call, first) in answers.into_iter().rev() {
        let again = stage.send(call.clone()).await;
        // An ETag that no row ever had needs no look at any row.
        let local = first.json()["outcome"].is_null();
        let expected = if local { brief(&first) } else { brief(&first) + " again" };
        assert_eq!(brief(&again), expected, "{call:?}");
        assert!(local || super::told(&again) == super::told(&first), "{first:?} {again:?}");
    }
    assert_eq!(stage.scene.rows(rows).await, before);
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 0);
}

#[tokio::test]
async fn put_gives_the_columns_that_it_does_not_name_their_defaults() {
    let mut stage = Stage::new().await;
    let all = r#"{"name":"Ada","points":3,"balance":12345678.25}"#;
    stage.send(super::patch("customer/A", "1", all)).await.was(201);
    let put = request("PUT", "/v1/customer/A").id("2").body(r#"{"balance":null}"#);
    stage.send(put).await.was(200);
    let row = stage.send(request("GET", "/v1/customer/A")).await.was(200).json();
    assert_eq!(
        (&row["name"], &row["points"], &row["balance"]),
        (&json!(null), &json!(10), &json!(null))
    );
}

#[tokio::test]
async fn an_unmet_condition_is_told_as_it_was_set() {
    let mut stage = Stage::new().await;
    let site = "site/0a0b0c0d-1111-2222-3333-abcdefabcdef";
    let put = |path: &str, id: &str, name: &str| {
        request("PUT", &format!("/v1/{path}")).id(id).header(name, "*").body("{}")
    };
    stage.send(super::patch(site, "0", "{}")).await.was(201);
    stage.send(super::patch("customer/A", "0", "{}")).await.was(201);
    let absent = "site/0a0b0c0d-1111-2222-3333-000000000000";
    let table = [
        (put(site, "1", "if-none-match"), "the row is there already"),
        (put(absent, "2", "if-match"), "there is no row with this key"),
        (put("customer/A", "3", "if-none-match"), "the row is at version 1"),
    ];
    for (call, detail) in table {
        let answer = stage.send(call.clone()).await;
        assert_eq!(brief(&answer), "412 version_mismatch", "{call:?}");
        assert_eq!(answer.json()["detail"], detail, "{call:?}");
    }
}

#[tokio::test]
async fn worker_and_ingress_in_one_process_do_the_same() {
    let stage = Stage::new().await;
    let config = stage.scene.config();
    let run = crate::support::Process::spawn_command("run", &config, &[]).ready().await;
    drop(stage.worker);
    drop(stage.ingress);
    let mut client = crate::support::Client::new(run.port);
    let answer = client.send(super::patch("customer/A", "1", r#"{"name":"Ada"}"#)).await;
    assert_eq!(brief(&answer), "201 created 1");
    let row = client.send(request("GET", "/v1/customer/A")).await.was(200);
    assert_eq!(row.json()["name"], "Ada");
    assert_eq!(client.send(request("GET", "/livez")).await.status, 200);
    assert!(client.send(request("GET", "/metrics")).await.text().contains("keylane_http_"));
}
