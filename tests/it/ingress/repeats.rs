//! The same write id again: while the first runs, and from elsewhere.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres};

use super::{Stage, add, brief, patch, told};
use crate::support::{Client, Scene, request, wait};

/// Holds the row of key A until it is let go.
struct Hold(PoolConnection<Postgres>);

impl Hold {
    async fn on(scene: &Scene) -> Self {
        let mut connection = scene.pool.acquire().await.unwrap();
        let hold = "begin; update public.customers set name = 'held' where external_id = 'A'";
        sqlx::raw_sql(AssertSqlSafe(hold.to_owned())).execute(&mut *connection).await.unwrap();
        Self(connection)
    }

    async fn let_go(mut self) {
        sqlx::raw_sql("rollback").execute(&mut *self.0).await.unwrap();
    }
}

/// Waits until the ingress waits for so many outcomes.
pub(super) async fn awaited(ingress: &crate::support::Process, count: f64) {
    wait::until_equal(wait::SOON, "outcomes that are waited for", Some(count), async || {
        ingress.metric("keylane_http_outcomes_awaited").await
    })
    .await;
}

#[tokio::test]
async fn a_repeat_while_the_first_runs_waits_for_the_same_outcome() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    let hold = Hold::on(&stage.scene).await;
    let call = || add("customer/A", "1", r#"{"points":1}"#).header("prefer", "wait=60");
    let (first, repeats) =
        tokio::join!(async { Client::new(stage.ingress.port).send(call()).await }, async {
            awaited(&stage.ingress, 1.0).await;
            let (repeats, ()) = tokio::join!(
                join_all((0..20).map(async |_| Client::new(stage.ingress.port).send(call()).await)),
                async {
                    in_hand(&stage.ingress, 21.0).await;
                    let waits = stage.ingress.metric("keylane_http_outcomes_awaited").await;
                    assert_eq!(waits, Some(1.0), "they wait for one publish");
                    hold.let_go().await;
                }
            );
            repeats
        });
    assert_eq!(brief(&first), "200 updated 2");
    for repeat in &repeats {
        assert_eq!((repeat.status, told(repeat)), (200, told(&first)));
    }
    assert_eq!(stage.number("select points from customers").await, 11);
    awaited(&stage.ingress, 0.0).await;
    in_hand(&stage.ingress, 0.0).await;
}

/// Waits until the ingress has so many requests in hand.
async fn in_hand(ingress: &crate::support::Process, count: f64) {
    wait::until_equal(wait::SOON, "requests in hand", Some(count), async || {
        ingress.metric("keylane_http_requests_in_hand").await
    })
    .await;
}

#[tokio::test]
async fn other_content_under_a_running_id_is_refused_when_its_turn_comes() {
    let mut stage = Stage::new().await;
    let second = stage.scene.ingress().await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    let hold = Hold::on(&stage.scene).await;
    let call = |points: u32| {
        let body = format!(r#"{{"points":{points}}}"#);
        add("customer/A", "1", &body).header("prefer", "wait=60")
    };
    let (one, other) = (stage.ingress.port, second.port);
    let (first, (same, here, there)) =
        tokio::join!(async { Client::new(one).send(call(1)).await }, async {
            awaited(&stage.ingress, 1.0).await;
            let (same, here, there, ()) = tokio::join!(
                async { Client::new(other).send(call(1)).await },
                async { Client::new(one).send(call(2)).await },
                async { Client::new(other).send(call(3)).await },
                async {
                    awaited(&stage.ingress, 2.0).await;
                    awaited(&second, 2.0).await;
                    hold.let_go().await;
                }
            );
            (same, here, there)
        });
    assert_eq!(brief(&first), "200 updated 2");
    assert_eq!((same.status, told(&same)), (200, told(&first)));
    for refused in [&here, &there] {
        assert_eq!(brief(refused), "422 write_id_reused");
        assert_eq!(refused.json()["write_id"], "1");
    }
    assert_eq!(stage.number("select points from customers").await, 11);
    // Now the ledger knows it: nobody waits, and nothing is published.
    for port in [one, other] {
        let known = Client::new(port).send(call(2)).await;
        assert_eq!(brief(&known), "422 write_id_reused");
        let elsewhere = add("customer/B", "1", r#"{"points":1}"#);
        assert_eq!(brief(&Client::new(port).send(elsewhere).await), "422 write_id_reused");
        let other_change = patch("customer/A", "1", r#"{"points":1}"#);
        assert_eq!(brief(&Client::new(port).send(other_change).await), "422 write_id_reused");
        let other_entity = add("order_line/A/1", "1", r#"{"qty":1}"#);
        assert!(Client::new(port).send(other_entity).await.status < 300, "ids belong to entities");
    }
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 2);
}

#[tokio::test]
async fn the_same_content_in_another_spelling_is_the_same_write() {
    let mut stage = Stage::new().await;
    let body = r#"{"qty":1,"picks":[1,2]}"#;
    stage.send(patch("order_line/a/7", "1", body)).await.was(201);
    let spellings = [
        patch("order_line/a/07", "1", "{ \"picks\" : [1,2],\n \"qty\" : 1 }"),
        patch("order_line/%61/7", "1", body)
            .header("content-type", "application/json; charset=utf-8"),
        request("PATCH", "/v1/order_line/a/7").header("idempotency-key", "1").body(body),
        request("POST", "/v1/order_line")
            .id("1")
            .body(r#"{"order_no":"a","line":7,"qty":1,"picks":[1,2]}"#),
    ];
    for call in spellings {
        let answer = stage.send(call.clone()).await;
        assert_eq!(brief(&answer), "201 created 1 again", "{call:?}");
    }
    assert_eq!(stage.number("select version from order_lines").await, 1);
    let guarded = patch("order_line/a/7", "1", body).header("if-match", "*");
    assert_eq!(brief(&stage.send(guarded).await), "422 write_id_reused");
    assert_eq!(stage.send(patch("order_line/a/7", "2", body)).await.json()["version"], json!(2));
}
