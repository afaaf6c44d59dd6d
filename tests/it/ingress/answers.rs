//! How a caller would like to be answered, and what became of a write that was not waited for.

use std::time::Instant;

use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{Stage, brief, patch, told};
use crate::support::{request, wait};

#[tokio::test]
async fn the_answer_has_the_form_that_was_preferred() {
    let mut stage = Stage::new().await;
    let body = r#"{"name":"Ada"}"#;
    let minimal = |id: &str| patch("customer/A", id, body).header("prefer", "return=minimal");
    let created = stage.send(minimal("1")).await;
    assert_eq!((created.status, created.body.len()), (201, 0));
    assert_eq!(created.header("etag"), Some("\"1\""));
    assert_eq!(created.header("preference-applied"), Some("return=minimal"));
    let updated = stage.send(minimal("2")).await;
    assert_eq!((updated.status, updated.body.len()), (204, 0));
    assert_eq!(updated.header("etag"), Some("\"2\""));

    let whole = |id: &str| patch("customer/A", id, body).header("prefer", "return=representation");
    let row = stage.send(whole("3")).await.was(200);
    assert_eq!(row.header("preference-applied"), Some("return=representation"));
    assert_eq!(row.header("etag"), Some("\"3\""));
    let row = row.json();
    assert_eq!(
        (&row["external_id"], &row["name"], &row["version"]),
        (&json!("A"), &json!("Ada"), &json!(3))
    );
    let again = stage.send(whole("3")).await;
    assert_eq!(brief(&again), "200 updated 3 again", "a stored answer is an outcome, no row");
    assert_eq!(again.header("preference-applied"), None);
    let gone =
        request("DELETE", "/v1/customer/A").id("4").header("prefer", "return=representation");
    assert_eq!(brief(&stage.send(gone).await), "200 deleted -");

    let waits = patch("customer/A", "5", body).header("prefer", "wait=9, handling=strict");
    let waited = stage.send(waits).await;
    assert_eq!(waited.header("preference-applied"), Some("wait"));
    assert_eq!(brief(&waited), "201 created 5");
}

#[tokio::test]
async fn who_does_not_wait_is_told_where_the_outcome_will_be() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    let mut intruder = stage.scene.pool.acquire().await.unwrap();
    let hold = "begin; update public.customers set name = 'mine'";
    sqlx::raw_sql(AssertSqlSafe(hold.to_owned())).execute(&mut *intruder).await.unwrap();

    // Held: no outcome can come before the row is let go.
    let odd = r#"a/b "c" \ % 1"#;
    let quoted = r#""a/b \"c\" \\ % 1""#;
    let waits = [("respond-async", "respond-async"), ("wait=0", "wait"), ("wait=1", "wait")];
    for (prefer, applied) in waits {
        let started = Instant::now();
        let call = request("PATCH", "/v1/customer/A").header("idempotency-key", quoted);
        let answer = stage.send(call.header("prefer", prefer).body(r#"{"points":1}"#)).await;
        assert_eq!(brief(&answer), "202 pending", "{prefer}");
        let location = answer.header("location").unwrap();
        assert_eq!(location, "/v1/writes/customer/a%2Fb%20%22c%22%20%5C%20%25%201", "{prefer}");
        assert_eq!(answer.json()["location"], location);
        assert_eq!(answer.header("preference-applied"), Some(applied));
        assert!((started.elapsed().as_secs() >= 1) == (prefer == "wait=1"), "{prefer}");
    }
    let status = || request("GET", "/v1/writes/customer/a%2Fb%20%22c%22%20%5C%20%25%201");
    let pending = stage.send(status()).await;
    assert_eq!(
        (brief(&pending).as_str(), &pending.json()["write_id"]),
        ("202 pending", &json!(odd))
    );

    sqlx::raw_sql("rollback").execute(&mut *intruder).await.unwrap();
    wait::until_equal(wait::SOON, "the outcome", "200 updated 2 again".to_owned(), async || {
        let answer = stage.client.send(status()).await;
        // A question about a write is no repeat of it.
        brief_of_status(&answer)
    })
    .await;
    let call = request("PATCH", "/v1/customer/A").header("idempotency-key", quoted);
    let again = stage.send(call.body(r#"{"points":1}"#)).await;
    assert_eq!(brief(&again), "200 updated 2 again");
    let asked = stage.send(status()).await;
    assert_eq!(told(&asked), told(&again));
}

fn brief_of_status(answer: &crate::support::Answer) -> String {
    if answer.status == 202 {
        return brief(answer);
    }
    let body = answer.json();
    format!(
        "{} {} {} again",
        answer.status,
        body["effect"].as_str().unwrap_or("-"),
        body["version"]
    )
}

#[tokio::test]
async fn the_status_of_a_write_is_its_outcome_whatever_that_is() {
    let mut stage = Stage::new().await;
    stage.send(patch("customer/A", "1", "{}")).await.was(201);
    let create = patch("customer/A", "2", "{}").header("if-none-match", "*");
    assert_eq!(brief(&stage.send(create).await), "412 already_exists");
    // Only the worker can see this one.
    stage.scene.execute("alter table customers add check (points < 1000)").await;
    let wrong = stage.send(patch("customer/A", "3", r#"{"points":1000}"#)).await;
    assert_eq!(brief(&wrong), "422 constraint_violation");
    assert_eq!(wrong.json()["write_id"], "3");
    let table = [
        ("1", "applied", json!(null)),
        ("2", "precondition_failed", json!("already_exists")),
        ("3", "rejected", json!("constraint_violation")),
    ];
    for (id, outcome, reason) in table {
        let answer =
            stage.send(request("GET", &format!("/v1/writes/customer/{id}"))).await.was(200);
        let body = answer.json();
        assert_eq!((&body["outcome"], &body["reason"]), (&json!(outcome), &reason), "{id}");
        assert_eq!((&body["write_id"], &body["key"]), (&json!(id), &json!("A")));
    }
    let never = stage.send(request("GET", "/v1/writes/customer/never")).await;
    assert_eq!(brief(&never), "202 pending", "nobody knows what is still in a queue");
    // Whoever wonders sends it again, which does no harm and ends the wondering.
    stage.send(patch("customer/A", "never", "{}")).await.was(200);
    stage.send(request("GET", "/v1/writes/customer/never")).await.was(200);
}
