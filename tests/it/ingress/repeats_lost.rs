//! Answers that were stored outlive everything, and answers that were lost are told again.

use super::repeats::awaited;
use super::{Stage, add, brief, patch, told};
use crate::support::{Answer, Client, OwnServers, Request, Scene, entities, request, wait};

/// A created, an updated, an unmet, and a rejected write.
fn writes() -> Vec<(Request, &'static str)> {
    let wrong = patch("customer/A", "4", r#"{"points":1000}"#);
    vec![
        (patch("customer/A", "1", r#"{"name":"Ada"}"#), "201 created 1"),
        (add("customer/A", "2", r#"{"points":1}"#), "200 updated 2"),
        (patch("customer/A", "3", "{}").header("if-match", "\"1\""), "412 version_mismatch"),
        (wrong, "422 constraint_violation"),
        (request("DELETE", "/v1/customer/B").id("5"), "200 unchanged -"),
    ]
}

async fn repeated(client: &mut Client, first: &[Answer], after: &str) {
    for ((call, expected), first) in writes().into_iter().zip(first) {
        let again = client.send(call).await;
        assert_eq!(brief(&again), format!("{expected} again"), "after {after}");
        assert_eq!(told(&again), told(first), "after {after}");
    }
}

#[tokio::test]
async fn stored_answers_survive_a_restart_of_everything() {
    let own = OwnServers::start().await;
    let checked = "alter table customers add check (points < 1000);";
    let tables = [entities::CUSTOMERS, checked].concat();
    let scene = Scene::on_own(&own.servers, &tables, entities::CUSTOMER).await;
    let mut stage = Stage::on(scene, &[]).await;
    let mut first = Vec::new();
    for (call, expected) in writes() {
        let answer = stage.send(call).await;
        assert_eq!(brief(&answer), expected);
        first.push(answer);
    }
    repeated(&mut stage.client, &first, "nothing").await;
    stage.worker.kill();
    repeated(&mut stage.client, &first, "the end of the worker").await;
    stage.worker = stage.scene.worker().await;
    stage.ingress.kill();
    stage.ingress = stage.scene.ingress().await;
    stage.client = Client::new(stage.ingress.port);
    repeated(&mut stage.client, &first, "a restart of the processes").await;
    own.run("kill-postgres").await;
    wait::until(wait::SOON, "the ledger is asked again", async || {
        let (call, _) = writes().remove(0);
        stage.client.send(call).await.header("idempotent-replayed").is_some()
    })
    .await;
    repeated(&mut stage.client, &first, "a restart of the database").await;
    own.run("kill-rabbit").await;
    wait::until(wait::SOON, "the broker is there again", async || {
        stage.ingress.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    repeated(&mut stage.client, &first, "a restart of the broker").await;
    let row = stage.scene.rows("select points, version from customers").await;
    assert_eq!(row, [serde_json::json!({"points": 11, "version": 2})]);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_told_its_outcome_when_it_is_sent_again() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    let call = || add("customer/A", "lost", r#"{"points":1}"#).header("prefer", "wait=60");
    // The worker is stopped: the broker confirms, and no outcome can come.
    stage.worker.signal("STOP");
    let port = stage.ingress.port;
    let (lost, ()) = tokio::join!(async { Client::new(port).try_send(call()).await }, async {
        wait::until(wait::SOON, "the broker has it", async || {
            stage.ingress.metric("keylane_http_outcomes_awaited").await == Some(1.0)
        })
        .await;
        // Accepted for sure, once a later one on the same channel is.
        let later = patch("customer/Z", "later", "{}").header("prefer", "respond-async");
        stage.client.send(later).await.was(202);
        stage.ingress.kill();
    });
    assert!(lost.is_err(), "{lost:?}");
    let status = "/v1/writes/customer/lost";
    stage.ingress = stage.scene.ingress().await;
    stage.client = Client::new(stage.ingress.port);
    assert_eq!(brief(&stage.send(request("GET", status)).await), "202 pending");
    // Sent again before its outcome is known: it is published twice, and applied once.
    let (again, ()) =
        tokio::join!(async { Client::new(stage.ingress.port).send(call()).await }, async {
            stage.worker.signal("CONT");
        });
    assert_eq!(again.json()["version"], 2, "{again:?}");
    let third = stage.send(call()).await;
    assert_eq!(brief(&third), "200 updated 2 again");
    assert_eq!(told(&third), told(&again));
    assert_eq!(stage.number("select points from customers where external_id = 'A'").await, 11);
}

#[tokio::test]
async fn who_is_answered_by_the_ledger_is_told_of_a_repeat_only_if_it_was_one() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    let mut stage = Stage::on(scene, &[]).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    stage.worker.signal("STOP");
    let call = |id: &str, points: u32| {
        let body = format!(r#"{{"points":{points}}}"#);
        add("customer/A", id, &body).header("prefer", "wait=60")
    };
    let port = stage.ingress.port;
    let sent = async |id, points| Client::new(port).send(call(id, points)).await;
    let (first, other, second, ()) = tokio::join!(
        sent("1", 1),
        async {
            awaited(&stage.ingress, 1.0).await;
            sent("1", 2).await
        },
        async {
            awaited(&stage.ingress, 2.0).await;
            sent("2", 1).await
        },
        async {
            awaited(&stage.ingress, 3.0).await;
            // With the connection every answer is lost: only the ledger can tell.
            own.run("cut-rabbit").await;
            stage.worker.signal("CONT");
        }
    );
    assert_eq!(brief(&first), "200 updated 2", "it was sent once");
    assert_eq!(brief(&other), "422 write_id_reused");
    assert_eq!(brief(&second), "200 updated 3");
    let again = stage.send(call("2", 1)).await;
    assert_eq!(brief(&again), "200 updated 3 again");
    assert_eq!(told(&again), told(&second));
}

#[tokio::test]
async fn a_caller_who_goes_away_loses_nothing_and_leaves_nothing() {
    let mut stage = Stage::new().await;
    stage.worker.signal("STOP");
    let call = |n: u32| add("customer/A", &n.to_string(), r#"{"points":1}"#);
    for n in 0..50 {
        let mut client = Client::new(stage.ingress.port);
        let asked = client.try_send(call(n).header("prefer", "wait=60"));
        let gone = async {
            wait::until(wait::SOON, "it is in hand", async || {
                let awaited = stage.ingress.metric("keylane_http_outcomes_awaited").await;
                n > 0 || awaited.is_some_and(|awaited| awaited > 0.0)
            })
            .await;
        };
        tokio::select! {
            _ = asked => panic!("nobody can answer"),
            () = gone => client.cut(),
        }
    }
    for gauge in ["keylane_http_requests_in_hand", "keylane_http_outcomes_awaited"] {
        wait::until_equal(wait::SOON, gauge, Some(0.0), async || stage.ingress.metric(gauge).await)
            .await;
    }
    stage.worker.signal("CONT");
    // Whether it was accepted is not known to who went away; sent again, each is applied once.
    for n in 0..50 {
        let answer = stage.send(call(n)).await;
        assert!(answer.status < 202, "{answer:?}");
    }
    assert_eq!(stage.number("select points from customers").await, 60);
    assert_eq!(stage.number("select version from customers").await, 50);
}
