//! Spans of a write's way, for whoever collects traces.
//!
//! Owns: which spans there are, their names and attributes, and what they link to; that no key and
//! no body is in one. Where nothing is exported nothing is made: every span is disabled.

mod convert;
mod export;

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::Empty;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span, debug, error_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::core::batch::{Item, Source};
use crate::core::failure::Failure;
use crate::core::message::Properties;
use crate::core::partition::PartitionId;
use crate::core::trace::Trace;

use convert::{parent, span_context, trace_of};
pub use export::{Export, is_span};

/// Messages that the span of a batch links to at most; it tells how many the batch holds.
const LINKS_MAX: usize = 128;
/// Only these requests are worth a span.
const WRITES: &str = "/v1/";
/// Methods that have a meaning here: a span's name holds nothing that a caller made up.
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

/// Target of the spans that are exported; no log line shows them. They have the level ERROR, so
/// that no filter of a subscriber's hides them.
const SPANS: &str = "keylane::spans";
/// Target of the spans that give log lines their ids; nobody exports them.
const IDS: &str = "keylane::ids";

static ON: AtomicBool = AtomicBool::new(false);

fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A request is taken: its span in its caller's trace, and where that is.
pub fn accept(caller: Option<&Trace>, method: &str, route: &str) -> Option<(Span, Trace)> {
    if !on() || !route.starts_with(WRITES) {
        return None;
    }
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
    let span = error_span!(
        target: SPANS, parent: None, "accept",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    set_parent(&span, caller);
    let ours = trace_of(&span)?;
    Some((span, ours))
}

/// A request has its answer.
pub fn answered(accept: &Span, status: u16) {
    accept.record("http.response.status_code", status);
    if status >= 500 {
        accept.record("otel.status_code", "error");
    }
}

/// A write goes to the broker: a span in the trace that its message carries, which carries this
/// span from now on.
pub fn publish(exchange: &str, properties: &mut Properties) -> Span {
    if !on() {
        return Span::none();
    }
    let span = error_span!(
        target: SPANS, parent: None, "publish",
        otel.name = format!("publish {exchange}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = "rabbitmq",
        messaging.operation.type = "send",
        messaging.operation.name = "publish",
        messaging.destination.name = exchange,
    );
    set_parent(&span, Trace::of(properties).as_ref());
    if let Some(trace) = trace_of(&span) {
        trace.put_into(properties);
    }
    span
}

/// A batch of deliveries, with links to their traces.
pub fn batch(partition: PartitionId, items: &[Item]) -> Span {
    if !on() || items.is_empty() {
        return Span::none();
    }
    let span = error_span!(
        target: SPANS, parent: None, "batch",
        otel.name = format!("batch {}", template(partition)),
        otel.kind = "consumer",
        messaging.system = "rabbitmq",
        messaging.operation.type = "process",
        messaging.operation.name = "batch",
        messaging.destination.template = template(partition),
        messaging.batch.message_count = items.len(),
        keylane.generation = partition.generation,
        keylane.partition = partition.partition,
    );
    link(&span, items);
    span
}

/// Dead letters that are replayed and writes that rested, taken from the table, with links to the
/// traces that they came with.
pub fn replay(partition: PartitionId, items: &[Item]) -> Span {
    if !on() || items.is_empty() {
        return Span::none();
    }
    let rested = |item: &&Item| matches!(item.source, Source::Letter { rests: true, .. });
    let rested = items.iter().filter(rested).count();
    let span = error_span!(
        target: SPANS, parent: None, "replay",
        keylane.replayed = items.len() - rested,
        keylane.rested = rested,
        keylane.generation = partition.generation,
        keylane.partition = partition.partition,
    );
    link(&span, items);
    span
}

/// One step of what is done now, `load` or `commit`: a request of the database.
pub async fn step<T: Send>(
    name: &'static str,
    work: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    if !on() {
        return work.await;
    }
    let span = error_span!(
        target: SPANS, "step",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        db.system.name = "postgresql",
    );
    let done = work.instrument(span.clone()).await;
    match &done {
        // A lane's first delivery, or another queue's turn: nothing went wrong.
        Ok(_) | Err(Failure::Unclaimed | Failure::NotOurTurn(_)) => {}
        Err(failure) => failed(&span, failure.cause()),
    }
    done
}

/// A batch is acknowledged.
pub fn settle(partition: PartitionId) -> Span {
    if !on() {
        return Span::none();
    }
    error_span!(
        target: SPANS, "settle",
        otel.name = format!("ack {}", template(partition)),
        otel.kind = "client",
        messaging.system = "rabbitmq",
        messaging.operation.type = "settle",
        messaging.operation.name = "ack",
        messaging.destination.template = template(partition),
    )
}

/// What the span stands for did not come to pass.
pub fn failed(span: &Span, cause: &'static str) {
    span.record("error.type", cause);
    span.record("otel.status_code", "error");
}

/// Does `work` inside a span; log lines of it carry the ids of its trace.
pub fn within<F: Future>(span: &Span, work: F) -> Instrumented<Instrumented<F>> {
    let ids = if span.is_none() { None } else { trace_of(span) };
    let ids = ids.map_or_else(Span::none, |Trace { trace_id, span_id, .. }| {
        let (trace_id, span_id) = (format!("{trace_id:032x}"), format!("{span_id:016x}"));
        error_span!(target: IDS, parent: None, "trace", trace_id, span_id)
    });
    work.instrument(ids).instrument(span.clone())
}

/// The queue's name, without what is only one of many.
fn template(partition: PartitionId) -> &'static str {
    match partition {
        PartitionId::HELD => "keylane.held",
        PartitionId::DEAD => "keylane.dead",
        PartitionId { .. } => "keylane.{generation}.{partition}",
    }
}

fn set_parent(span: &Span, trace: Option<&Trace>) {
    let Some(trace) = trace else { return };
    span.set_parent(parent(span_context(trace)))
        .unwrap_or_else(|error| debug!(%error, "failed to put a span into its trace"));
}

fn link(span: &Span, items: &[Item]) {
    let traces = items.iter().filter_map(|item| Trace::of(&item.message.properties));
    for trace in worth_a_link(traces) {
        span.add_link(span_context(&trace));
    }
}

/// A link leads to a span that somebody recorded. Where nobody did, one of them says so: the
/// sampler asks the first.
fn worth_a_link(traces: impl Iterator<Item = Trace>) -> Vec<Trace> {
    let (mut sampled, mut unsampled) = (Vec::new(), None);
    for trace in traces {
        if trace.sampled {
            sampled.push(trace);
        } else {
            unsampled = Some(trace);
        }
        if sampled.len() == LINKS_MAX {
            break;
        }
    }
    if sampled.is_empty() {
        sampled.extend(unsampled);
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_what_is_recorded_and_are_bounded() {
        let trace = |span_id, sampled| Trace { trace_id: 1, span_id, sampled, state: None };
        let linked = |traces: Vec<Trace>| {
            let links = worth_a_link(traces.into_iter());
            links.iter().map(|trace| trace.span_id).collect::<Vec<_>>()
        };
        assert_eq!(linked(vec![]), [0; 0]);
        assert_eq!(linked(vec![trace(1, false), trace(2, true), trace(3, true)]), [2, 3]);
        assert_eq!(linked(vec![trace(1, false), trace(2, false)]).len(), 1);
        let many = linked((1..=1000).map(|span_id| trace(span_id, span_id > 100)).collect());
        assert_eq!((many.len(), many[0]), (LINKS_MAX, 101));
    }

    #[test]
    fn nothing_is_made_where_nothing_is_exported() {
        let mut properties = Properties::default();
        assert!(accept(None, "PATCH", "/v1/{*path}").is_none());
        assert!(publish("keylane.writes", &mut properties).is_none());
        assert_eq!(properties, Properties::default());
        assert!(settle(PartitionId::HELD).is_none());
    }
}
