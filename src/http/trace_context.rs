//! The trace that a request belongs to: W3C Trace Context, read strictly.
//!
//! Owns: that a header which breaks the rules starts a new trace instead of spoiling one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Which span of which trace.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What the vendors of tracing systems add to it.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-<32>-<16>-<2>`.
const PARENT_CHARS: usize = 55;
/// Members of a `tracestate`, as its specification has it.
const STATE_MEMBERS_MAX: usize = 32;
/// What its specification asks everybody to carry; a longer one is dropped as a whole.
const STATE_CHARS_MAX: usize = 512;
/// Names in a `tracestate`, and their values.
const STATE_PART_CHARS_MAX: usize = 256;

/// Our own span in the caller's trace, or in a new one; an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Ours, ready to be sent on.
    pub traceparent: String,
    /// The caller's, to be sent on with it.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// The 32 hexadecimal digits that name the trace.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).expect("a traceparent holds a trace id")
    }

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let parent = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(parent),
            _ => None,
        };
        let Some((trace_id, sampled)) = parent else {
            // Nobody has recorded a span of it: it is not sampled.
            let trace_id = Uuid::new_v4().simple().to_string();
            return Self { traceparent: traceparent(&trace_id, false), tracestate: None };
        };
        Self { traceparent: traceparent(trace_id, sampled), tracestate: state(headers) }
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.traceparent).expect("a traceparent is visible ASCII")
    }
}

/// With a new span id.
fn traceparent(trace_id: &str, sampled: bool) -> String {
    let span_id = Uuid::new_v4().simple().to_string();
    let span_id = span_id.get(..16).expect("a UUID has 32 digits");
    format!("00-{trace_id}-{span_id}-{:02x}", u8::from(sampled))
}

/// Trace id and whether it is sampled.
fn parent(text: &str) -> Option<(&str, bool)> {
    let rest = text.get(PARENT_CHARS..)?;
    let mut parts = text.get(..PARENT_CHARS)?.split('-');
    let [version, trace_id, span_id, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let id = |part: &str, digits| is_hex(part, digits) && part.bytes().any(|digit| digit != b'0');
    // A later version may add parts behind ours.
    let ends = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let fits = is_hex(version, 2)
        && version != "ff"
        && id(trace_id, 32)
        && id(span_id, 16)
        && is_hex(flags, 2)
        && parts.next().is_none()
        && ends;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    fits.then_some((trace_id, flags & 1 == 1))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All `tracestate` headers as one, if every member of it is as it must be.
fn state(headers: &HeaderMap) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        for member in value.to_str().ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            // Empty members are allowed, and say nothing.
            if member.is_empty() {
                continue;
            }
            let (name, _) = member
                .split_once('=')
                .filter(|(name, value)| state_name(name) && state_value(value))?;
            let known =
                |other: &&str| other.split_once('=').is_some_and(|(known, _)| known == name);
            if members.iter().any(known) || members.len() == STATE_MEMBERS_MAX {
                return None;
            }
            members.push(member);
        }
    }
    let state = members.join(",");
    (!state.is_empty() && state.len() <= STATE_CHARS_MAX).then_some(state)
}

fn state_name(name: &str) -> bool {
    let starts =
        name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    starts
        && name.len() <= STATE_PART_CHARS_MAX
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte)
        })
}

fn state_value(value: &str) -> bool {
    (1..=STATE_PART_CHARS_MAX).contains(&value.len())
        && !value.ends_with(' ')
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn context(parents: &[&str], states: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        TraceContext::of(&headers)
    }

    /// What comes before and after the trace id, and whether the trace goes on.
    #[test]
    fn a_trace_goes_on_only_from_a_parent_that_follows_the_rules() {
        let table = [
            ("00-", "-00f067aa0ba902b7-01", true),
            ("00-", "-00f067aa0ba902b7-00", true),
            ("00-", "-00f067aa0ba902b7-ff", true),
            ("cc-", "-00f067aa0ba902b7-01", true),
            ("cc-", "-00f067aa0ba902b7-01-more", true),
            ("cc-", "-00f067aa0ba902b7-01.more", false),
            ("00-", "-00f067aa0ba902b7-01-more", false),
            ("00-", "-00f067aa0ba902b7-01-", false),
            ("ff-", "-00f067aa0ba902b7-01", false),
            ("0-", "-00f067aa0ba902b7-01", false),
            ("0g-", "-00f067aa0ba902b7-01", false),
            ("00-", "-0000000000000000-01", false),
            ("00-", "-00F067AA0BA902B7-01", false),
            ("00-", "-00f067aa0ba902b-001", false),
            ("00-", "-00f067aa0ba902b7-0", false),
            ("00-", "-00f067aa0ba902b7-0x", false),
            ("00-", "-00f067aa-ba902b7-01", false),
            ("", "", false),
        ];
        for (before, after, goes_on) in table {
            let given = format!("{before}{TRACE}{after}");
            let context = context(&[&given], &[]);
            assert_eq!(context.trace_id() == TRACE, goes_on, "{given}");
            assert_eq!(parent(&context.traceparent).unwrap().0, context.trace_id());
            assert!(!context.traceparent.contains("00f067aa0ba902b7"), "the span is a new one");
            let sampled = context.traceparent.ends_with("-01");
            let asked = goes_on && !after.contains("-00f067aa0ba902b7-00");
            assert_eq!(sampled, asked, "{given}");
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_ne!(context(&[&zero], &[]).trace_id(), "0".repeat(32));
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_ne!(context(&[&good, &good], &[]).trace_id(), TRACE, "two parents are none");
        let upper = good.to_uppercase();
        assert_ne!(context(&[&upper], &[]).trace_id(), TRACE.to_uppercase());
    }

    /// `tracestate` headers, and what is sent on.
    #[test]
    fn a_state_is_sent_on_whole_or_not_at_all() {
        let many =
            |count: usize| (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        let (many_32, many_33) = (many(32), many(33));
        let long = |chars: usize| format!("a={},b={}", "v".repeat(250), "v".repeat(chars - 255));
        let (long_510, long_513) = (long(510), long(513));
        let table: [(&[&str], Option<&str>); 15] = [
            (&[], None),
            (&[""], None),
            (&["a=1"], Some("a=1")),
            (&["a=1,b@c=2"], Some("a=1,b@c=2")),
            (&["a=1", " b=2 , ,c=3"], Some("a=1,b=2,c=3")),
            (&["0a_-*/=x y"], Some("0a_-*/=x y")),
            (&["a=1,a=2"], None),
            (&["a"], None),
            (&["a="], None),
            (&["A=1"], None),
            (&["a=1=2"], None),
            (&[&many_32], Some(&many_32)),
            (&[&many_33], None),
            (&[&long_510], Some(&long_510)),
            (&[&long_513], None),
        ];
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for (states, expected) in table {
            assert_eq!(context(&[&good], states).tracestate.as_deref(), expected, "{states:?}");
        }
        assert_eq!(context(&["broken"], &["a=1"]).tracestate, None, "it belongs to its parent");
    }
}
