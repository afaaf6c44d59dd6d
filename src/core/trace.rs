//! The trace that a request or a message belongs to: W3C Trace Context, read strictly.
//!
//! Owns: that a header which breaks the rules starts a new trace instead of spoiling one.

use super::message::Properties;

/// Which span of which trace.
pub const TRACEPARENT: &str = "traceparent";
/// What the vendors of tracing systems add to it.
pub const TRACESTATE: &str = "tracestate";

/// `00-<32>-<16>-<2>`.
const PARENT_CHARS: usize = 55;
/// Members of a `tracestate`, as its specification has it.
const STATE_MEMBERS_MAX: usize = 32;
/// What its specification asks everybody to carry; a longer one is dropped as a whole.
const STATE_CHARS_MAX: usize = 512;
/// Names in a `tracestate`, and their values.
const STATE_PART_CHARS_MAX: usize = 256;

/// A span in a trace; neither number is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    pub span_id: u64,
    /// Somebody records it.
    pub sampled: bool,
    /// A `tracestate` that follows the rules.
    pub state: Option<String>,
}

impl Trace {
    /// Reads a `traceparent`, and all `tracestate` headers that came with it.
    pub fn read<'a>(parent: &str, states: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let (trace_id, span_id, sampled) = parse(parent)?;
        Some(Self { trace_id, span_id, sampled, state: state(states) })
    }

    /// The one that travels with a message.
    pub fn of(properties: &Properties) -> Option<Self> {
        let header = |name| properties.headers.get(name).and_then(|value| value.as_str());
        Self::read(header(TRACEPARENT)?, header(TRACESTATE))
    }

    /// Lets it travel with a message, instead of the one that did.
    pub fn put_into(self, properties: &mut Properties) {
        let headers = &mut properties.headers;
        headers.insert(TRACEPARENT.to_owned(), self.traceparent().into());
        match self.state {
            Some(state) => headers.insert(TRACESTATE.to_owned(), state.into()),
            None => headers.remove(TRACESTATE),
        };
    }

    /// As a header's value.
    pub fn traceparent(&self) -> String {
        let Self { trace_id, span_id, sampled, .. } = self;
        format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled))
    }
}

/// Trace, span, and whether it is sampled.
fn parse(text: &str) -> Option<(u128, u64, bool)> {
    let rest = text.get(PARENT_CHARS..)?;
    let mut parts = text.get(..PARENT_CHARS)?.split('-');
    let [version, trace_id, span_id, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    // A later version may add parts behind ours.
    let ends = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let fits = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace_id, 32)
        && is_hex(span_id, 16)
        && is_hex(flags, 2)
        && parts.next().is_none()
        && ends;
    if !fits {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
    let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace_id, span_id, flags & 1 == 1))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All `tracestate` headers as one, if every member of it is as it must be.
fn state<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for member in headers.into_iter().flat_map(|header| header.split(',')) {
        let member = member.trim_matches([' ', '\t']);
        // Empty members are allowed, and say nothing.
        if member.is_empty() {
            continue;
        }
        let (name, _) = member
            .split_once('=')
            .filter(|(name, value)| state_name(name) && state_value(value))?;
        let known = |other: &&str| other.split_once('=').is_some_and(|(known, _)| known == name);
        if members.iter().any(known) || members.len() == STATE_MEMBERS_MAX {
            return None;
        }
        members.push(member);
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
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What comes before and after the trace id; whether it is a parent, and one that is sampled.
    #[test]
    fn a_parent_is_one_that_follows_the_rules() {
        let table = [
            ("00-", "-00f067aa0ba902b7-01", Some(true)),
            ("00-", "-00f067aa0ba902b7-00", Some(false)),
            ("00-", "-00f067aa0ba902b7-ff", Some(true)),
            ("cc-", "-00f067aa0ba902b7-01", Some(true)),
            ("cc-", "-00f067aa0ba902b7-01-more", Some(true)),
            ("cc-", "-00f067aa0ba902b7-01.more", None),
            ("00-", "-00f067aa0ba902b7-01-more", None),
            ("00-", "-00f067aa0ba902b7-01-", None),
            ("ff-", "-00f067aa0ba902b7-01", None),
            ("0-", "-00f067aa0ba902b7-01", None),
            ("0g-", "-00f067aa0ba902b7-01", None),
            ("00-", "-0000000000000000-01", None),
            ("00-", "-00F067AA0BA902B7-01", None),
            ("00-", "-00f067aa0ba902b-001", None),
            ("00-", "-00f067aa0ba902b7-0", None),
            ("00-", "-00f067aa0ba902b7-0x", None),
            ("00-", "-00f067aa-ba902b7-01", None),
            ("", "", None),
        ];
        for (before, after, expected) in table {
            let given = format!("{before}{TRACE}{after}");
            let trace = Trace::read(&given, []);
            assert_eq!(trace.as_ref().map(|trace| trace.sampled), expected, "{given}");
            if let Some(trace) = trace {
                assert_eq!(format!("{:x}", trace.trace_id), TRACE);
                let flags = if trace.sampled { "01" } else { "00" };
                assert_eq!(trace.traceparent(), format!("00-{TRACE}-00f067aa0ba902b7-{flags}"));
            }
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_eq!(Trace::read(&zero, []), None);
        assert_eq!(Trace::read(&GOOD.to_uppercase(), []), None);
        assert_eq!(Trace::read(&"ä".repeat(40), []), None);
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
        for (states, expected) in table {
            let trace = Trace::read(GOOD, states.iter().copied()).unwrap();
            assert_eq!(trace.state.as_deref(), expected, "{states:?}");
        }
    }

    #[test]
    fn a_message_carries_the_trace_that_was_put_into_it_and_no_other() {
        let mut properties = Properties::default();
        assert_eq!(Trace::of(&properties), None);
        let first = Trace::read(GOOD, ["a=1"]).unwrap();
        first.clone().put_into(&mut properties);
        assert_eq!(Trace::of(&properties), Some(first.clone()));
        let second = Trace { span_id: 1, state: None, ..first };
        second.clone().put_into(&mut properties);
        assert_eq!(Trace::of(&properties), Some(second));
        properties.headers.insert(TRACEPARENT.to_owned(), 7.into());
        assert_eq!(Trace::of(&properties), None, "a number is no parent");
    }
}
