//! A collector of traces: takes what is exported over OTLP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{hex, wait};

/// A span, as a collector sees it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// As in the protocol: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    pub failed: bool,
    /// In nanoseconds.
    pub end: u64,
    pub state: String,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    pub attributes: BTreeMap<String, String>,
    /// Of the process.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    fn of(span: v1::Span, resource: &BTreeMap<String, String>) -> Self {
        Self {
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind: span.kind,
            failed: span.status.is_some_and(|status| status.code == 2),
            end: span.end_time_unix_nano,
            state: span.trace_state,
            links: span.links.iter().map(|it| (hex(&it.trace_id), hex(&it.span_id))).collect(),
            attributes: texts(span.attributes),
            resource: resource.clone(),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |it: KeyValue| (it.key, text(it.value.and_then(|value| value.value)));
    attributes.into_iter().map(pair).collect()
}

#[derive(Default)]
struct Taken {
    /// One list a request.
    exports: Mutex<Vec<Vec<Span>>>,
    headers: Mutex<HeaderMap>,
}

/// Takes spans until it is dropped.
pub(crate) struct Collector {
    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` must be.
    pub url: String,
    taken: Arc<Taken>,
    _serving: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::new(Taken::default());
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, taken, _serving: serving }
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.exports().concat()
    }

    /// The spans of each request so far.
    pub(crate) fn exports(&self) -> Vec<Vec<Span>> {
        self.taken.exports.lock().unwrap().clone()
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let headers = self.taken.headers.lock().unwrap();
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// Waits for a span that `fits`.
    pub(crate) async fn span(
        &self,
        what: &str,
        fits: impl Fn(&Span) -> bool + Send + Sync,
    ) -> Span {
        let find = || self.spans().into_iter().find(&fits);
        wait::until(wait::SOON, what, async || find().is_some()).await;
        find().unwrap()
    }
}

async fn take(State(taken): State<Arc<Taken>>, headers: HeaderMap, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for of in request.resource_spans {
        let resource = texts(of.resource.unwrap_or_default().attributes);
        let scopes = of.scope_spans.into_iter();
        spans.extend(scopes.flat_map(|of| of.spans).map(|span| Span::of(span, &resource)));
    }
    taken.exports.lock().unwrap().push(spans);
    *taken.headers.lock().unwrap() = headers;
}
