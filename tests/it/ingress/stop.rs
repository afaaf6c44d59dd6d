//! An ingress that is told to stop, and one that cannot start yet.

use futures_util::future::join_all;

use super::{Stage, add, brief, patch};
use crate::support::{Answer, Client, Process, request, wait};

#[tokio::test]
async fn sigterm_answers_what_is_in_hand_and_takes_nothing_new() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    stage.worker.signal("STOP");
    let port = stage.ingress.port;
    let asked = (0..30).map(async |n| {
        let call = add("customer/A", &format!("w{n}"), r#"{"points":1}"#);
        Client::new(port).send(call.header("prefer", "wait=60")).await
    });
    let stopping = async {
        wait::until(wait::SOON, "all are in hand", async || {
            stage.ingress.metric("keylane_http_requests_in_hand").await == Some(30.0)
        })
        .await;
        stage.ingress.signal("TERM");
        wait::until(wait::SOON, "readiness says that it drains", async || {
            let ready = stage.ingress.get("/readyz").await;
            ready.is_some_and(|(status, why)| status == 503 && why.contains("draining"))
        })
        .await;
        assert_eq!(stage.ingress.get("/livez").await.unwrap().0, 200);
        let late = stage.client.send(patch("customer/A", "late", "{}")).await;
        assert_eq!(brief(&late), "503 draining");
        let known = stage.client.send(request("GET", "/v1/writes/customer/0")).await;
        assert_eq!(known.status, 200, "reading goes on");
        for answer in [&late, &known] {
            assert_eq!(answer.header("connection"), Some("close"), "nobody should come back");
        }
        stage.worker.signal("CONT");
    };
    let (answers, ()) = tokio::join!(join_all(asked), stopping);
    let closed =
        |answer: &Answer| (answer.status, answer.header("connection")) == (200, Some("close"));
    assert!(answers.iter().all(closed), "{answers:?}");
    assert_eq!(stage.ingress.exit_code().await, 0);
    assert_eq!(stage.number("select points from customers").await, 40);
    let log = stage.ingress.log();
    assert!(log.contains("Draining") && !log.contains("failed"), "{log}");
}

#[tokio::test]
async fn a_service_of_both_roles_answers_what_is_in_hand_before_its_lanes_end() {
    let stage = Stage::new().await;
    let Stage { ingress, worker, scene, .. } = stage;
    drop((ingress, worker));
    let mut run = Process::spawn_command("run", &scene.config(), &[]).ready().await;
    let mut client = Client::new(run.port);
    client.send(patch("customer/A", "0", "{}")).await.was(201);
    let mut intruder = scene.pool.acquire().await.unwrap();
    sqlx::raw_sql("begin; update public.customers set name = 'held'")
        .execute(&mut *intruder)
        .await
        .unwrap();
    let call = add("customer/A", "1", r#"{"points":1}"#).header("prefer", "wait=60");
    let (answer, ()) = tokio::join!(client.send(call), async {
        wait::until(wait::SOON, "it is in hand", async || {
            run.metric("keylane_http_requests_in_hand").await == Some(1.0)
        })
        .await;
        run.signal("TERM");
        wait::until(wait::SOON, "it drains", async || {
            run.get("/readyz").await.is_some_and(|(status, _)| status == 503)
        })
        .await;
        sqlx::raw_sql("rollback").execute(&mut *intruder).await.unwrap();
    });
    assert_eq!(brief(&answer), "200 updated 2");
    assert_eq!(run.exit_code().await, 0);
}

#[tokio::test]
async fn an_ingress_that_waits_for_its_database_can_be_stopped() {
    let stage = Stage::new().await;
    let nobody = [("database.url", "postgres://keylane@127.0.0.1:1/keylane")];
    let mut waiting = Process::spawn_command("ingress", &stage.scene.config(), &nobody);
    wait::until(wait::SOON, "it waits", async || {
        waiting.log().contains("Waiting for the database")
    })
    .await;
    waiting.signal("TERM");
    assert_eq!(waiting.exit_code().await, 0);
}
