//! Writes over HTTP: the built ingress, as callers meet it.

mod answers;
mod bulk;
mod bulk_large;
mod bulk_wrong;
mod calls;
mod chaos;
mod hung;
mod integration;
mod keys;
mod late_servers;
mod leaks;
mod limits;
mod outages;
mod parked;
mod readers;
mod refused;
mod repeats;
mod repeats_lost;
mod stop;
mod tokens;
mod traces;

use serde_json::Value;

use crate::support::{Answer, Client, Process, Request, Scene, Worker, entities, request};

/// Beside customers: a composite key, a canonical one, and one without any column for guards.
const TABLES: &str = "
    create table order_lines (
        order_no text, line integer, qty integer not null, picks integer[], note jsonb,
        version bigint, primary key (order_no, line));
    create table sites (id uuid primary key, name text);";
const ENTITIES: &str = "
    [entities.order_line]
    table = 'order_lines'
    key = ['order_no', 'line']
    version = 'version'
    [entities.site]
    table = 'sites'
    key = ['id']
    ";

/// One worker, one ingress and somebody who calls it.
struct Stage {
    client: Client,
    ingress: Process,
    worker: Worker,
    scene: Scene,
}

impl Stage {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With settings of the ingress.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let tables = [entities::CUSTOMERS, TABLES].concat();
        let scene = Scene::new(&tables, &[entities::CUSTOMER, ENTITIES].concat()).await;
        Self::on(scene, settings).await
    }

    async fn on(scene: Scene, settings: &[(&str, &str)]) -> Self {
        let worker = scene.worker().await;
        let ingress = scene.ingress_with(settings).await;
        Self { client: Client::new(ingress.port), ingress, worker, scene }
    }

    async fn send(&mut self, request: Request) -> Answer {
        self.client.send(request).await
    }

    async fn number(&self, sql: &str) -> i64 {
        self.scene.number(sql).await
    }
}

/// `PATCH` of a row of this path below `/v1/`.
fn patch(path: &str, id: &str, body: &str) -> Request {
    request("PATCH", &format!("/v1/{path}")).id(id).body(body)
}

/// `POST` to a row: an increment.
fn add(path: &str, id: &str, body: &str) -> Request {
    request("POST", &format!("/v1/{path}")).id(id).body(body)
}

/// An answer in short, once all that every answer has is there: `201 created 1`,
/// `412 version_mismatch`, `422 type_mismatch /balance`.
fn brief(answer: &Answer) -> String {
    let status = answer.status;
    if status == 204 || status == 304 || answer.body.is_empty() {
        return format!("{status} - {}", answer.header("etag").unwrap_or("-").trim_matches('"'));
    }
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
    if status < 300 {
        assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
        if status == 202 {
            assert!(answer.header("location").is_some(), "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            let replayed = body["replayed"] == true;
            assert_eq!(answer.header("idempotent-replayed").is_some(), replayed, "{answer:?}");
            return format!("202 {}", text("outcome"));
        }
        assert_eq!(text("outcome"), "applied", "{answer:?}");
        let replayed = body["replayed"] == true;
        assert_eq!(answer.header("idempotent-replayed").is_some(), replayed, "{answer:?}");
        let tag = body["version"].as_i64().map(|version| format!("\"{version}\""));
        assert_eq!(answer.header("etag"), tag.as_deref(), "{answer:?}");
        let version = body["version"].as_i64().map_or("-".to_owned(), |it| it.to_string());
        let replayed = if replayed { " again" } else { "" };
        return format!("{status} {} {version}{replayed}", text("effect"));
    }
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert_eq!(body["status"], status, "{answer:?}");
    assert_eq!(text("type"), format!("/problems/{}", text("code")));
    assert!(text("title").len() > 3 && text("detail").len() > 3, "{answer:?}");
    if status == 503 {
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    let replayed = if answer.header("idempotent-replayed").is_some() { " again" } else { "" };
    let pointer = body["errors"][0]["pointer"].as_str();
    let pointer = pointer.map(|pointer| format!(" {pointer}")).unwrap_or_default();
    format!("{status} {}{pointer}{replayed}", text("code"))
}

/// What of an outcome stays the same however often it is told.
fn told(answer: &Answer) -> Value {
    let body = answer.json();
    let mut outcome = if body["outcome"].is_object() { body["outcome"].clone() } else { body };
    outcome.as_object_mut().unwrap().remove("replayed");
    outcome
}
