//! How spans leave: OTLP over HTTP, as the `OTEL_*` variables say.
//!
//! Owns: that a collector which is away or silent costs nothing but spans. They wait in a bounded
//! queue that one thread empties; what does not fit is dropped.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, SpanExporter,
    WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Config, SamplingResult, SdkTracerProvider, ShouldSample};
use tracing::{Metadata, Subscriber, level_filters::LevelFilter, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::convert::parent;
use super::{ON, SPANS};

/// The name of this service, unless a variable has another.
const SERVICE: &str = "keylane";
/// Longest wait at a stop for spans that have not left.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How often a trouble is told of while it lasts.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Authorities that may sign the collector's certificate; the exporter leaves them to its client.
const CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
/// What is read of a collector's answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Where spans go, if they go anywhere.
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Begins, if an endpoint is named; a value that cannot be used is an error.
    pub fn start() -> anyhow::Result<Self> {
        if !wanted(variable) {
            return Ok(Self(None));
        }
        let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new()?);
        let exporter = exporter.build().context("read the OTEL_EXPORTER_OTLP variables")?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_sampler(ByLinks(Config::default().sampler))
            .with_batch_exporter(exporter)
            .build();
        ON.store(true, Ordering::Relaxed);
        Ok(Self(Some(provider)))
    }

    /// What makes spans of ours leave; nothing where they do not.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer(SERVICE);
        let ours = filter_fn(is_span).with_max_level_hint(LevelFilter::ERROR);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        Some(layer.with_filter(ours))
    }

    /// Sends what is left, for so long and no longer.
    pub fn stop(self) {
        let Some(provider) = self.0 else { return };
        ON.store(false, Ordering::Relaxed);
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_MAX) {
            warn!(%error, "failed to send the last spans; they are lost");
        }
    }
}

/// Whether it is a span that is exported.
pub fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.target() == SPANS
}

#[expect(clippy::disallowed_methods, reason = "OpenTelemetry's own names, the same everywhere")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether the variables ask for spans.
fn wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let says =
        |name, word| variable(name).is_some_and(|text| text.trim().eq_ignore_ascii_case(word));
    let somewhere = [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT];
    !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
        && somewhere.into_iter().any(|name| variable(name).is_some())
}

fn timeout() -> Duration {
    let names = [OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT];
    let millis = names.into_iter().find_map(|name| variable(name)?.trim().parse().ok());
    millis.map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
}

/// Who may have signed the collector's certificate.
fn authorities() -> anyhow::Result<RootCerts> {
    let Some(file) = CERTIFICATES.into_iter().find_map(variable) else {
        return Ok(RootCerts::WebPki);
    };
    let pem = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    let items: Vec<PemItem<'static>> =
        parse_pem(&pem).collect::<Result<_, _>>().with_context(|| format!("read {file}"))?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<Certificate<'static>> = certificates.collect();
    Ok(RootCerts::new_with_certs(&certificates))
}

/// Who we are; what the variables say has precedence.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// The sampler that the variables name. A batch has no parent; its first link stands in for one,
/// so that a write which is recorded is so to its end.
#[derive(Debug, Clone)]
struct ByLinks(Box<dyn ShouldSample>);

impl ShouldSample for ByLinks {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sample = |parent: Option<&Context>| {
            self.0.should_sample(parent, trace_id, name, span_kind, attributes, links)
        };
        let alone = parent_context.is_none_or(|parent| !parent.span().span_context().is_valid());
        match links.first() {
            Some(link) if alone => {
                let stands_in = parent(link.span_context.clone());
                SamplingResult { trace_state: TraceState::default(), ..sample(Some(&stands_in)) }
            }
            Some(_) | None => sample(parent_context),
        }
    }
}

/// Sends with the HTTP client that is here anyway, on the queue's own thread.
#[derive(Debug)]
struct Sender {
    agent: ureq::Agent,
    told_at: Mutex<Option<Instant>>,
}

impl Sender {
    fn new() -> anyhow::Result<Self> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout()))
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(authorities()?).build())
            .build();
        Ok(Self { agent: config.into(), told_at: Mutex::new(None) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, body.as_ref()))?;
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    fn tell(&self, why: &str) {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            *told_at = Some(Instant::now());
            warn!(why, "failed to send spans; those that do not fit into the queue are dropped");
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.send(request);
        match &sent {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.tell(&format!("the collector answers {}", response.status())),
            Err(error) => self.tell(&error.to_string()),
        }
        Ok(sent?)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision};

    use super::*;

    #[test]
    fn spans_are_wanted_where_an_endpoint_is_named_and_nothing_forbids_them() {
        let table: [(&[(&str, &str)], bool); 6] = [
            (&[], false),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], true),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")], true),
            (&[("OTEL_SERVICE_NAME", "a"), ("OTEL_TRACES_SAMPLER", "always_on")], false),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_SDK_DISABLED", "True")], false),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_TRACES_EXPORTER", "none")],
                false,
            ),
        ];
        for (variables, expected) in table {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(wanted(variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_batch_is_recorded_if_a_write_of_it_is() {
        let link = |flags| {
            let state = TraceState::from_key_value([("a", "1")]).unwrap();
            let (trace, span) = (TraceId::from(1), SpanId::from(1));
            Link::with_context(SpanContext::new(trace, span, flags, true, state))
        };
        let decision = |sampler: Sampler, links: &[Link]| {
            let sampler = ByLinks(sampler.into());
            let root = Context::new();
            let result = sampler.should_sample(
                Some(&root),
                TraceId::from(2),
                "batch",
                &SpanKind::Consumer,
                &[],
                links,
            );
            assert_eq!(result.trace_state.header(), "", "a state belongs to its own trace");
            result.decision == SamplingDecision::RecordAndSample
        };
        let never = || Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let always = || Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let (seen, unseen) = (link(TraceFlags::SAMPLED), link(TraceFlags::NOT_SAMPLED));
        assert!(decision(never(), std::slice::from_ref(&seen)));
        assert!(!decision(always(), &[unseen]));
        assert!(!decision(never(), &[]) && decision(always(), &[]));
        assert!(!decision(Sampler::AlwaysOff, &[seen]), "who wants none gets none");
    }
}
