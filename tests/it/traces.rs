//! What a collector of traces learns, and that nobody waits for one.

use std::net::TcpListener;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::collector::Span;
use crate::support::sender::brief;
use crate::support::{Cli, Client, Collector, Process, Scene, entities, request, wait, write};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CALLER: &str = "00f067aa0ba902b7";

/// Kinds of spans in the protocol.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Settings of a process that exports to `url` soon.
fn exports_to(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_BSP_SCHEDULE_DELAY", "300"),
        ("telemetry.log", "info,keylane::http=debug"),
    ]
}

async fn scene() -> Scene {
    Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await
}

/// A worker and an ingress in one process, which have a ring.
async fn run(scene: &Scene, settings: &[(&str, &str)]) -> Process {
    let process = Process::spawn_command("run", &scene.config(), settings).ready().await;
    let ring = "select count(*) from keylane.turns where closed_at is null and generation > 0";
    wait::until(wait::SOON, "a ring has its turn", async || scene.number(ring).await > 0).await;
    process
}

/// The lines of a log that hold this id.
fn lines<'log>(log: &'log str, id: &str) -> Vec<&'log str> {
    log.lines().filter(|line| line.contains(id)).collect()
}

fn links_to(span: &Span, trace: &str, id: &str) -> bool {
    span.links.iter().any(|link| (link.0.as_str(), link.1.as_str()) == (trace, id))
}

