//! Between our words for a span's place and OpenTelemetry's.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::core::trace::Trace;

/// Where a span is; it has its ids from now on, and its parent can no longer be set.
pub(super) fn trace_of(span: &Span) -> Option<Trace> {
    let context = span.context();
    let span = context.span();
    let ours = span.span_context();
    let state = Some(ours.trace_state().header()).filter(|state| !state.is_empty());
    ours.is_valid().then(|| Trace {
        trace_id: u128::from_be_bytes(ours.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(ours.span_id().to_bytes()),
        sampled: ours.is_sampled(),
        state,
    })
}

/// A span of somebody else's.
pub(super) fn span_context(trace: &Trace) -> SpanContext {
    let state = trace.state.as_deref().and_then(|state| state.parse::<TraceState>().ok());
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id.to_be_bytes()),
        SpanId::from_bytes(trace.span_id.to_be_bytes()),
        if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
        true,
        state.unwrap_or_default(),
    )
}

/// It as a parent.
pub(super) fn parent(of: SpanContext) -> Context {
    Context::new().with_remote_span_context(of)
}
