//! What is wrong with a request is said at once, with its place, and goes nowhere.

use super::{Stage, add, brief, patch};
use crate::support::{Request, request};

/// The largest body that the ingress of these tests takes.
const BODY_BYTES_MAX: &str = "2000";

/// Requests whose head is wrong already.
fn heads() -> Vec<(Request, &'static str)> {
    let ok = || request("PATCH", "/v1/customer/A").body("{}");
    let keyed = |key: &[u8]| ok().header_bytes("idempotency-key", key);
    let guarded = |name: &str, value: &str| patch("customer/A", "w", "{}").header(name, value);
    vec![
        (ok(), "400 missing_write_id"),
        (keyed(b"\"\""), "400 missing_write_id"),
        (keyed(b""), "400 missing_write_id"),
        (keyed(b"\"open"), "400 missing_write_id"),
        (keyed(b"a\"b"), "400 missing_write_id"),
        (keyed(br#""a\b""#), "400 missing_write_id"),
        (keyed(b"caf\xe9"), "400 missing_write_id"),
        (keyed("k".repeat(201).as_bytes()), "400 missing_write_id"),
        (keyed(b"a").header("idempotency-key", "a"), "400 missing_write_id"),
        (guarded("if-match", "W/\"1\""), "400 precondition_invalid"),
        (guarded("if-match", "\"1\", \"2\""), "400 precondition_invalid"),
        (guarded("if-match", "1"), "400 precondition_invalid"),
        (guarded("if-none-match", "\"1\""), "400 precondition_invalid"),
        (guarded("if-match", "*").header("if-none-match", "*"), "400 precondition_invalid"),
        (guarded("if-match", "*").header("if-match", "\"1\""), "400 precondition_invalid"),
        (
            request("DELETE", "/v1/customer/A").id("w").header("if-none-match", "*"),
            "400 precondition_invalid",
        ),
        (guarded("occurred-at", "yesterday"), "422 type_mismatch"),
        (guarded("occurred-at", "2026-11-21T02:00:00"), "422 type_mismatch"),
        (
            patch("order_line/a/1", "w", "{}").header("occurred-at", "2026-11-21T02:00:00Z"),
            "422 unsupported_guard",
        ),
        (
            patch("site/0a0b0c0d-1111-2222-3333-abcdefabcdef", "w", "{}")
                .header("if-match", "\"1\""),
            "422 unsupported_guard",
        ),
        (
            patch("site/0a0b0c0d-1111-2222-3333-abcdefabcdef", "w", "{}")
                .header("if-match", "\"abc\""),
            "422 unsupported_guard",
        ),
        (
            patch("customer/A", "w", r#"{"nmae":1}"#).header("if-match", "\"abc\""),
            "422 unknown_column /nmae",
        ),
        (
            guarded("occurred-at", "2026-11-21T02:00:00Z")
                .header("occurred-at", "2020-11-21T02:00:00Z"),
            "400 precondition_invalid",
        ),
        (guarded("content-encoding", "gzip"), "415 unsupported_media_type"),
        (guarded("content-type", "text/plain"), "415 unsupported_media_type"),
        (guarded("content-type", "application/merge-patch+json"), "415 unsupported_media_type"),
    ]
}

/// Requests to what is not there.
fn places() -> Vec<(Request, &'static str)> {
    let to = |method: &str, path: &str| request(method, path).id("w").body("{}");
    vec![
        (patch("nobody/A", "w", "{}"), "404 unknown_entity"),
        (to("POST", "/v1/nobody"), "404 unknown_entity"),
        (to("PATCH", "/v1/customer/A/B"), "422 key_invalid"),
        (to("PATCH", "/v1/customer/"), "422 key_invalid"),
        (to("PATCH", "/v1/customer/%00"), "422 key_invalid"),
        (to("PATCH", "/v1/customer/%ff"), "422 key_invalid"),
        (to("PATCH", "/v1/customer/%zz"), "422 key_invalid"),
        (to("PATCH", "/v1/order_line/a"), "422 key_invalid"),
        (to("PATCH", "/v1/order_line/a/seven"), "422 key_invalid"),
        (to("PATCH", &format!("/v1/customer/{}", "k".repeat(256))), "422 key_invalid"),
        // Encoded once more in the routing key, it is three times as long.
        (to("PATCH", &format!("/v1/order_line/{}/1", "%2F".repeat(85))), "422 key_invalid"),
        (to("PATCH", "/v1/site/nobody"), "422 key_invalid"),
        (to("PATCH", "/v1/customer"), "405 method_not_allowed"),
        (to("GET", "/v1/customer"), "405 method_not_allowed"),
        (to("OPTIONS", "/v1/customer/A"), "405 method_not_allowed"),
        (to("PUT", "/v1/writes"), "405 method_not_allowed"),
        (to("DELETE", "/v1/writes/customer/w"), "405 method_not_allowed"),
        (to("POST", "/v1/"), "404 no_such_path"),
        (to("POST", "/v1"), "404 no_such_path"),
        (to("POST", "/v2/customer"), "404 no_such_path"),
        (to("POST", "/v1//customer"), "404 no_such_path"),
        (to("POST", "/v1/writes").header("content-type", "text/csv"), "415 unsupported_media_type"),
        (to("POST", "/v1/writes"), "415 unsupported_media_type"),
    ]
}

/// Bodies that cannot be read, or that say what the table does not hold.
fn bodies() -> Vec<(Request, &'static str)> {
    let customer = |body: &str| patch("customer/A", "w", body);
    let line = |body: &str| patch("order_line/a/1", "w", body);
    let raw = |body: &[u8]| patch("customer/A", "w", "").body(body);
    let deep = format!(r#"{{"note":{}{}}}"#, "[".repeat(150), "]".repeat(150));
    let deeper = "[".repeat(1900);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(2000));
    vec![
        (customer(""), "400 malformed_body"),
        (customer("{"), "400 malformed_body"),
        (customer("[]"), "400 malformed_body"),
        (customer("null"), "400 malformed_body"),
        (customer("{} {}"), "400 malformed_body"),
        (customer("{\"name\":\"a\",}"), "400 malformed_body"),
        (customer("{'name':1}"), "400 malformed_body"),
        (customer(r#"{"points":NaN}"#), "400 malformed_body"),
        (customer(r#"{"name":"a","name":"a"}"#), "400 malformed_body"),
        (customer(r#"{"name":"a","\u006eame":"b"}"#), "400 malformed_body"),
        (customer(r#"{"name":"\ud800"}"#), "422 type_mismatch /name"),
        (customer("{\"name\":\"a\0b\"}"), "400 malformed_body"),
        (raw(b"{\"name\":\"\xff\"}"), "400 malformed_body"),
        (raw(b"\xef\xbb\xbf{}"), "400 malformed_body"),
        (customer(&deeper), "400 malformed_body"),
        (line(&deep), "422 type_mismatch /note"),
        (customer(&large), "413 body_too_large"),
        (customer(r#"{"name":"a\u0000b"}"#), "422 type_mismatch /name"),
        (customer(r#"{"nmae":"a"}"#), "422 unknown_column /nmae"),
        (customer(r#"{"a/b~c":"a"}"#), "422 unknown_column /a~1b~0c"),
        (customer(r#"{"version":7}"#), "422 unknown_column /version"),
        (customer(r#"{"deleted_at":null}"#), "422 unknown_column /deleted_at"),
        (customer(r#"{"name":7}"#), "422 type_mismatch /name"),
        (customer(r#"{"points":"seven"}"#), "422 type_mismatch /points"),
        (customer(r#"{"points":1.5}"#), "422 type_mismatch /points"),
        (customer(r#"{"points":9223372036854775808}"#), "422 type_mismatch /points"),
        (customer(r#"{"balance":1.005}"#), "422 type_mismatch /balance"),
        (customer(r#"{"points":null}"#), "422 constraint_violation /points"),
        (line(r#"{"picks":[1,"two",3]}"#), "422 type_mismatch /picks/1"),
        (customer(r#"{"external_id":"B"}"#), "422 key_mismatch /external_id"),
        (line(r#"{"line":2}"#), "422 key_mismatch /line"),
        (add("customer/A", "w", r#"{"name":"a"}"#), "422 type_mismatch /name"),
        (add("customer/A", "w", r#"{"points":null}"#), "422 type_mismatch /points"),
        (
            request("DELETE", "/v1/customer/A").id("w").body(r#"{"name":"a"}"#),
            "422 unknown_column /name",
        ),
        (request("POST", "/v1/customer").id("w").body("{}"), "422 key_invalid /external_id"),
        (
            request("POST", "/v1/customer").id("w").body(r#"{"external_id":null}"#),
            "422 key_invalid /external_id",
        ),
        (request("POST", "/v1/customer").id("w").body("["), "400 malformed_body"),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place_and_is_never_published() {
    let mut stage = Stage::with(&[("http.body_bytes_max", BODY_BYTES_MAX)]).await;
    let mut wrong = Vec::new();
    for (call, expected) in [heads(), places(), bodies()].concat() {
        let answer = stage.send(call.clone()).await;
        let found = brief(&answer);
        if found != expected {
            wrong.push(format!("{call:?}\n  expected {expected}\n  found {found}"));
        }
        // The same id everywhere, and it is named once it could be read.
        let body = answer.json();
        let named = body["write_id"] == "w";
        let too_early = [400, 404, 405, 415].contains(&answer.status)
            || ["%ff", "%zz"].iter().any(|it| call.path.contains(it));
        assert!(named || too_early, "{call:?}: {body}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // One queue a partition and one order in it: what had been published would be decided by now.
    for key in ["A", "B", "C", "D", "E", "F"] {
        stage.send(patch(&format!("customer/{key}"), key, "{}")).await.was(201);
    }
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 0);
    assert_eq!(stage.number("select count(*) from keylane.ledger").await, 6);
    let after = stage.send(patch("customer/A", "w", "{}")).await;
    assert_eq!(brief(&after), "200 updated 2", "a refused id is still free");
}

#[tokio::test]
async fn the_body_may_come_in_chunks_and_is_bounded_all_the_same() {
    use futures_util::stream;
    use hyper::body::Bytes;
    let mut stage = Stage::with(&[("http.body_bytes_max", BODY_BYTES_MAX)]).await;
    let chunks = [r#"{"na"#, r#"me":""#, "Ada", "\"}"].map(Bytes::from);
    let call = patch("customer/A", "1", "");
    let answer = stage.client.stream(&call, stream::iter(chunks)).await;
    assert_eq!(answer.status(), 201);
    stage.client.cut();
    let large = [" ".repeat(1999), "  ".to_owned()].map(Bytes::from);
    let answer = stage.client.stream(&patch("customer/A", "2", ""), stream::iter(large)).await;
    assert_eq!(answer.status(), 413);
    stage.client.cut();
    assert_eq!(stage.number("select count(*) from customers where name = 'Ada'").await, 1);
}
