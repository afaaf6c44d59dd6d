//! What a process holds is bounded, and beyond the bound nobody is harmed.

use futures_util::future::join_all;

use super::{Stage, add, brief, patch};
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
    // Where the answer cannot come back, the ledger tells.
    let late = join_all(
        (100..140).map(async |n| Client::new(port).send(call(n).header("prefer", "wait=30")).await),
    )
    .await;
    assert!(late.iter().all(|answer| answer.status == 200), "{late:?}");
    assert_eq!(stage.number("select points from customers").await, 150);
}

#[tokio::test]
async fn a_body_that_does_not_come_gives_its_place_back() {
    use futures_util::stream;
    use hyper::body::Bytes;
    let settings = [("http.body_timeout_ms", "300"), ("http.requests_max", "1")];
    let mut stage = Stage::with(&settings).await;
    let first = stream::iter([Bytes::from_static(b"{")]);
    let body = futures_util::StreamExt::chain(first, stream::pending());
    let answer = stage.client.stream(&patch("customer/A", "1", ""), body).await;
    assert_eq!(answer.status(), 408);
    let mut other = Client::new(stage.ingress.port);
    other.send(patch("customer/A", "1", "{}")).await.was(201);
}
