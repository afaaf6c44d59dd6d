//! A service whose database and broker are away when it starts.

use super::{brief, patch};
use crate::support::{Client, OwnServers, Process, Scene, entities, wait};

/// Waits until `/readyz` names `what`, and not `other`; alive it is all the while.
async fn lacks(process: &Process, what: &str, other: &str) {
    wait::until(wait::SOON, &format!("readiness names the {what}"), async || {
        let ready = process.get("/readyz").await;
        let names = |why: &str| why.contains(what) && !why.contains(other);
        ready.is_some_and(|(status, why)| status == 503 && names(&why))
    })
    .await;
    assert_eq!(process.get("/livez").await.unwrap().0, 200);
    assert_eq!(process.get("/startupz").await.unwrap().0, 503);
}

/// What comes of a write.
async fn written(process: &Process, id: &str) -> String {
    brief(&Client::new(process.port).send(patch("customer/A", id, "{}")).await)
}

#[tokio::test]
async fn a_service_answers_from_its_first_moment_and_becomes_ready_by_itself() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    drop(scene.worker().await);
    own.run("stop-postgres").await;
    own.run("stop-rabbit").await;
    let start = |role| Process::spawn_command(role, &scene.config(), &[]);
    let (ingress, run, worker) = (start("ingress"), start("run"), start("worker"));
    for process in [&ingress, &run, &worker] {
        lacks(process, "entities: connect to the database", "ready").await;
    }
    for process in [&ingress, &run] {
        assert_eq!(written(process, "early").await, "503 database_unavailable");
        let described = process.get("/openapi.json").await.unwrap();
        assert!(described.0 == 200 && described.1.contains("{entity}"), "its general form");
    }
    own.run("restart-postgres").await;
    for process in [&ingress, &run, &worker] {
        lacks(process, "broker: connect to the broker", "entities").await;
    }
    for process in [&ingress, &run] {
        assert_eq!(written(process, "early").await, "503 broker_unavailable");
    }
    own.run("restart-rabbit").await;
    let (ingress, run, worker) =
        tokio::join!(ingress.ready(), run.ready(), async { worker.ready().await });
    let has = async |process: &Process, checks: &str| {
        let page = format!("{}: ok\n", checks.replace(' ', ": ok\n"));
        assert_eq!(process.get("/readyz?verbose").await.unwrap(), (200, page));
        assert_eq!(process.get("/startupz").await.unwrap(), (200, "started\n".to_owned()));
    };
    has(&ingress, "broker entities publisher").await;
    for process in [&run, &worker] {
        has(process, "broker database entities fence partitions publisher roll").await;
    }
    assert_eq!(written(&ingress, "early").await, "201 created 1");
    assert_eq!(written(&run, "early").await, "201 created 1 again");
    let described = run.get("/openapi.json").await.unwrap().1;
    assert!(described.contains("/v1/customer/{external_id}"), "{described}");
}

#[tokio::test]
async fn waiting_ends_where_only_a_person_can_help() {
    let scene = Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await;
    let nowhere = format!("{}x", scene.url);
    let mut ingress =
        Process::spawn_command("ingress", &scene.config(), &[("database.url", &nowhere)]);
    assert_eq!(ingress.exit_code().await, 1);
    assert!(ingress.log().contains("does not exist"), "{}", ingress.log());
}
