//! What the broker hands over, in our words.
//!
//! Owns: the parts of a message and the form in which a dead letter keeps them.
//! Never: judges them (that is `write`), or fails: every delivery can be described.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Begins what stands in place of a text of the sender that is no text; its bytes follow, in a
/// readable form. The broker's side writes it, so that such a message can be rejected.
pub const NOT_TEXT: char = '\u{1a}';

/// The `type` of a control message: "look at the key that this is routed by". It has no dot, so it
/// can never be a write's.
pub const LOOK: &str = "look";

/// The `type` of a marker: "what is before me in this queue is applied from it". It counts only if
/// the database knows its `message_id`, so anybody may send one.
pub const MARKER: &str = "marker";

/// One delivered message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The business key, as the sender wrote it.
    pub routing_key: String,
    /// Properties and headers.
    pub properties: Properties,
    /// The body, whatever it is.
    pub body: Vec<u8>,
}

/// The properties of a message that AMQP 0-9-1 knows, and its headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Value>,
}

impl Message {
    /// Whether it is a control message; anybody may send one.
    pub fn is_look(&self) -> bool {
        self.properties.kind.as_deref() == Some(LOOK)
    }

    /// Its number, if it is a marker. One that no roll has made has a number that none ever has.
    pub fn marker(&self) -> Option<Uuid> {
        if self.properties.kind.as_deref() != Some(MARKER) {
            return None;
        }
        let number = self.properties.message_id.as_deref().and_then(|id| Uuid::parse_str(id).ok());
        Some(number.unwrap_or_default())
    }
}

impl Message {
    /// SHA-256 of all that the sender made of it: what the broker adds at a redelivery
    /// (`x-delivery-count`) or when it gives up (`x-death`) is left out.
    pub fn digest(&self) -> [u8; 32] {
        let mut properties = self.properties.clone();
        properties.headers.retain(|name, _| !name.starts_with("x-"));
        let properties = properties.stored().to_string();
        let mut digest = Sha256::new();
        for part in [self.routing_key.as_bytes(), properties.as_bytes(), &self.body] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl Properties {
    /// A header that is text or a number, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.headers.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            other @ (Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                Some(other.to_string())
            }
        }
    }

    /// The JSON text that a dead letter keeps. `jsonb` cannot hold NUL, so every backslash and
    /// every NUL inside a string comes out escaped once more: `\\` and `\x00`.
    pub fn stored(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or(Value::Null);
        each_string(&mut value, escape);
        value
    }

    /// Reads back what [`Self::stored`] made; an error where it was made by something else.
    pub fn restored(mut stored: Value) -> Result<Self, serde_json::Error> {
        each_string(&mut stored, unescape);
        serde_json::from_value(stored)
    }
}

/// Puts `change` through every text in `value`, the names of members too.
fn each_string(value: &mut Value, change: fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_string(item, change)),
        Value::Object(members) => {
            let changed = std::mem::take(members).into_iter().map(|(name, mut member)| {
                each_string(&mut member, change);
                (change(&name), member)
            });
            *members = changed.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Text that any `text` column takes and from which the original can be read back.
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\0', "\\x00")
}

/// The text that [`escape`] was given. What it never writes stays as it is.
pub fn unescape(escaped: &str) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, behind)) = rest.split_once('\\') {
        text.push_str(before);
        let (character, behind) = match (behind.strip_prefix('\\'), behind.strip_prefix("x00")) {
            (Some(behind), _) => ('\\', behind),
            (None, Some(behind)) => ('\0', behind),
            (None, None) => ('\\', behind),
        };
        text.push(character);
        rest = behind;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_of_a_dead_letter_can_be_stored_and_read_back() {
        let mut properties = Properties::default();
        properties.headers.insert("a\0".into(), Value::String("b\0\\c".into()));
        properties.message_id = Some("\0".into());
        let stored = properties.stored();
        assert_eq!(stored["headers"]["a\\x00"], Value::String("b\\x00\\\\c".into()));
        assert_eq!(stored["message_id"], Value::String("\\x00".into()));
        assert!(!stored.to_string().contains("\\u0000"));
        assert_eq!(Properties::restored(stored).unwrap(), properties);
    }

    #[test]
    fn an_escaped_text_is_read_back_whatever_it_held() {
        for text in
            ["", "a", "\0", "\\", "\\\0", "\0\\x00", "x00", "\\x00", "\\\\x00\0\0", "é\\é\u{1a}"]
        {
            assert_eq!(unescape(&escape(text)), text, "{text:?}");
        }
        assert_eq!(unescape(r"\n\"), r"\n\", "escape wrote neither");
    }

    #[test]
    fn what_a_dead_letter_keeps_of_properties_is_read_back_and_nothing_else_is() {
        let stored = serde_json::json!({
            "message_id": "w", "type": "a.b", "content_type": r"x\\y", "content_encoding": "e",
            "correlation_id": "c", "reply_to": "r", "expiration": "1", "user_id": "u",
            "app_id": "a", "delivery_mode": 2, "priority": 9, "timestamp": u64::MAX,
            "headers": {"n": 1.50, "deep": [{r"k\\": [r"\x00", null, true]}]},
        });
        assert_eq!(Properties::restored(stored.clone()).unwrap().stored(), stored);
        let none = Properties::restored(serde_json::json!({})).unwrap();
        assert_eq!(none, Properties::default());
        for other in [r#"{"headers":[]}"#, r#"{"priority":256}"#, r#"{"type":1}"#] {
            assert!(Properties::restored(serde_json::from_str(other).unwrap()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_message_that_comes_again_is_the_same_and_any_other_is_not() {
        let message = |key: &str, headers: &[(&str, &str)], body: &str| {
            let headers = headers.iter().map(|(name, text)| ((*name).into(), (*text).into()));
            let properties = Properties { headers: headers.collect(), ..Properties::default() };
            Message { routing_key: key.into(), properties, body: body.into() }.digest()
        };
        let first = message("k", &[("a", "1")], "{}");
        assert_eq!(first, message("k", &[("a", "1"), ("x-delivery-count", "3")], "{}"));
        for other in [
            message("k1", &[("a", "1")], "{}"),
            message("k", &[("a", "2")], "{}"),
            message("k", &[("a", "1")], "{} "),
            message("", &[("a", "1")], "k{}"),
        ] {
            assert_ne!(first, other);
        }
    }
}
