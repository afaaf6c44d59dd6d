//! Many writes in one request: streamed both ways, each with its own result.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Stage, brief};
use crate::support::{Client, OwnServers, Request, Scene, entities, request, wait};

pub(super) fn bulk() -> Request {
    request("POST", "/v1/writes").header("content-type", "application/x-ndjson")
}

pub(super) fn item(change: &str, key: &str, id: &str, body: &str) -> String {
    let (key, id) = (json!(key), json!(id));
    format!(r#"{{"entity":"customer","change":"{change}","key":{key},"id":{id},"body":{body}}}"#)
}

/// A result in short: `applied created 1`, `rejected type_mismatch /points`, `not_sent`.
pub(super) fn result(result: &Value) -> String {
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let version = result["version"].as_i64().map(|version| version.to_string());
    let again = if result["replayed"] == true { "again".to_owned() } else { String::new() };
    let parts = [
        text("outcome"),
        text("effect"),
        text("reason"),
        text("pointer"),
        version.unwrap_or_default(),
        again,
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn results(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Eight items, of which several are wrong, and what comes of each.
fn mixed() -> Vec<(String, &'static str)> {
    vec![
        (item("upsert", "A", "1", r#"{"name":"a"}"#), "applied created 1"),
        (item("increment", "A", "2", r#"{"points":5}"#), "applied updated 2"),
        (item("upsert", "A", "3", r#"{"points":"x"}"#), "rejected type_mismatch /points"),
        (r#"{"entity":"customer"}"#.to_owned(), "rejected malformed_body"),
        (item("frobnicate", "A", "4", "{}"), "rejected unknown_change"),
        (item("create", "A", "5", "{}"), "precondition_failed already_exists 2"),
        (item("upsert", "B", "6", "{}").replace("customer", "nobody"), "rejected unknown_entity"),
        (item("delete", "A", "7", "{}"), "applied deleted"),
        (item("upsert", "B", "8", r#"{"name":"b"}"#), "applied created 1"),
        (item("increment", "A", "2", r#"{"points":5}"#), "applied updated 2 again"),
    ]
}

#[tokio::test]
async fn each_item_has_its_result_in_its_place_and_a_wrong_one_spoils_no_other() {
    let mut stage = Stage::new().await;
    let (items, expected): (Vec<String>, Vec<&str>) = mixed().into_iter().unzip();
    let answer = stage.send(bulk().body(items.join("\n"))).await.was(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let found = results(answer.text());
    assert_eq!(found.iter().map(result).collect::<Vec<_>>(), expected);
    let ids: Vec<&Value> = found.iter().map(|result| &result["write_id"]).collect();
    let null = json!(null);
    for (place, id) in [(0, "1"), (2, "3"), (4, "4"), (6, "6"), (9, "2")] {
        assert_eq!(ids[place], &json!(id), "{place}");
    }
    assert_eq!(ids[3], &null);
    let rows = "select external_id as k, points from customers where deleted_at is null";
    assert_eq!(stage.scene.rows(rows).await, [json!({"k": "B", "points": 10})]);
    let letters = "select count(*) from keylane.dead_letters";
    assert_eq!(stage.number(letters).await, 0, "what is wrong was never published");

    // The same as an array: everything is told again, in the other form.
    let array = format!(
        "[{}]",
        items[..3].iter().chain(&items[5..]).cloned().collect::<Vec<_>>().join(" ,\n")
    );
    let as_array = request("POST", "/v1/writes").header("content-type", "application/json");
    let answer = stage.send(as_array.clone().body(array)).await.was(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let again: Vec<String> = answer.json().as_array().unwrap().iter().map(result).collect();
    let told = |place: usize| match expected[place] {
        text if text.starts_with("rejected") || text.ends_with("again") => text.to_owned(),
        text => format!("{text} again"),
    };
    assert_eq!(again, [0, 1, 2, 5, 6, 7, 8, 9].map(told));
    assert_eq!(stage.send(as_array.clone().body("[]")).await.was(200).text(), "[]");
    assert_eq!(stage.send(bulk()).await.was(200).text(), "");
    let broken = stage.send(as_array.body("[{]")).await.was(200).json();
    assert_eq!(broken[0]["outcome"], "rejected", "{broken}");
}

#[tokio::test]
async fn an_answer_in_another_form_is_refused_before_anything_is_accepted() {
    let mut stage = Stage::new().await;
    let call = bulk().header("accept", "application/xml").body(item("upsert", "A", "1", "{}"));
    assert_eq!(brief(&stage.send(call).await), "406 not_acceptable");
    let never = bulk().header("accept", "*/*, application/x-ndjson;q=0");
    assert_eq!(brief(&stage.send(never.body("{}")).await), "406 not_acceptable");
    let wait = bulk().header("accept", "Application/X-NDJSON").header("prefer", "wait=60");
    let wait = wait.body(item("upsert", "A", "2", "{}") + "\n" + &item("upsert", "A", "3", "{}"));
    let answer = stage.send(wait).await;
    assert_eq!(answer.header("preference-applied"), Some("wait"));
    let found = results(answer.text());
    assert_eq!(
        found.iter().map(result).collect::<Vec<_>>(),
        ["applied created 1", "applied updated 2"]
    );
    assert_eq!(stage.number("select count(*) from keylane.ledger").await, 2);
}

#[tokio::test]
async fn items_of_one_key_are_applied_in_their_order() {
    let mut stage = Stage::new().await;
    let versions = 1..=3_000_i64;
    let items: Vec<String> = versions
        .clone()
        .map(|n| {
            let key = ["A", "B", "C"][usize::try_from(n % 3).unwrap()];
            item("upsert", key, &n.to_string(), &format!(r#"{{"points":{n}}}"#))
        })
        .collect();
    let answer = stage.send(bulk().body(items.join("\n"))).await.was(200);
    let found = results(answer.text());
    for (n, result) in versions.zip(&found) {
        assert_eq!(
            (&result["write_id"], &result["version"]),
            (&json!(n.to_string()), &json!((n + 2) / 3))
        );
    }
    let last = "select sum(points) from customers where version = 1000";
    assert_eq!(stage.number(last).await, 2998 + 2999 + 3000);
}

#[tokio::test]
async fn a_caller_that_vanishes_leaves_nothing_behind() {
    let mut stage = Stage::new().await;
    stage.worker.signal("STOP");
    for n in 0..20 {
        let items: String =
            (0..600).map(|it| item("upsert", "A", &format!("{n}-{it}"), "{}") + "\n").collect();
        let endless =
            futures_util::stream::iter([Bytes::from(items)]).chain(futures_util::stream::pending());
        let answer = stage.client.stream(&bulk(), endless).await;
        assert_eq!(answer.status(), 200);
        wait::until(wait::SOON, "items are under way", async || {
            stage.ingress.metric("keylane_http_outcomes_awaited").await.is_some_and(|it| it > 0.0)
        })
        .await;
        drop(answer);
        stage.client.cut();
    }
    stage.worker.signal("CONT");
    for gauge in ["keylane_http_requests_in_hand", "keylane_http_outcomes_awaited"] {
        wait::until_equal(wait::SOON, gauge, Some(0.0), async || stage.ingress.metric(gauge).await)
            .await;
    }
    let items = item("upsert", "B", "after", "{}");
    let found = results(stage.send(bulk().body(items)).await.text());
    assert_eq!(result(&found[0]), "applied created 1");
}

/// A bulk request that is written to by hand.
pub(super) struct Open {
    items: Option<mpsc::Sender<Bytes>>,
    answer: Incoming,
    text: String,
    _client: Client,
}

impl Open {
    pub(super) async fn on(port: u16) -> Self {
        let (items, received) = mpsc::channel(1000);
        let body = futures_util::stream::unfold(received, async |mut received| {
            received.recv().await.map(|bytes| (bytes, received))
        });
        let mut client = Client::new(port);
        let answer = client.stream(&bulk(), body).await;
        assert_eq!(answer.status(), 200);
        Self {
            items: Some(items),
            answer: answer.into_body(),
            text: String::new(),
            _client: client,
        }
    }

    pub(super) async fn put(&self, item: &str) {
        self.items.as_ref().unwrap().send(Bytes::from(format!("{item}\n"))).await.unwrap();
    }

    /// The next result.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let result = serde_json::from_str(line).unwrap();
                let rest = rest.to_owned();
                self.text = rest;
                return result;
            }
            let frame =
                timeout(wait::SOON * 3, self.answer.frame()).await.expect("a result in time");
            let frame = frame.expect("a result before the end").unwrap();
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }

    /// Ends the request; nothing but the end may come.
    pub(super) async fn end(mut self) {
        self.items = None;
        let rest = timeout(wait::SOON, self.answer.collect()).await.expect("an end in time");
        assert_eq!(rest.unwrap().to_bytes().len() + self.text.len(), 0);
    }
}

#[tokio::test]
async fn results_come_while_items_are_still_sent() {
    let stage = Stage::new().await;
    let mut open = Open::on(stage.ingress.port).await;
    for n in 1..=20 {
        open.put(&item("increment", "A", &n.to_string(), r#"{"points":1}"#)).await;
        assert_eq!(open.next().await["version"], n);
    }
    open.end().await;
}

#[tokio::test]
async fn after_an_item_that_was_not_accepted_no_later_one_of_its_key_is_sent() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    // The body pauses for as long as the broker takes to start again.
    let stage = Stage::on(scene, &[("http.body_timeout_ms", "60000")]).await;
    let readyz = async |status: u16| {
        wait::until(wait::SOON, "readiness", async || {
            stage.ingress.get("/readyz").await.is_some_and(|(code, _)| code == status)
        })
        .await;
    };
    let add = |key: &str, id: &str| item("increment", key, id, r#"{"points":1}"#);
    // The first result is held back, and all others wait behind it.
    stage.worker.signal("STOP");
    let mut open = Open::on(stage.ingress.port).await;
    open.put(&add("A", "1")).await;
    wait::until(wait::SOON, "it is under way", async || {
        stage.ingress.metric("keylane_http_outcomes_awaited").await == Some(1.0)
    })
    .await;
    own.run("stop-rabbit").await;
    readyz(503).await;
    open.put(&add("B", "2")).await;
    open.put(&add("B", "3")).await;
    own.run("restart-rabbit").await;
    readyz(200).await;
    open.put(&add("B", "4")).await;
    open.put(&add("C", "5")).await;
    wait::until(wait::SOON, "the last one is under way", async || {
        stage.ingress.metric("keylane_http_outcomes_awaited").await.is_some_and(|it| it >= 1.0)
    })
    .await;
    stage.worker.signal("CONT");
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(result(&open.next().await));
    }
    open.end().await;
    // Where the answer was lost with the connection, the ledger told it.
    let found: Vec<&str> = found.iter().map(|it| it.trim_end_matches(" again")).collect();
    let applied = "applied created 1";
    let away = "not_accepted broker_unavailable";
    assert_eq!(found, [applied, away, "not_sent", "not_sent", applied]);
    // The whole again, from the start: now everything is applied, once.
    let mut open = Open::on(stage.ingress.port).await;
    for (key, id) in [("A", "1"), ("B", "2"), ("B", "3"), ("B", "4"), ("C", "5")] {
        open.put(&add(key, id)).await;
        assert_eq!(open.next().await["outcome"], "applied");
    }
    open.end().await;
    let versions =
        "select string_agg(external_id || version, ' ' order by external_id) as v from customers";
    assert_eq!(stage.scene.rows(versions).await, [json!({"v": "A1 B3 C1"})]);
    assert_eq!(stage.number("select sum(points - 10) from customers").await, 5);
}
