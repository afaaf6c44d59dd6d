//! Broker or database away: what cannot be accepted is said at once, what can be is.

use super::{Stage, add, brief, patch};
use crate::support::{Answer, Client, OwnServers, Scene, entities, request, wait};

async fn stage(own: &OwnServers) -> Stage {
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    Stage::on(scene, &[("http.confirm_max_ms", "2000")]).await
}

#[tokio::test]
async fn without_a_broker_nothing_is_accepted_and_everything_known_is_still_told() {
    let own = OwnServers::start().await;
    let mut stage = stage(&own).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    own.run("stop-rabbit").await;
    wait::until(wait::SOON, "readiness names the broker", async || {
        let ready = stage.ingress.get("/readyz").await.unwrap();
        ready.0 == 503 && ready.1.contains("broker")
    })
    .await;
    assert_eq!(stage.ingress.get("/livez").await.unwrap().0, 200);
    let call = || add("customer/A", "1", r#"{"points":1}"#);
    assert_eq!(brief(&stage.send(call()).await), "503 broker_unavailable");
    assert_eq!(brief(&stage.send(patch("customer/A", "0", "{}")).await), "201 created 1 again");
    assert_eq!(stage.send(request("GET", "/v1/customer/A")).await.status, 200);
    assert_eq!(stage.send(request("GET", "/v1/writes/customer/0")).await.status, 200);
    own.run("restart-rabbit").await;
    wait::until_equal(wait::SOON, "the write", "200 updated 2".to_owned(), async || {
        brief(&stage.client.send(call()).await)
    })
    .await;
}

#[tokio::test]
async fn without_a_database_writes_are_accepted_and_their_outcomes_told_later() {
    let own = OwnServers::start().await;
    let mut stage = stage(&own).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    own.run("stop-postgres").await;
    let call = |n: u32| add("customer/A", &format!("w{n}"), r#"{"points":1}"#);
    let mut locations = Vec::new();
    for n in 0..10 {
        let answer = stage.send(call(n).header("prefer", "wait=0")).await;
        assert_eq!(brief(&answer), "202 pending", "{n}");
        locations.push(answer.header("location").unwrap().to_owned());
    }
    let short = stage.send(call(0).header("prefer", "wait=1")).await;
    assert_eq!(brief(&short), "202 pending", "a repeat too");
    assert_eq!(stage.ingress.get("/readyz").await.unwrap().0, 200, "it needs only the broker");
    let unread = [
        stage.send(request("GET", "/v1/customer/A")).await,
        stage.send(request("GET", &locations[0])).await,
    ];
    assert!(unread.iter().all(|answer| brief(answer) == "503 database_unavailable"), "{unread:?}");
    own.run("restart-postgres").await;
    for location in &locations {
        let mut last: Option<Answer> = None;
        wait::until(wait::SOON, "the outcome", async || {
            let answer = stage.client.send(request("GET", location)).await;
            let known = answer.status == 200;
            last = Some(answer);
            known
        })
        .await;
        assert_eq!(last.unwrap().json()["effect"], "updated");
    }
    assert_eq!(stage.number("select points from customers").await, 20);
}

#[tokio::test]
async fn an_alarm_of_the_broker_is_said_and_nobody_hangs() {
    let own = OwnServers::start().await;
    let mut stage = stage(&own).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    own.run("block-rabbit").await;
    let call = |n: u32| add("customer/A", &format!("w{n}"), r#"{"points":1}"#);
    let port = stage.ingress.port;
    // The broker says that it is blocked when something is published: the first may be on its way.
    let together = (0..20).map(async |n| Client::new(port).send(call(n)).await);
    for answer in futures_util::future::join_all(together).await {
        assert_eq!(brief(&answer), "503 broker_unavailable");
    }
    let ready = stage.ingress.get("/readyz").await.unwrap();
    let said = "publisher: an alarm of the broker stops publishing\n";
    assert_eq!(ready, (503, said.to_owned()));
    let all = stage.ingress.get("/readyz?verbose").await.unwrap();
    assert_eq!(all, (503, format!("broker: ok\nentities: ok\n{said}")));
    assert_eq!(stage.ingress.get("/startupz").await.unwrap().0, 200, "it stays so");
    assert_eq!(brief(&stage.send(call(20)).await), "503 broker_unavailable");
    own.run("unblock-rabbit").await;
    wait::until(wait::SOON, "the ingress is ready again", async || {
        stage.ingress.get("/readyz").await.unwrap().0 == 200
    })
    .await;
    for n in 0..=20 {
        let answer = stage.send(call(n)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(stage.number("select points from customers").await, 31);
    assert_eq!(stage.number("select version from customers").await, 22);
}