#[tokio::test]
async fn a_write_is_followed_from_its_request_to_its_commit() {
    let (scene, collector) = (scene().await, Collector::new().await);
    let mut settings = exports_to(&collector.url);
    settings.extend([
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
    ]);
    let process = run(&scene, &settings).await;
    let mut client = Client::new(process.port);
    let asked = request("PATCH", "/v1/customer/KEY-1").id("ID-1").body(r#"{"name":"BODY-1"}"#);
    let asked = asked.header("traceparent", PARENT).header("tracestate", "a=1");
    let answer = client.send(asked).await.was(201);

    let accept = collector.span("a request", |span| span.kind == SERVER).await;
    assert_eq!(accept.name, "PATCH /v1/{*path}");
    assert_eq!((accept.trace.as_str(), accept.parent.as_str()), (TRACE, CALLER));
    assert_eq!(accept.state, "a=1");
    assert_eq!(accept.attribute("http.response.status_code"), "201");
    let ours = format!("00-{TRACE}-{}-01", accept.id);
    assert_eq!(answer.header("traceparent"), Some(ours.as_str()), "the answer names the span");

    let publish = collector.span("a message", |span| span.kind == PRODUCER).await;
    assert_eq!(publish.name, format!("publish {}.writes", scene.prefix));
    assert_eq!((&publish.trace, &publish.parent), (&accept.trace, &accept.id));
    assert_eq!(publish.attribute("messaging.operation.type"), "send");

    let linked = |span: &Span| span.kind == CONSUMER && links_to(span, TRACE, &publish.id);
    let batch = collector.span("a batch that links to the message", linked).await;
    assert_eq!(batch.name, "batch keylane.{generation}.{partition}");
    assert_eq!((batch.parent.as_str(), batch.links.len()), ("", 1));
    assert_ne!(batch.trace, TRACE, "it is about many writes");
    assert_eq!(batch.attribute("messaging.system"), "rabbitmq");
    assert_eq!(batch.attribute("messaging.batch.message_count"), "1");
    for name in ["open", "load", "commit", "ack keylane.{generation}.{partition}"] {
        let of_batch = |span: &Span| span.name == name && span.parent == batch.id && !span.failed;
        let step = collector.span(name, of_batch).await;
        assert_eq!((step.kind, &step.trace), (CLIENT, &batch.trace), "{name}");
    }
    let together = collector.exports().into_iter().any(|export| {
        [&publish, &batch].iter().all(|of| export.iter().any(|span| span.id == of.id))
    });
    assert!(together, "spans leave in batches");

    for span in collector.spans() {
        let all = format!("{span:?}");
        for secret in ["KEY-1", "ID-1", "BODY-1"] {
            assert!(!all.contains(secret), "{all}");
        }
        assert_eq!(span.resource["service.name"], "keylane");
        assert_eq!(span.resource["deployment.environment.name"], "test");
    }
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer abc"));

    let log = process.log();
    let answered = lines(&log, &accept.id);
    assert!(answered.len() == 1 && answered[0].contains(TRACE), "{log}");
    let about_batches = collector.spans().into_iter().filter(|span| span.kind == CONSUMER);
    let told = about_batches.flat_map(|batch| {
        let ids = format!("trace_id=\"{}\" span_id=\"{}\"", batch.trace, batch.id);
        lines(&log, &ids).into_iter().map(str::to_owned).collect::<Vec<_>>()
    });
    let told: Vec<String> = told.collect();
    assert!(told.iter().any(|line| line.contains("Committing")), "{log}");
    assert!(told.iter().all(|line| !line.contains("messaging")), "ids are enough: {told:?}");
}

#[tokio::test]
async fn a_bulk_request_lasts_until_its_last_result_and_each_item_has_a_span_in_it() {
    let (scene, collector) = (scene().await, Collector::new().await);
    let process = run(&scene, &exports_to(&collector.url)).await;
    let item = |number: usize| {
        format!(
            r#"{{"entity":"customer","change":"upsert","key":"k{number}","id":"{number}","body":{{}}}}"#
        )
    };
    let items: Vec<String> = (0..200).map(item).collect();
    let asked = request("POST", "/v1/writes").header("content-type", "application/x-ndjson");
    let asked = asked.header("traceparent", PARENT).body(items.join("\n"));
    Client::new(process.port).send(asked).await.was(200);

    let accept = collector.span("a request", |span| span.kind == SERVER).await;
    assert_eq!(accept.trace, TRACE);
    let publishes = || {
        let spans = collector.spans().into_iter().filter(|span| span.kind == PRODUCER);
        spans.collect::<Vec<_>>()
    };
    wait::until_equal(wait::SOON, "a span an item", 200, async || publishes().len()).await;
    assert!(publishes().iter().all(|span| span.parent == accept.id));
    assert!(publishes().iter().all(|span| span.end <= accept.end), "the request ends last");
    wait::until(wait::SOON, "each is linked to, up to 128 of a batch", async || {
        let batches = collector.spans().into_iter().filter(|span| span.kind == CONSUMER);
        let told = batches.map(|batch| {
            let count: usize = batch.attribute("messaging.batch.message_count").parse().unwrap();
            assert_eq!(batch.links.len(), count.min(128), "{batch:?}");
            count
        });
        told.sum::<usize>() == 200
    })
    .await;
}

#[tokio::test]
async fn a_message_brings_its_trace_and_its_outcome_takes_it_along() {
    let (scene, collector) = (scene().await, Collector::new().await);
    let mut settings = exports_to(&collector.url);
    settings.extend([
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ("OTEL_SERVICE_NAME", "lane"),
        ("telemetry.format", "json"),
    ]);
    let worker = scene.worker_with(&settings).await;
    let mut sender = scene.sender().await;
    let upsert = |id: &str| write("customer.upsert", "A", id, "{}");
    let untraced = sender.outcome(upsert("1")).await;
    assert_eq!(brief(&untraced), "applied created 1");
    let traced = upsert("2").header("traceparent", PARENT).header("tracestate", "a=1");
    let headers = sender.outcome_headers(traced.clone()).await;
    let header = |name: &str| {
        let value = headers.inner().get(name).and_then(|value| value.as_long_string());
        value.map(|text| String::from_utf8(text.as_bytes().to_vec()).unwrap())
    };
    assert_eq!(header("traceparent").as_deref(), Some(PARENT));
    assert_eq!(header("tracestate").as_deref(), Some("a=1"));

    let batch = collector.span("a batch", |span| span.kind == CONSUMER).await;
    assert!(links_to(&batch, TRACE, CALLER), "{batch:?}");
    assert_eq!(batch.state, "", "a state belongs to its own trace");
    assert_eq!(batch.resource["service.name"], "lane");
    // What is rejected is logged, as the batch fails that it would have been in.
    scene.execute("alter table customers add check (points < 1000)").await;
    let refused = write("customer.upsert", "B", "3", r#"{"points":1000}"#);
    let refused = sender.outcome(refused.header("traceparent", PARENT)).await;
    assert_eq!(brief(&refused), "rejected constraint_violation -");
    let failed = collector.span("a step that failed", |span| span.failed).await;
    assert_eq!(failed.attribute("error.type"), "refused");
    let batches = collector.spans().into_iter().filter(|span| span.kind == CONSUMER).count();
    assert_eq!(batches, 2, "a batch is recorded if a write of it is");
    let log = worker.log();
    let in_json = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let with_ids = in_json.filter(|line| line["span"]["trace_id"].as_str().is_some());
    assert!(with_ids.count() > 0, "{log}");
}

#[tokio::test]
async fn a_replay_links_to_the_trace_that_its_letter_came_with() {
    let (scene, collector) = (scene().await, Collector::new().await);
    let _worker = scene.worker_with(&exports_to(&collector.url)).await;
    scene.execute("alter table customers add constraint low check (points < 1000)").await;
    let mut sender = scene.sender().await;
    let dead = write("customer.upsert", "A", "1", r#"{"points":1000}"#);
    let dead = sender.outcome(dead.header("traceparent", PARENT)).await;
    assert_eq!(brief(&dead), "rejected constraint_violation -");
    scene.execute("alter table customers drop constraint low").await;
    let cli = Cli::new(&scene);
    cli.run(&["dead-letters", "replay", "--all", "--yes", "--because", "mended"]).await.ended(0);

    let replay = collector.span("a replay", |span| span.name == "replay").await;
    assert_eq!((replay.kind, replay.attribute("keylane.replayed")), (INTERNAL, "1"));
    assert!(links_to(&replay, TRACE, CALLER), "{replay:?}");
    for name in ["load", "commit"] {
        collector.span(name, |span| span.name == name && span.parent == replay.id).await;
    }
}

#[tokio::test]
async fn nothing_is_sent_or_changed_where_nobody_asked_for_traces() {
    let (scene, collector) = (scene().await, Collector::new().await);
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let mut settings = exports_to(&collector.url);
        settings.push(off);
        let mut process = run(&scene, &settings).await;
        let asked = request("PATCH", "/v1/customer/A").id(off.0).body("{}");
        let answer = Client::new(process.port).send(asked.header("traceparent", PARENT)).await;
        assert!(answer.status < 300, "{answer:?}");
        assert!(answer.header("traceparent").unwrap().contains(TRACE), "context goes on");
        process.signal("TERM");
        assert_eq!(process.exit_code().await, 0);
        let log = process.log();
        assert_eq!(lines(&log, TRACE).len(), 1, "the line of the request: {log}");
        assert!(!log.contains("trace{"), "{log}");
    }
    assert!(collector.exports().is_empty(), "{:?}", collector.exports());
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away_or_silent() {
    let scene = scene().await;
    // Connections are taken by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    for (url, timeout_ms, told) in
        [("http://127.0.0.1:1", "10000", 1), (&silent_url, "200", 1), (&silent_url, "60000", 0)]
    {
        let mut settings = exports_to(url);
        settings.extend([
            ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout_ms),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
        ]);
        let mut worker = scene.worker_with(&settings).await;
        let mut sender = scene.sender().await;
        let id = |number: usize| format!("{url}-{timeout_ms}-{number}");
        let writes: Vec<_> = (0..500)
            .map(|number| write("customer.upsert", &format!("k{number}"), &id(number), "{}"))
            .collect();
        let started = Instant::now();
        let outcomes = sender.outcomes(&writes).await;
        assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "applied"));
        eprintln!("500 writes while {url} is tried: {:?}", started.elapsed());
        if told > 0 {
            wait::until(wait::SOON, "it is told", async || {
                worker.log().contains("failed to send spans")
            })
            .await;
        }
        let stopping = Instant::now();
        worker.signal("TERM");
        assert_eq!(worker.exit_code().await, 0);
        let took = stopping.elapsed();
        assert!(took.as_secs() < 8, "a stop waits for spans for 2 s at most: {took:?}");
        eprintln!("stopped within {took:?}");
        assert_eq!(lines(&worker.log(), "failed to send spans").len(), told, "now and then");
    }
}
