//! What of a dead letter can be edited, and where two of its revisions differ.

use serde::Serialize;
use serde_json::Value;

use crate::core::body::parse_members;
use crate::core::difference::{Difference, differences};

/// Where two revisions differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Difference>,
    /// By member, where both bodies are JSON objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<Difference>,
    /// The lengths of both bodies, where they differ in no member, or are no JSON objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<[usize; 2]>,
}

impl Changes {
    /// From the old properties and body to the new ones.
    pub fn between(old: (&Value, &[u8]), new: (&Value, &[u8])) -> Self {
        let body = match (object(old.1), object(new.1)) {
            (Some(old), Some(new)) => differences(&old, &new),
            _ => Vec::new(),
        };
        let unnamed = body.is_empty() && old.1 != new.1;
        Self {
            properties: differences(old.0, new.0),
            body,
            body_bytes: unnamed.then_some([old.1.len(), new.1.len()]),
        }
    }

    /// Whether they are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A line for each difference, for people.
    pub fn lines(&self) -> Vec<String> {
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        let line = |place: &str, difference: &Difference| {
            let Difference { pointer, old, new } = difference;
            format!("{place} {pointer}: {} -> {}", shown(old), shown(new))
        };
        let mut lines: Vec<String> =
            self.properties.iter().map(|d| line("properties", d)).collect();
        lines.extend(self.body.iter().map(|d| line("body", d)));
        if let Some([old, new]) = self.body_bytes {
            lines.push(format!("body: {old} bytes -> {new} bytes"));
        }
        lines
    }
}

/// A body that a write may have; not one that names a member twice.
fn object(body: &[u8]) -> Option<Value> {
    parse_members(body).ok()?;
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revisions_differ_by_pointer_and_where_there_is_none_by_length() {
        let properties = json!({"type": "item.create"});
        let table: [(&[u8], &[u8], &[&str]); 5] = [
            (b"{\"a\":1}", b"{\"a\":1}", &[]),
            (b"{\"a\":1}", b"{\"a\":\"x\"}", &["body /a: 1 -> \"x\""]),
            (b"{\"a\":1,\"a\":2}", b"{\"a\":2}", &["body: 13 bytes -> 7 bytes"]),
            (b"{\"a\":1}", b"{\"a\": 1}", &["body: 7 bytes -> 8 bytes"]),
            (b"\xff", b"{}", &["body: 1 bytes -> 2 bytes"]),
        ];
        for (old, new, expected) in table {
            let changes = Changes::between((&properties, old), (&properties, new));
            assert_eq!(changes.lines(), expected);
            assert_eq!(changes.is_empty(), expected.is_empty());
        }
        let other = json!({"type": "item.upsert"});
        let changes = Changes::between((&properties, b"{}"), (&other, b"{}"));
        assert_eq!(changes.lines(), [r#"properties /type: "item.create" -> "item.upsert""#]);
    }
}
