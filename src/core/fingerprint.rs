//! The fingerprint of a write: SHA-256 of a canonical form of its content.
//!
//! Owns: what "the same content" means. Members are sorted by name, numbers compared by value
//! (`1`, `1.0` and `1e0` are one), strings by their characters. Key columns do not count: the
//! routing key has said them.
//! Never: looks at column types, which may change between a write and its repeat.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// SHA-256 of a write's canonical form.
pub type Fingerprint = [u8; 32];

/// The ledger's name for a write id within an entity: the first 16 bytes of a SHA-256.
pub fn ledger_id(entity: &str, write_id: &str) -> Uuid {
    let digest =
        Sha256::new().chain_update(entity).chain_update([0]).chain_update(write_id).finalize();
    let mut head = [0_u8; 16];
    for (to, from) in head.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    Uuid::from_bytes(head)
}

/// Builds a fingerprint part by part.
pub struct Canonical(Sha256);

impl Canonical {
    /// Starts with what says which row and what to do with it.
    pub fn new(entity: &str, key: &str, change: &str, guards: [Option<&str>; 2]) -> Self {
        let mut canonical = Self(Sha256::new());
        for part in [entity, key, change] {
            canonical.text(part);
        }
        for guard in guards {
            canonical.text(guard.unwrap_or("\0none"));
        }
        canonical
    }

    /// A body that is no JSON object: its bytes.
    pub fn raw(mut self, body: &[u8]) -> Fingerprint {
        self.0.update(b"raw");
        self.0.update(body);
        self.0.finalize().into()
    }

    /// A body that is one: its members, in any order.
    pub fn members(mut self, mut members: Vec<(&str, &RawValue)>) -> Fingerprint {
        members.sort_unstable_by_key(|(name, _)| *name);
        let mut text = String::new();
        for (name, value) in members {
            self.text(name);
            text.clear();
            write_raw(&mut text, value.get());
            self.text(&text);
        }
        self.0.finalize().into()
    }

    fn text(&mut self, text: &str) {
        self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(text);
    }
}

fn write_raw(out: &mut String, raw: &str) {
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => write_string(out, &text),
            Err(_) => out.push_str(raw),
        },
        Some(b'{' | b'[') => match serde_json::from_str::<Value>(raw) {
            Ok(value) => write_value(out, &value),
            Err(_) => out.push_str(raw),
        },
        Some(b'-' | b'0'..=b'9') => write_number(out, raw),
        _ => out.push_str(raw),
    }
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, &number.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_value(out, item);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, member) in sorted {
                write_string(out, name);
                write_value(out, member);
                out.push(',');
            }
            out.push('}');
        }
    }
}

/// The length in front makes text that looks like other text differ from it.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    out.push_str(&text.len().to_string());
    out.push(':');
    out.push_str(text);
}

/// Sign, digits without zeros at either end, and the power of ten: one form a value.
fn write_number(out: &mut String, raw: &str) {
    let (negative, unsigned) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
    let (mantissa, exponent) =
        unsigned.split_once(['e', 'E']).map_or((unsigned, "0"), |(m, e)| (m, e));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>() else {
        out.push_str(raw);
        return;
    };
    let digits: String = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let trimmed = significant.trim_end_matches('0');
    if trimmed.is_empty() {
        out.push('0');
        return;
    }
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let power = exponent
        .saturating_sub(length(fraction))
        .saturating_add(length(significant) - length(trimmed));
    if negative {
        out.push('-');
    }
    out.push_str(trimmed);
    out.push('e');
    out.push_str(&power.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> String {
        let mut out = String::new();
        write_raw(&mut out, raw);
        out
    }

    #[test]
    fn equal_values_have_one_canonical_form_and_others_another() {
        let same = [
            ("1", "1.0"),
            ("1", "1e0"),
            ("100", "1E+2"),
            ("-0", "0.00"),
            ("0.05", "5e-2"),
            (r#""a""#, r#""\u0061""#),
            (r#"{"a":1,"b":[2.0]}"#, r#"{"b":[2],"a":1.0}"#),
        ];
        for (one, other) in same {
            assert_eq!(canonical(one), canonical(other), "{one} {other}");
        }
        let different = [
            ("1", "-1"),
            ("1", "10"),
            ("1", r#""1""#),
            ("9007199254740993", "9007199254740992"),
            (r#""null""#, "null"),
            (r#"["a","b"]"#, r#"["a,\"1:b"]"#),
        ];
        for (one, other) in different {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
    }
}
