//! The trace that a request belongs to.
//!
//! Owns: that every request has a span of its own in its caller's trace, or in a new one, whether
//! spans are recorded or not.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use uuid::Uuid;

use crate::core::trace::{self, Trace};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
const TRACESTATE: HeaderName = HeaderName::from_static(trace::TRACESTATE);

/// Our own span in the caller's trace, or in a new one; an extension of every request.
#[derive(Debug, Clone)]
pub struct TraceContext {
    /// Ours, ready to be sent on.
    pub traceparent: String,
    /// The caller's, to be sent on with it.
    pub tracestate: Option<String>,
    /// Recorded from the request to the last that was done inside of it, once nobody holds it any
    /// more; disabled where nothing is recorded.
    pub span: Span,
}

impl TraceContext {
    /// The 32 hexadecimal digits that name the trace.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).expect("a traceparent holds a trace id")
    }

    /// The 16 that name our span.
    pub fn span_id(&self) -> &str {
        self.traceparent.get(36..52).expect("a traceparent holds a span id")
    }

    /// `begin` begins a span in the caller's trace, if it is to be recorded.
    pub(super) fn of(
        headers: &HeaderMap,
        begin: impl FnOnce(Option<&Trace>) -> Option<(Span, Trace)>,
    ) -> Self {
        let given = given(headers);
        let (span, ours) = begin(given.as_ref()).unwrap_or_else(|| (Span::none(), unseen(given)));
        Self { traceparent: ours.traceparent(), tracestate: ours.state, span }
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.traceparent).expect("a traceparent is visible ASCII")
    }
}

/// A span that nobody records, in the caller's trace or in one that is not sampled.
fn unseen(given: Option<Trace>) -> Trace {
    // A version 4 UUID is never 0, nor is its second half.
    let (_, span_id) = Uuid::new_v4().as_u64_pair();
    let new = || Trace { trace_id: Uuid::new_v4().as_u128(), span_id, sampled: false, state: None };
    given.map_or_else(new, |given| Trace { span_id, ..given })
}

fn given(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let states: Vec<&str> = states.collect::<Result<_, _>>().unwrap_or_default();
    Trace::read(parent.to_str().ok()?, states)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(parents: &[&str], states: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        TraceContext::of(&headers, |_| None)
    }

    #[test]
    fn a_request_has_a_span_of_its_own_in_its_callers_trace_or_in_a_new_one() {
        let unsampled = GOOD.replace("-01", "-00");
        let table: [(&[&str], bool, bool); 5] = [
            (&[GOOD], true, true),
            (&[&unsampled], true, false),
            (&[], false, false),
            (&["broken"], false, false),
            (&[GOOD, GOOD], false, false),
        ];
        for (parents, goes_on, sampled) in table {
            let context = context(parents, &[]);
            assert_eq!(context.trace_id() == TRACE, goes_on, "{parents:?}");
            assert_eq!(context.traceparent.ends_with("-01"), sampled, "{parents:?}");
            let ours = Trace::read(&context.traceparent, []).unwrap();
            assert_eq!(format!("{:032x}", ours.trace_id), context.trace_id());
            assert_eq!(format!("{:016x}", ours.span_id), context.span_id());
            assert_ne!(context.span_id(), "00f067aa0ba902b7", "the span is a new one");
        }
    }

    #[test]
    fn a_state_belongs_to_its_parent() {
        let state = |parent: &str, states: &[&str]| context(&[parent], states).tracestate;
        assert_eq!(state(GOOD, &["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(GOOD, &["a=1", "ä=2"]), None);
        assert_eq!(state("broken", &["a=1"]), None);
    }
}
