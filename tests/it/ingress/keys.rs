//! Which row a path is about, and reading it back.

use serde_json::json;

use super::{Stage, brief, patch};
use crate::support::request;

#[tokio::test]
async fn a_path_and_a_body_in_any_spelling_are_the_one_key_of_their_row() {
    let mut stage = Stage::new().await;
    let upper = "site/0A0B0C0D-1111-2222-3333-ABCDEFABCDEF";
    let lower = "0a0b0c0d-1111-2222-3333-abcdefabcdef";
    let site = format!(r#"{{"id":"{}","name":"c"}}"#, lower.to_uppercase());
    let calls = [
        (patch("order_line/a%2Fb/7", "1", r#"{"qty":1}"#), "201 created 1", "a%2Fb/7"),
        (patch("order_line/a%2fb/07", "2", r#"{"qty":2}"#), "200 updated 2", "a%2Fb/7"),
        (patch("order_line/a%2Fb/%2B7", "3", r#"{"qty":3}"#), "200 updated 3", "a%2Fb/7"),
        (
            request("POST", "/v1/order_line")
                .id("4")
                .body(r#"{"order_no":"a/b","line":7,"qty":4}"#),
            "200 updated 4",
            "a%2Fb/7",
        ),
        (
            patch("order_line/50%25%20%C3%A9%3F/1", "5", r#"{"qty":5}"#),
            "201 created 1",
            "50%25 é?/1",
        ),
        (patch(upper, "6", r#"{"name":"a"}"#), "201 created -", lower),
        (patch(&format!("site/{lower}"), "7", r#"{"name":"b"}"#), "200 updated -", lower),
        (request("POST", "/v1/site").id("8").body(site), "200 updated -", lower),
    ];
    for (call, expected, key) in calls {
        let answer = stage.send(call.clone()).await;
        assert_eq!(brief(&answer), expected, "{call:?}");
        if answer.status < 300 {
            assert_eq!(answer.json()["key"], key, "{call:?}");
        }
    }
    let rows = "select order_no, line, qty from order_lines order by order_no";
    let expected = [
        json!({"order_no": "50% é?", "line": 1, "qty": 5}),
        json!({"order_no": "a/b", "line": 7, "qty": 4}),
    ];
    assert_eq!(stage.scene.rows(rows).await, expected);
    assert_eq!(stage.number("select count(*) from sites where name = 'c'").await, 1);
    assert_eq!(stage.number("select count(*) from sites").await, 1);
}

#[tokio::test]
async fn the_row_is_read_back_with_its_version_as_its_tag() {
    let mut stage = Stage::new().await;
    let body = r#"{"name":"Ada","balance":9007199254740993.25}"#;
    let too_large = stage.send(patch("customer/A", "0", body)).await;
    assert_eq!(brief(&too_large), "422 type_mismatch /balance");
    let body = r#"{"name":"Ada","balance":1234567890.50,"points":9007199254740993}"#;
    stage.send(patch("customer/A", "1", body)).await.was(201);
    let read = || request("GET", "/v1/customer/A");
    let row = stage.send(read()).await.was(200);
    assert_eq!(
        (row.header("etag"), row.header("content-type")),
        (Some("\"1\""), Some("application/json"))
    );
    assert!(row.text().contains("9007199254740993"), "numbers are exact: {}", row.text());
    assert!(row.text().contains("1234567890.50"), "numbers are exact: {}", row.text());
    for (tag, status) in
        [("\"1\"", 304), ("W/\"1\"", 304), ("\"7\", \"1\"", 304), ("*", 304), ("\"2\"", 200)]
    {
        let answer = stage.send(read().header("if-none-match", tag)).await;
        assert_eq!(answer.status, status, "{tag}");
        assert_eq!(answer.header("etag"), Some("\"1\""), "{tag}");
        assert_eq!(answer.body.is_empty(), status == 304, "{tag}");
    }
    let two = read().header("if-none-match", "\"7\"").header("if-none-match", "\"1\"");
    assert_eq!(stage.send(two).await.status, 304, "two lines are one list");
    let head = stage.send(request("HEAD", "/v1/customer/A")).await.was(200);
    assert_eq!((head.header("etag"), head.body.len()), (Some("\"1\""), 0));

    let delete = request("DELETE", "/v1/customer/A").id("2");
    assert_eq!(brief(&stage.send(delete).await), "200 deleted -");
    assert_eq!(stage.number("select count(*) from customers").await, 1, "it is marked");
    assert_eq!(brief(&stage.send(read()).await), "404 no_such_row");
    let nowhere = [
        ("/v1/customer/nobody", "404 no_such_row"),
        ("/v1/order_line/a/7", "404 no_such_row"),
        ("/v1/order_line/a", "422 key_invalid"),
        ("/v1/order_line/a/b", "422 key_invalid"),
        ("/v1/nothing/a", "404 unknown_entity"),
        ("/v1/writes/nothing/a", "404 unknown_entity"),
    ];
    for (path, expected) in nowhere {
        assert_eq!(brief(&stage.send(request("GET", path)).await), expected, "{path}");
    }
}
