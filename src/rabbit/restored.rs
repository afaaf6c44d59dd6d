//! Makes a message's properties out of the form in which keylane keeps them.
//!
//! Owns: the way back from JSON to AMQP's values; `consumer` has the way there. A whole number
//! comes back as AMQP's longest, bytes that are no text as a string of those bytes.
//! Never: a `user_id`. The broker closes the channel of anybody but that user.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString};
use serde_json::{Map, Value};

use super::connection::short;
use super::error::BrokerError;
use crate::core::message::Properties;

/// The properties as they were; too long for AMQP is an error.
pub(super) fn properties(from: &Properties) -> Result<BasicProperties, BrokerError> {
    let mut properties = BasicProperties::default();
    macro_rules! texts {
        ($($name:literal $field:ident $with:ident,)+) => {
            $(if let Some(text) = &from.$field {
                properties = properties.$with(short($name, text)?);
            })+
        };
    }
    texts! {
        "message_id" message_id with_message_id,
        "type" kind with_type,
        "content_type" content_type with_content_type,
        "content_encoding" content_encoding with_content_encoding,
        "correlation_id" correlation_id with_correlation_id,
        "reply_to" reply_to with_reply_to,
        "expiration" expiration with_expiration,
        "app_id" app_id with_app_id,
    }
    if let Some(mode) = from.delivery_mode {
        properties = properties.with_delivery_mode(mode);
    }
    if let Some(priority) = from.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(timestamp) = from.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    if !from.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, header) in &from.headers {
            headers.insert(short("a header's name", name)?, value(header)?);
        }
        properties = properties.with_headers(headers);
    }
    Ok(properties)
}

fn value(json: &Value) -> Result<AMQPValue, BrokerError> {
    Ok(match json {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AMQPValue::LongLongInt(whole),
            (None, Some(float)) => AMQPValue::Double(float),
            (None, None) => text(number.to_string()),
        },
        Value::String(string) => text(string.as_str()),
        Value::Array(items) => {
            let items = items.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            AMQPValue::FieldArray(FieldArray::from(items))
        }
        Value::Object(members) => {
            if let Some(raw) = raw(members) {
                return Ok(text(raw));
            }
            let mut table = FieldTable::default();
            for (name, member) in members {
                table.insert(short("a header's name", name)?, value(member)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

fn text(bytes: impl Into<LongString>) -> AMQPValue {
    AMQPValue::LongString(bytes.into())
}

/// The bytes of `{"hex": "…"}`.
fn raw(members: &Map<String, Value>) -> Option<Vec<u8>> {
    let hex = members.get("hex").filter(|_| members.len() == 1)?.as_str()?;
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_come_back_as_values_of_their_kind() {
        let table = [
            (json!("a"), text("a")),
            (json!(7), AMQPValue::LongLongInt(7)),
            (json!(1.5), AMQPValue::Double(1.5)),
            (json!(true), AMQPValue::Boolean(true)),
            (json!(null), AMQPValue::Void),
            (json!({"hex": "ff00"}), text(vec![0xff, 0x00])),
            (json!(["a"]), AMQPValue::FieldArray(FieldArray::from(vec![text("a")]))),
        ];
        for (json, amqp) in table {
            assert_eq!(value(&json).unwrap(), amqp, "{json}");
        }
        for json in [json!({"hex": "f"}), json!({"hex": "xy"}), json!({"a": 1})] {
            assert!(matches!(value(&json).unwrap(), AMQPValue::FieldTable(_)), "{json}");
        }
    }

    #[test]
    fn what_is_too_long_for_amqp_is_named() {
        let long = Properties { message_id: Some("x".repeat(256)), ..Properties::default() };
        assert!(properties(&long).unwrap_err().to_string().starts_with("message_id"));
    }
}
