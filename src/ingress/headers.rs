//! What the headers of a request say.
//!
//! Owns: Idempotency-Key (IETF draft; a quoted structured-field string, or bare), If-Match and
//! If-None-Match as RFC 9110 has them on writes, Prefer (RFC 7240).

use std::time::Duration;

use axum::http::header::{CONTENT_ENCODING, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::core::outcome::{Reason, Rejection};
use crate::core::write::WRITE_ID_BYTES_MAX;

use super::code::Own;
use super::problem::Problem;

/// The write id.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// "Newer wins".
pub const OCCURRED_AT: HeaderName = HeaderName::from_static("occurred-at");
/// How the caller would like to be answered.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The write id of a request.
pub fn write_id(headers: &HeaderMap) -> Result<String, Problem> {
    let missing =
        |detail: &str| Err(Problem::rejected(&Rejection::new(Reason::MissingWriteId, detail)));
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return missing("set Idempotency-Key to a key of your own, 1 to 200 bytes, in quotes");
    };
    if values.next().is_some() {
        return missing("Idempotency-Key is there twice");
    }
    // A tab is no printable character, though HTTP lets it pass.
    let text = value.to_str().ok().map(str::trim).filter(|text| !text.contains('\t'));
    let Some(text) = text else {
        return missing("Idempotency-Key holds characters that are not printable ASCII");
    };
    let Some(id) = unquoted(text) else {
        return missing(
            "Idempotency-Key is no structured-field string: close the quotes, and put \
                        a backslash before a quote or a backslash inside them",
        );
    };
    match id.len() {
        0 => missing("Idempotency-Key is empty"),
        1..=WRITE_ID_BYTES_MAX => Ok(id),
        _ => missing("Idempotency-Key is longer than 200 bytes"),
    }
}

/// RFC 8941 string, or the text itself where it is not quoted.
fn unquoted(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let inner = inner.strip_suffix('"')?;
    let mut unquoted = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                escaped @ ('"' | '\\') => unquoted.push(escaped),
                _ => return None,
            },
            '"' => return None,
            plain => unquoted.push(plain),
        }
    }
    Some(unquoted)
}

/// A precondition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Any,
    /// `If-None-Match: *`: the row must be absent.
    Absent,
    /// `If-Match: *`: the row must be present.
    Present,
    /// `If-Match: "7"`: the row must be at this version.
    Version(i64),
    /// `If-Match` with an ETag that no row ever had.
    NoVersion,
}

impl Condition {
    /// Whether it cannot hold, whatever the row is.
    pub fn matches_nothing(&self) -> bool {
        *self == Self::NoVersion
    }

    fn version(tag: &str) -> Self {
        let number = tag.parse::<i64>().ok();
        let ours = number.filter(|number| *number > 0 && number.to_string() == tag);
        ours.map_or(Self::NoVersion, Self::Version)
    }
}

/// The precondition of a write; `Err` says what is wrong with it.
pub fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let bad = |detail: &str| Err(Problem::new(Own::PreconditionInvalid, detail));
    match (single(headers, &IF_MATCH)?, single(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Condition::Any),
        (Some(_), Some(_)) => bad("If-Match and If-None-Match exclude each other"),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => bad("a write knows If-None-Match: * only (the row must be absent)"),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) if tag.starts_with("W/") => {
            bad("If-Match compares strongly, and this tag is weak; send the ETag as it was given")
        }
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            match version {
                Some(version) if !version.contains(['"', ',']) => Ok(Condition::version(version)),
                _ => bad("If-Match takes one ETag in quotes, for example \"7\", or *"),
            }
        }
    }
}

/// `Occurred-At` as it stands there; the worker's own code reads it.
pub fn occurred_at(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    single(headers, &OCCURRED_AT)
}

/// Of a guard that is there twice nobody could say which one counts.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let bad = |what| Err(Problem::new(Own::PreconditionInvalid, format!("{name} {what}")));
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => bad("is there twice"),
        (Some(Ok(text)), None) => Ok(Some(text.trim())),
        (Some(Err(_)), None) => bad("is not printable ASCII"),
    }
}

/// Refuses a body that would have to be unpacked first.
pub fn plain_body(headers: &HeaderMap) -> Result<(), Problem> {
    let plain =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let detail = "send the body as it is: no Content-Encoding is taken";
    Err(Problem::rejected(&Rejection::new(Reason::UnsupportedMediaType, detail)))
}

/// Refuses what would guard or name one write on a request that holds many.
pub fn of_many(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        let detail = "each item of a bulk request has its own `id`: leave out Idempotency-Key";
        return Err(Problem::rejected(&Rejection::new(Reason::MissingWriteId, detail)));
    }
    let guards =
        [(IF_MATCH, "if_version"), (IF_NONE_MATCH, "if_version"), (OCCURRED_AT, "occurred_at")];
    match guards.into_iter().find(|(name, _)| headers.contains_key(name)) {
        None => Ok(()),
        Some((name, member)) => {
            let detail = format!("in bulk an item's own `{member}` guards it, and not {name}");
            Err(Problem::new(Own::PreconditionInvalid, detail))
        }
    }
}

