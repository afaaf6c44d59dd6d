//! What a process holds is bounded, and beyond the bound nobody is harmed.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use tokio::time::timeout;

use super::{Stage, add, brief, bulk, patch};
use crate::support::{Client, wait};

#[tokio::test]
async fn past_the_requests_in_hand_the_next_is_asked_to_come_later() {
    let mut stage = Stage::with(&[("http.requests_max", "3")]).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    stage.worker.signal("STOP");
    let port = stage.ingress.port;
    let call = |n: u32| add("customer/A", &n.to_string(), r#"{"points":1}"#);
    let asked =
        (0..3).map(async |n| Client::new(port).send(call(n + 1).header("prefer", "wait=60")).await);
    let (answers, ()) = tokio::join!(join_all(asked), async {
        wait::until(wait::SOON, "all places are taken", async || {
            stage.ingress.metric("keylane_http_requests_in_hand").await == Some(3.0)
        })
        .await;
        for _ in 0..20 {
            let answer = stage.client.send(call(9)).await;
            assert_eq!(brief(&answer), "503 busy");
        }
        assert_eq!(stage.ingress.get("/readyz").await.unwrap().0, 200, "busy is not broken");
        stage.worker.signal("CONT");
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(stage.send(call(9)).await.json()["replayed"], false, "it was never accepted");
    assert_eq!(stage.number("select points from customers").await, 14);
}

#[tokio::test]
async fn past_the_outcomes_waited_for_a_write_is_accepted_and_never_an_error() {
    let mut stage = Stage::with(&[("http.waiting_max", "5"), ("http.wait_ms", "300")]).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    stage.worker.signal("STOP");
    let port = stage.ingress.port;
    let call = |n: u32| add("customer/A", &format!("w{n}"), r#"{"points":1}"#);
    let answers = join_all((0..100).map(async |n| Client::new(port).send(call(n)).await)).await;
    assert!(answers.iter().all(|answer| brief(answer) == "202 pending"), "{answers:?}");
    stage.worker.signal("CONT");
    for answer in &answers {
        let location = answer.header("location").unwrap();
        wait::until(wait::SOON, "its outcome", async || {
            stage.client.send(crate::support::request("GET", location)).await.status == 200
        })
        .await;
    }
    assert_eq!(stage.number("select points from customers").await, 110);
}

#[tokio::test]
async fn past_the_outcomes_waited_for_nobody_waits_however_long_they_would() {
    let mut stage = Stage::with(&[("http.waiting_max", "5")]).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    stage.worker.signal("STOP");
    let port = stage.ingress.port;
    let call = |n: u32| {
        let call = add("customer/A", &format!("w{n}"), r#"{"points":1}"#);
        Box::pin(async move { Client::new(port).send(call.header("prefer", "wait=60")).await })
    };
    // Five of them wait; all others are answered while the worker stands still.
    let mut answers: FuturesUnordered<_> = (0..40).map(call).collect();
    for _ in 5..40 {
        let answer = answers.next().await.unwrap();
        assert_eq!(brief(&answer), "202 pending");
    }
    let lines: String =
        (40..50).map(|n| bulk::item("upsert", "B", &format!("w{n}"), "{}") + "\n").collect();
    let answer = stage.send(bulk::bulk().body(lines)).await.was(200);
    assert_eq!(answer.text().matches("\"outcome\":\"pending\"").count(), 10);
    stage.worker.signal("CONT");
    while let Some(answer) = answers.next().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn bulk_requests_leave_room_for_others_and_must_bring_something() {
    let settings = [("http.body_timeout_ms", "1000"), ("http.requests_max", "4")];
    let mut stage = Stage::with(&settings).await;
    let port = stage.ingress.port;
    // A byte now and then: never silent for long, and never an item.
    let trickle = || {
        stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Some((Bytes::from_static(b" "), ()))
        })
    };
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = Client::new(port);
        slow.push((client.stream(&bulk::bulk(), trickle()).await.into_body(), client));
    }
    let one_more = stage.send(bulk::bulk().body("{}")).await;
    assert_eq!(brief(&one_more), "503 busy", "half of the places are all that they get");
    stage.send(patch("customer/A", "1", "{}")).await.was(201);
    for (body, _client) in slow {
        let rest = timeout(wait::SOON, body.collect()).await.expect("an end in time").unwrap();
        let result: serde_json::Value = serde_json::from_slice(&rest.to_bytes()).unwrap();
        assert_eq!(bulk::result(&result), "not_accepted body_too_slow");
    }
    let item = bulk::item("upsert", "B", "2", "{}");
    let answer = stage.send(bulk::bulk().body(item)).await.was(200);
    assert!(answer.text().contains("applied"), "their places are free again: {answer:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_gives_its_place_back() {
    let settings = [("http.body_timeout_ms", "300"), ("http.requests_max", "1")];
    let mut stage = Stage::with(&settings).await;
    let first = stream::iter([Bytes::from_static(b"{")]);
    let body = first.chain(stream::pending());
    let answer = stage.client.stream(&patch("customer/A", "1", ""), body).await;
    assert_eq!(answer.status(), 408);
    let mut other = Client::new(stage.ingress.port);
    other.send(patch("customer/A", "1", "{}")).await.was(201);
}
