//! Bulk requests that are larger than the memory they may take, and one whose broker dies.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use serde_json::Value;
use tokio::time::timeout;

use super::Stage;
use super::bulk::{bulk, item};
use crate::support::{Client, OwnServers, Scene, entities, request, wait};

const ITEMS: usize = 100_000;
const KEYS: usize = 1_000;
/// What the ingress may need beyond what it had: the body alone has about ten times as much.
const MEMORY_KB_MAX: u64 = 40_000;

/// Reads lines until the end; `each` gets them one by one.
async fn lines(mut answer: Incoming, mut each: impl FnMut(Value)) {
    let mut text = Vec::new();
    while let Some(frame) = timeout(wait::SOON * 3, answer.frame()).await.expect("more in time") {
        text.extend_from_slice(frame.unwrap().data_ref().unwrap());
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            each(serde_json::from_slice(line).unwrap());
        }
        text.drain(..whole);
    }
    assert!(text.is_empty(), "{}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn a_hundred_thousand_items_pass_through_little_memory_and_come_back_in_order() {
    let mut stage = Stage::new().await;
    stage.send(super::patch("customer/A", "first", "{}")).await.was(201);
    // One in ten is large: 50 MB in all.
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(4_000));
    let chunks = futures_util::stream::iter(0..ITEMS).map(move |n| {
        let (change, body) =
            if n % 10 == 0 { ("upsert", large.as_str()) } else { ("increment", r#"{"points":1}"#) };
        Bytes::from(item(change, &format!("K{}", n / 10 % KEYS), &n.to_string(), body) + "\n")
    });
    let before = stage.ingress.status_kb("VmHWM");
    let started = Instant::now();
    let answer = stage.client.stream(&bulk(), chunks).await;
    assert_eq!(answer.status(), 200);
    let mut count = 0;
    lines(answer.into_body(), |result| {
        assert_eq!(result["write_id"], count.to_string(), "{result}");
        assert_eq!(result["outcome"], "applied", "{result}");
        assert_eq!(result["version"], (count / (10 * KEYS)) * 10 + count % 10 + 1, "{result}");
        count += 1;
    })
    .await;
    let grown = stage.ingress.status_kb("VmHWM") - before;
    eprintln!("{count} items in {:?}; {grown} kB on top of {before} kB", started.elapsed());
    assert_eq!(count, ITEMS);
    assert!(grown < MEMORY_KB_MAX, "the ingress took {grown} kB");
    let right = "select count(*) from customers where points = 100 and version = 100";
    assert_eq!(stage.number(right).await, i64::try_from(KEYS).unwrap());
}

/// Items of the large array.
const ELEMENTS: usize = 50_000;

#[tokio::test]
async fn a_large_array_passes_through_little_memory_too() {
    let mut stage = Stage::new().await;
    stage.send(super::patch("customer/A", "first", "{}")).await.was(201);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(4_000));
    let chunks = futures_util::stream::iter(0..ELEMENTS).map(move |n| {
        // One in ten is large and is applied; the others are refused, which costs no worker's time.
        let (change, body) = if n % 10 == 0 { ("upsert", large.as_str()) } else { ("no", "{}") };
        let (key, id) = (format!("K{}", n / 10 % KEYS), n.to_string());
        let (before, after) =
            (if n == 0 { "[" } else { "," }, if n + 1 == ELEMENTS { "]" } else { "" });
        Bytes::from([before, &item(change, &key, &id, body), after].concat())
    });
    let before = stage.ingress.status_kb("VmHWM");
    let call = request("POST", "/v1/writes").header("content-type", "application/json");
    let answer = stage.client.stream(&call, chunks).await;
    assert_eq!(answer.status(), 200);
    let whole = timeout(wait::SOON * 3, answer.into_body().collect()).await.expect("an end");
    let results: Vec<Value> = serde_json::from_slice(&whole.unwrap().to_bytes()).unwrap();
    let grown = stage.ingress.status_kb("VmHWM") - before;
    assert_eq!(results.len(), ELEMENTS);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["write_id"], n.to_string(), "{result}");
        let (outcome, version) = match n % 10 {
            0 => ("applied", Value::from(n / (10 * KEYS) + 1)),
            _ => ("rejected", Value::Null),
        };
        assert_eq!((&result["outcome"], &result["version"]), (&outcome.into(), &version));
    }
    eprintln!("{grown} kB on top of {before} kB");
    assert!(grown < MEMORY_KB_MAX, "the ingress took {grown} kB");
}

const ROUNDS: u64 = 1_000;
const LINES: u64 = 20;

/// All items of the file, each key's in rising order.
fn file() -> impl Iterator<Item = (String, String)> {
    (1..=ROUNDS).flat_map(|round| {
        (0..LINES).map(move |key| {
            let id = format!("{key}-{round}");
            let item = item("upsert", &format!("K{key}"), &id, &format!(r#"{{"seq":{round}}}"#));
            (id, item.replace("customer", "line"))
        })
    })
}

/// Sends the file; the result of each item.
async fn sent(port: u16) -> Vec<Value> {
    let mut client = Client::new(port);
    let chunks = futures_util::stream::iter(file()).map(|(_, item)| Bytes::from(item + "\n"));
    let answer = client.stream(&bulk(), chunks).await;
    let mut results = Vec::new();
    lines(answer.into_body(), |result| results.push(result)).await;
    for (result, (id, _)) in results.iter().zip(file()) {
        assert_eq!(result["write_id"], id);
    }
    assert_eq!(results.len(), file().count());
    results
}

#[tokio::test]
async fn a_broker_that_dies_in_the_middle_stops_keys_and_the_file_sent_again_completes_them() {
    let own = OwnServers::start().await;
    let tables = (entities::LOAD_TABLES, entities::LOAD_ENTITIES);
    let scene = Scene::on_own(&own.servers, tables.0, tables.1).await;
    let stage = Stage::on(scene, &[]).await;
    let applied = "select count(*) from keylane.ledger";
    let (results, ()) = tokio::join!(sent(stage.ingress.port), async {
        wait::until(wait::SOON, "writes are applied", async || stage.number(applied).await > 500)
            .await;
        own.run("kill-rabbit").await;
    });
    // From the first that was not accepted, nothing of its key was.
    let (mut stopped, mut counts) = (HashSet::new(), HashMap::<String, usize>::new());
    for result in &results {
        let outcome = result["outcome"].as_str().unwrap();
        *counts.entry(outcome.to_owned()).or_default() += 1;
        let key = result["key"].as_str().unwrap().to_owned();
        let went = !["not_accepted", "not_sent"].contains(&outcome);
        assert!(!(went && stopped.contains(&key)), "overtaken: {result}");
        if !went {
            stopped.insert(key);
        }
    }
    eprintln!("{counts:?}");
    assert!(counts.contains_key("not_accepted") && counts.contains_key("not_sent"), "{counts:?}");

    wait::until(wait::SOON, "the ingress is ready again", async || {
        stage.ingress.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    let again = sent(stage.ingress.port).await;
    let wrong: Vec<&Value> = again.iter().filter(|it| it["outcome"] != "applied").take(3).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let once = "select count(*) from (select key from history group by key
                 having count(*) = 1000 and count(distinct seq) = 1000) q";
    assert_eq!(stage.number(once).await, i64::try_from(LINES).unwrap(), "each exactly once");
    let overtaken = "select count(*) from (select seq, lag(seq) over (partition by key
                      order by id) as before from history) h where seq <= before";
    assert_eq!(stage.number(overtaken).await, 0);
}
