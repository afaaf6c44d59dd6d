//! What the broker hands over, in our words.
//!
//! Owns: the parts of a message and the form in which a dead letter keeps them.
//! Never: judges them (that is `write`), or fails: every delivery can be described.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Begins what stands in place of a text of the sender that is no text; its bytes follow, in a
/// readable form. The broker's side writes it, so that such a message can be rejected.
pub const NOT_TEXT: char = '\u{1a}';
/// The `type` of a control message: the lane that gets it looks at the key that it is routed by.
pub const LOOK: &str = "look";

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
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
        escape_strings(&mut value);
        value
    }
}

fn escape_strings(value: &mut Value) {
    match value {
        Value::String(text) => *text = escape(text),
        Value::Array(items) => items.iter_mut().for_each(escape_strings),
        Value::Object(members) => {
            let escaped = std::mem::take(members).into_iter().map(|(name, mut member)| {
                escape_strings(&mut member);
                (escape(&name), member)
            });
            *members = escaped.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Text that any `text` column takes and from which the original can be read back.
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\0', "\\x00")
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
    }
}
