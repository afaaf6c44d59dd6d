//! JSON values as their exact text.
//!
//! Owns: what kind a value is, its decoded text, and whether a whole document can be stored.
//! Never: turns a number into a binary float, or builds a tree.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::column::Mismatch;
use super::number;

/// The deepest document: far beyond what people write, far below what upsets a recursive reader
/// (`serde_json` stops at 128).
const NESTING_MAX: usize = 100;

/// Shorter numbers without an exponent fit PostgreSQL's numeric for sure.
const PLAIN_NUMBER_BYTES_MAX: usize = 1_000;

/// The kinds of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// The kind of a valid JSON value: its first byte tells.
    pub(super) fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(b't' | b'f') => Self::Bool,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            _ => Self::Null,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// The mismatch of a value of the wrong kind.
pub(super) fn expects(what: &str, json: &str) -> Mismatch {
    Mismatch::new(format!("expects {what}, got {}", Kind::of(json).name()))
}

/// The decoded text of a JSON string.
pub(super) fn string(json: &str) -> Result<Cow<'_, str>, Mismatch> {
    if Kind::of(json) != Kind::String {
        return Err(expects("a JSON string", json));
    }
    let plain = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if let Some(plain) = plain.filter(|plain| !plain.contains('\\')) {
        return Ok(Cow::Borrowed(plain));
    }
    match serde_json::from_str(json) {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(_) => Err(half_a_pair()),
    }
}

/// Checks that PostgreSQL can keep a document: no NUL, no half of a surrogate pair, not too deep,
/// and, where it is taken apart (`jsonb`), no number out of numeric's range and no name twice in an
/// object: of such members PostgreSQL would keep the last, and say nothing.
pub(super) fn check_document(json: &str, jsonb: bool) -> Result<(), Mismatch> {
    let mut rest = json;
    // Around here: the names so far in an object, nothing in an array.
    let mut around: Vec<Option<BTreeSet<Cow<'_, str>>>> = Vec::new();
    let mut name_is_next = false;
    while let Some(&byte) = rest.as_bytes().first() {
        match byte {
            b'"' => {
                let tail = after_string(behind(rest, 1))?;
                let text = rest.get(..rest.len() - tail.len()).unwrap_or_default();
                let names = around.last_mut().and_then(Option::as_mut).filter(|_| name_is_next);
                if let Some(names) = names.filter(|_| jsonb)
                    && !names.insert(string(text)?)
                {
                    return Err(Mismatch::new("expects JSON without a name twice in an object"));
                }
                name_is_next = false;
                rest = tail;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                let end = rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
                if jsonb {
                    check_number(rest.get(..end).unwrap_or_default())?;
                }
                rest = behind(rest, end);
                continue;
            }
            b'[' | b'{' => {
                name_is_next = byte == b'{';
                around.push(name_is_next.then(BTreeSet::new));
            }
            b']' | b'}' => drop(around.pop()),
            b',' => name_is_next = matches!(around.last(), Some(Some(_))),
            _ => {}
        }
        if around.len() > NESTING_MAX {
            return Err(Mismatch::new(format!("expects at most {NESTING_MAX} levels of nesting")));
        }
        rest = behind(rest, 1);
    }
    Ok(())
}

fn check_number(text: &str) -> Result<(), Mismatch> {
    if text.len() < PLAIN_NUMBER_BYTES_MAX && !text.contains(['e', 'E']) {
        return Ok(());
    }
    number::check_numeric(text, None).map(drop)
}

/// What follows the string whose opening quote was just passed.
fn after_string(mut rest: &str) -> Result<&str, Mismatch> {
    while let Some(at) = rest.find(['"', '\\']) {
        let tail = behind(rest, at + 1);
        if rest.as_bytes().get(at) == Some(&b'"') {
            return Ok(tail);
        }
        rest = match tail.strip_prefix('u') {
            Some(hex) => after_unicode(hex)?,
            None => behind(tail, 1),
        };
    }
    Ok("")
}

/// What follows an escape, of which `\u` was passed: one code unit or a pair.
fn after_unicode(hex: &str) -> Result<&str, Mismatch> {
    let rest = behind(hex, 4);
    match code_unit(hex) {
        Some(0) => Err(Mismatch::new("expects JSON without the character U+0000")),
        Some(0xD800..=0xDBFF) => rest
            .strip_prefix("\\u")
            .filter(|hex| matches!(code_unit(hex), Some(0xDC00..=0xDFFF)))
            .map(|hex| behind(hex, 4))
            .ok_or_else(half_a_pair),
        Some(0xDC00..=0xDFFF) => Err(half_a_pair()),
        Some(_) | None => Ok(rest),
    }
}

fn code_unit(hex: &str) -> Option<u16> {
    u16::from_str_radix(hex.get(..4)?, 16).ok()
}

fn half_a_pair() -> Mismatch {
    Mismatch::new("expects whole characters, got half of a surrogate pair")
}

fn behind(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnType::{Json, Jsonb};

    #[test]
    fn a_document_passes_as_it_is_written() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let wide = format!("[{}[]]", "[[]],".repeat(200));
        let documents = [
            r#"{ "b" : [1.50, -0, 1e400, null, true], "a":"\\u0000 \" ] \ud83d\uDE00 \u00e9" }"#,
            r#""\\\\u0000""#,
            "1e131071",
            "true",
            "null",
            &deep,
            &wide,
        ];
        for json in documents {
            assert_eq!(Json.check(json).as_deref(), Ok(json));
            assert_eq!(Jsonb.check(json).as_deref(), Ok(json));
        }
    }

    #[test]
    fn what_postgresql_cannot_keep_is_refused_wherever_it_stands() {
        let deep = format!("{}{}", "[{\"a\":".repeat(51), "1");
        let documents = [
            r#""\u0000""#,
            r#"{"a": ["x\\\u0000"]}"#,
            r#"{"\u0000": 1}"#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\n""#,
            r#""\ude00\ud83d""#,
            r#"{"\udfff": 1}"#,
            &deep,
        ];
        for json in documents {
            assert!(Json.check(json).is_err(), "{json}");
            assert!(Jsonb.check(json).is_err(), "{json}");
        }
    }

    #[test]
    fn jsonb_refuses_a_name_twice_in_an_object_and_json_keeps_it() {
        let table = [
            (r#"{"a":1,"b":{"a":1},"c":[{"a":"a"},{"a":1}]}"#, true),
            (r#"{"a":["a","a"],"b":"a"}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":{},"\u0061":1}"#, false),
            (r#"[0,{"x":{"b":[],"c":{},"b":1}}]"#, false),
            (r#"{"":1, "" : 2}"#, false),
        ];
        for (json, fine) in table {
            assert_eq!(Jsonb.check(json).is_ok(), fine, "{json}");
            assert!(Json.check(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn jsonb_refuses_a_number_beyond_numeric_and_json_keeps_it() {
        let json = r#"{"a": [1e131072 ], "b": "1e131072"}"#;
        assert!(Json.check(json).is_ok());
        assert!(Jsonb.check(json).is_err());
        assert!(Jsonb.check(r#"["1e131072"]"#).is_ok());
        assert!(Jsonb.check("1e-16384").is_err());
        assert!(Jsonb.check(&"9".repeat(131_073)).is_err());
    }
}
