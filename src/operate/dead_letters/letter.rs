//! One dead letter with everything that came with it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::core::message::{Message, Properties, unescape};

/// A dead letter with everything that came with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct DeadLetter {
    pub id: i64,
    pub state: String,
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    #[sqlx(try_from = "Option<Vec<u8>>")]
    pub fingerprint: Hex,
    pub reason: String,
    pub detail: Option<String>,
    pub pointer: Option<String>,
    pub routing_key: String,
    pub properties: Json<Value>,
    #[serde(flatten)]
    #[sqlx(try_from = "Vec<u8>")]
    pub body: Body,
    pub generation: i32,
    pub partition: i32,
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub state_changed_at: Option<OffsetDateTime>,
    pub state_changed_by: Option<String>,
    pub note: Option<String>,
    /// Its key stands still behind it.
    pub stops: bool,
    /// How often it was edited.
    pub revision: i32,
    /// The outcome that replaced the rejection.
    pub result: Option<Json<Value>>,
}

/// The columns of [`DeadLetter`], of a table that is called `d`.
pub(super) const COLUMNS: &str = "
    d.id, d.state, d.entity, d.key, d.write_id, d.fingerprint, d.reason, d.detail, d.pointer,
    d.routing_key, d.properties, d.body, d.generation, d.partition, d.attempts, d.dead_at,
    d.state_changed_at, d.state_changed_by, d.note, d.stops, d.revision, d.result";

impl DeadLetter {
    /// The message as the broker delivered it, with what was edited since.
    pub fn message(&self) -> Result<Message, serde_json::Error> {
        Ok(Message {
            routing_key: unescape(&self.routing_key),
            properties: Properties::restored(self.properties.0.clone())?,
            body: self.body.0.clone(),
        })
    }

    /// Entity and business key, where it has both.
    pub fn entity_and_key(&self) -> Option<(&str, &str)> {
        Some((self.entity.as_deref()?, self.key.as_deref()?))
    }
}

/// A message's body; in JSON it is text where it can be, else hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BodyForm", try_from = "BodyForm")]
pub struct Body(pub Vec<u8>);

/// A message's body, as JSON can hold it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BodyForm {
    body_encoding: Encoding,
    body: String,
}

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Utf8,
    Hex,
}

impl Body {
    /// How it is shown, and as what.
    pub fn shown(&self) -> (Encoding, String) {
        match str::from_utf8(&self.0) {
            Ok(text) => (Encoding::Utf8, text.to_owned()),
            Err(_not_text) => (Encoding::Hex, hex(&self.0)),
        }
    }

    /// Reads back what [`Self::shown`] gave.
    pub fn read(encoding: Encoding, text: String) -> Result<Self, String> {
        match encoding {
            Encoding::Utf8 => Ok(Self(text.into_bytes())),
            Encoding::Hex => bytes(&text).map(Self).ok_or_else(|| "body: not hexadecimal".into()),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Body> for BodyForm {
    fn from(body: Body) -> Self {
        let (body_encoding, body) = body.shown();
        Self { body_encoding, body }
    }
}

impl TryFrom<BodyForm> for Body {
    type Error = String;

    fn try_from(form: BodyForm) -> Result<Self, String> {
        Self::read(form.body_encoding, form.body)
    }
}

/// Bytes in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hex(pub Option<String>);

impl From<Option<Vec<u8>>> for Hex {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self(bytes.as_deref().map(hex))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The bytes that [`hex`] was given.
pub(super) fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        let lower = char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase())?;
        u8::try_from(lower).ok()
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let read = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(read).collect())?
}

/// One dead letter, if it is there.
pub async fn load(
    connection: &mut PgConnection,
    id: i64,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    let sql = format!("select {COLUMNS} from keylane.dead_letters d where d.id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_it_can_be_and_says_so_where_it_cannot() {
        let table: [(&[u8], &str); 3] = [
            (b"{\"a\":1}", r#"{"body_encoding":"utf8","body":"{\"a\":1}"}"#),
            (&[0xff, 0x00, 0x0a], r#"{"body_encoding":"hex","body":"ff000a"}"#),
            (b"", r#"{"body_encoding":"utf8","body":""}"#),
        ];
        for (bytes, expected) in table {
            let body = Body(bytes.to_vec());
            assert_eq!(serde_json::to_string(&body).unwrap(), expected);
            assert_eq!(serde_json::from_str::<Body>(expected).unwrap(), body);
        }
    }

    #[test]
    fn only_what_was_written_as_hexadecimal_is_read_as_such() {
        assert_eq!(bytes("00ff7f"), Some(vec![0, 0xff, 0x7f]));
        for text in ["0", "0g", "0A", "é", " 0"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