/// What the caller prefers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `wait=N`: for the outcome.
    pub wait: Option<Duration>,
    /// `respond-async`: do not wait.
    pub respond_async: bool,
    /// `return=minimal` or `return=representation`.
    pub returns: Option<Return>,
}

/// What a success says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Nothing but its headers.
    Minimal,
    /// The row.
    Representation,
}

/// Reads `Prefer`. What is not understood is ignored, as RFC 7240 asks; of two that contradict
/// each other the first counts.
pub fn preferences(headers: &HeaderMap) -> Preferences {
    let mut preferences = Preferences::default();
    let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    for preference in texts.flat_map(|text| outside_quotes(text, ',')) {
        let token = outside_quotes(preference, ';').next().unwrap_or_default();
        let (name, value) = token.split_once('=').unwrap_or((token, ""));
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value);
        match name.trim().to_ascii_lowercase().as_str() {
            "wait" if preferences.wait.is_none() => preferences.wait = seconds(value),
            "respond-async" => preferences.respond_async = true,
            "return" if preferences.returns.is_none() => {
                preferences.returns = match value {
                    "minimal" => Some(Return::Minimal),
                    "representation" => Some(Return::Representation),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    preferences
}

/// Cuts at each `separator` that stands in no quoted string.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter| {
        let plain = !std::mem::take(&mut escaped);
        match letter {
            '\\' if quoted && plain => escaped = true,
            '"' if plain => quoted = !quoted,
            _ => {}
        }
        !quoted && letter == separator
    })
}

/// A number of seconds; one that no counter holds is as good as the longest.
fn seconds(digits: &str) -> Option<Duration> {
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_idempotency_key_is_quoted_or_bare() {
        let long = "k".repeat(200);
        let longer = "k".repeat(201);
        let table = [
            ("\"abc\"", Some("abc")),
            ("abc", Some("abc")),
            (" \"a b\" ", Some("a b")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (&long, Some(long.as_str())),
            (&longer, None),
            ("", None),
            ("\"\"", None),
            ("\"abc", None),
            ("a\"b", None),
            (r#""a\b""#, None),
            (r#""a"b""#, None),
            ("a\tb", None),
            ("\"a\tb\"", None),
        ];
        for (text, id) in table {
            let found = write_id(&headers(&[(&IDEMPOTENCY_KEY, text)])).ok();
            assert_eq!(found.as_deref(), id, "{text}");
        }
        assert!(write_id(&headers(&[])).is_err());
        let twice = headers(&[(&IDEMPOTENCY_KEY, "a"), (&IDEMPOTENCY_KEY, "a")]);
        assert!(write_id(&twice).is_err());
    }

    #[test]
    fn preconditions_are_strong_and_single() {
        let table = [
            (&IF_MATCH, "*", Some(Condition::Present)),
            (&IF_MATCH, "\"7\"", Some(Condition::Version(7))),
            (&IF_MATCH, "\"07\"", Some(Condition::NoVersion)),
            (&IF_MATCH, "\"abc\"", Some(Condition::NoVersion)),
            (&IF_MATCH, "\"0\"", Some(Condition::NoVersion)),
            (&IF_NONE_MATCH, "*", Some(Condition::Absent)),
            (&IF_MATCH, "W/\"7\"", None),
            (&IF_MATCH, "7", None),
            (&IF_MATCH, "\"7\", \"8\"", None),
            (&IF_NONE_MATCH, "\"7\"", None),
        ];
        for (name, text, expected) in table {
            assert_eq!(condition(&headers(&[(name, text)])).ok(), expected, "{name}: {text}");
        }
        assert_eq!(condition(&headers(&[])).unwrap(), Condition::Any);
        assert!(condition(&headers(&[(&IF_MATCH, "*"), (&IF_NONE_MATCH, "*")])).is_err());
        assert!(condition(&headers(&[(&IF_MATCH, "*"), (&IF_MATCH, "*")])).is_err());
    }

    #[test]
    fn preferences_that_are_not_understood_are_ignored() {
        let wait = |seconds| Some(Duration::from_secs(seconds));
        let none = Preferences::default;
        let table = [
            ("wait=3", Preferences { wait: wait(3), ..Preferences::default() }),
            ("Wait = 3 ; x=1, foo", Preferences { wait: wait(3), ..Preferences::default() }),
            ("wait=soon", Preferences::default()),
            ("wait=1, wait=9", Preferences { wait: wait(1), ..Preferences::default() }),
            (
                "respond-async, return=minimal",
                Preferences { respond_async: true, returns: Some(Return::Minimal), wait: None },
            ),
            (
                "return=\"representation\"",
                Preferences { returns: Some(Return::Representation), ..Preferences::default() },
            ),
            ("return=everything", Preferences::default()),
            ("wait=-1", Preferences::default()),
            ("wait=99999999999999999999", Preferences { wait: wait(u64::MAX), ..none() }),
            (
                r#"foo="a, wait=3; \", respond-async", wait=4"#,
                Preferences { wait: wait(4), ..none() },
            ),
            (r#"wait="5";x="1,return=minimal""#, Preferences { wait: wait(5), ..none() }),
        ];
        for (text, expected) in table {
            assert_eq!(preferences(&headers(&[(&PREFER, text)])), expected, "{text}");
        }
    }
}
