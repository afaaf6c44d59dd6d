//! A database that takes questions and answers none, and senders who make it be asked.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::PgConnection;

use super::bulk::{bulk, item, result};
use super::{Stage, brief, patch};
use crate::support::{Client, request};

/// A read is given up long before: half a second, and some for a machine that is busy.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// So that the database itself does not end a wait, as it does not when it hangs.
const PATIENT: [(&str, &str); 2] =
    [("database.statement_timeout_ms", "60000"), ("database.lock_timeout_ms", "50000")];

/// Makes every reader of these tables wait for as long as the connection is held.
async fn hang(stage: &Stage, tables: &'static str) -> PgConnection {
    let mut intruder = stage.scene.intruder().await;
    sqlx::raw_sql("begin").execute(&mut intruder).await.unwrap();
    sqlx::raw_sql(tables).execute(&mut intruder).await.unwrap();
    intruder
}

#[tokio::test]
async fn a_read_that_gets_no_answer_is_told_so_and_a_write_is_accepted() {
    let mut stage = Stage::with(&PATIENT).await;
    stage.send(patch("customer/A", "1", "{}")).await.was(201);
    let hung = hang(&stage, "lock table public.customers, keylane.ledger in access exclusive mode");
    let hung = hung.await;
    let started = Instant::now();
    let port = stage.ingress.port;
    let calls = (0..20).map(async |n| {
        let path = if n % 2 == 0 { "/v1/customer/A" } else { "/v1/writes/customer/1" };
        Client::new(port).send(request("GET", path)).await
    });
    for answer in join_all(calls).await {
        assert_eq!(brief(&answer), "503 database_unavailable");
    }
    assert!(started.elapsed() < ANSWER_MAX, "{:?}", started.elapsed());
    let call = patch("customer/A", "2", "{}").header("prefer", "wait=0");
    assert_eq!(brief(&stage.send(call).await), "202 pending");
    drop(hung);
}

#[tokio::test]
async fn reads_that_wait_are_bounded_and_leave_the_places_of_writes_alone() {
    let mut stage = Stage::with(&[PATIENT[0], PATIENT[1], ("http.requests_max", "3")]).await;
    stage.send(patch("customer/A", "1", "{}")).await.was(201);
    let hung = hang(&stage, "lock table public.customers in access exclusive mode").await;
    let port = stage.ingress.port;
    let reads =
        (0..12).map(async |_| Client::new(port).send(request("GET", "/v1/customer/A")).await);
    let (answers, write) = tokio::join!(join_all(reads), async {
        let call = patch("customer/A", "2", "{}").header("prefer", "wait=0");
        Client::new(port).send(call).await
    });
    let mut found: Vec<String> = answers.iter().map(brief).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, ["503 busy", "503 database_unavailable"]);
    assert_eq!(brief(&write), "202 pending");
    drop(hung);
}

#[tokio::test]
async fn a_catalogue_that_cannot_be_read_again_is_taken_as_it_was() {
    let mut stage = Stage::with(&PATIENT).await;
    let hung = hang(&stage, "lock table pg_catalog.pg_attrdef in access exclusive mode").await;
    let started = Instant::now();
    let answer = stage.send(patch("customer/A", "1", r#"{"nmae":"Ada"}"#)).await;
    assert_eq!(brief(&answer), "422 unknown_column /nmae");
    assert!(started.elapsed() < ANSWER_MAX, "{:?}", started.elapsed());
    drop(hung);
}

#[tokio::test]
async fn senders_who_name_unknown_columns_share_a_read_of_the_catalogue() {
    let mut stage = Stage::new().await;
    let items = (0..5_000).map(|n| item("upsert", "A", &n.to_string(), r#"{"nmae":"Ada"}"#) + "\n");
    let started = Instant::now();
    let answer = stage.send(bulk().body(items.collect::<String>())).await.was(200);
    assert_eq!(answer.text().lines().count(), 5_000);
    for line in answer.text().lines() {
        let found = result(&serde_json::from_str(line).unwrap());
        assert_eq!(found, "rejected unknown_column /nmae");
    }
    assert!(started.elapsed() < ANSWER_MAX, "{:?}", started.elapsed());

    // Who asks singly gets an answer that is as new as the question.
    let port = stage.ingress.port;
    let call = |n: u32| patch("customer/A", &format!("s{n}"), r#"{"nickname":"A"}"#);
    let started = Instant::now();
    let answers = join_all((0..100).map(async |n| Client::new(port).send(call(n)).await)).await;
    let refused = |answer| brief(answer) == "422 unknown_column /nickname";
    assert!(answers.iter().all(refused), "{answers:?}");
    stage.scene.execute("alter table customers add column nickname text").await;
    assert_eq!(brief(&stage.send(call(100)).await), "201 created 1");
    assert!(started.elapsed() < ANSWER_MAX, "{:?}", started.elapsed());
}
