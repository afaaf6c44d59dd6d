//! Dead letters: what could not be applied and why, and what an operator can do about it.

pub mod filter;
pub mod list;

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

pub use self::filter::Filter;
pub use self::list::{Page, Summary, list, open_of_key};

/// Every state of a dead letter, as the table names them.
pub const STATES: [&str; 6] = ["dead", "parked", "waiting", "replaying", "resolved", "discarded"];

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
}

/// A message's body, as JSON can hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Body {
    /// How to read `body`: it is text as it is, or bytes in hexadecimal.
    pub body_encoding: Encoding,
    pub body: String,
}

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Utf8,
    Hex,
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(body) => Self { body_encoding: Encoding::Utf8, body },
            Err(error) => Self { body_encoding: Encoding::Hex, body: hex(error.as_bytes()) },
        }
    }
}

/// Bytes in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hex(Option<String>);

impl From<Option<Vec<u8>>> for Hex {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self(bytes.as_deref().map(hex))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// One dead letter, if it is there.
pub async fn show(
    connection: &mut PgConnection,
    id: i64,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    const SQL: &str = "
        select id, state, entity, key, write_id, fingerprint, reason, detail, pointer, routing_key,
               properties, body, generation, partition, attempts, dead_at, state_changed_at,
               state_changed_by, note
          from keylane.dead_letters
         where id = $1";
    sqlx::query_as(SQL).bind(id).fetch_optional(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_it_can_be_and_says_so_where_it_cannot() {
        let text = serde_json::to_string(&Body::from(b"{\"a\":1}".to_vec())).unwrap();
        assert_eq!(text, r#"{"body_encoding":"utf8","body":"{\"a\":1}"}"#);
        let bytes = serde_json::to_string(&Body::from(vec![0xff, 0x00, 0x0a])).unwrap();
        assert_eq!(bytes, r#"{"body_encoding":"hex","body":"ff000a"}"#);
    }
}
