//! The trace that a caller began goes on: in the answer, in the log, with the message.

use super::bulk::{bulk, item};
use super::{Stage, brief, patch};
use crate::support::wait;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_trace_goes_on_from_the_caller_to_the_message() {
    let mut stage = Stage::with(&[("telemetry.log", "info,keylane::http=debug")]).await;
    // The dead letter keeps the message as it came.
    stage.scene.execute("alter table customers add check (points < 1000)").await;
    let traced = |request: crate::support::Request| {
        request.header("traceparent", PARENT).header("tracestate", "a=1")
    };
    let one = stage.send(traced(patch("customer/A", "one", r#"{"points":1000}"#))).await;
    assert_eq!(brief(&one), "422 constraint_violation");
    assert_eq!(one.json()["trace_id"], TRACE);
    let many = bulk().body(item("upsert", "B", "many", r#"{"points":1000}"#));
    let many = stage.send(traced(many)).await.was(200);
    assert_eq!(many.json()["reason"], "constraint_violation");

    for (answer, id) in [(&one, "one"), (&many, "many")] {
        let ours = answer.header("traceparent").unwrap();
        assert!(ours.contains(TRACE) && ours != PARENT, "our own span in it: {ours}");
        let letter = format!(
            "select properties->'headers' as h from keylane.dead_letters where write_id = '{id}'"
        );
        let letter = stage.scene.rows(&letter).await.remove(0);
        let headers = letter["h"].to_string();
        assert!(headers.contains(ours), "{headers}");
        assert!(headers.contains("a=1"), "{headers}");
    }
    wait::until(wait::SOON, "both are in the log", async || {
        stage.ingress.log().matches(TRACE).count() == 2
    })
    .await;
    let log = stage.ingress.log();
    assert!(!log.contains("customer/A") && !log.contains("1000}"), "no key and no body: {log}");
}
