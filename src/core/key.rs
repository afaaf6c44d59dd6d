//! The business key: what must be serialized.
//!
//! Owns: the one text that stands for a row. One row must have one routing key, so only the form
//! that PostgreSQL itself prints is a key.
//! Never: repairs a key on behalf of a sender.

use std::borrow::Cow;

use super::entity::Entity;
use super::message::NOT_TEXT;
use super::outcome::{Reason, Rejection};

/// A checked business key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    text: String,
    parts: Vec<String>,
}

/// The longest routing key of AMQP 0-9-1.
pub const KEY_BYTES_MAX: usize = 255;

impl Key {
    /// Checks a routing key against the entity's key columns, so that nobody has to again.
    pub fn parse(entity: &Entity, routing_key: &str) -> Result<Self, Rejection> {
        if routing_key.starts_with(NOT_TEXT) {
            return Err(invalid("the routing key is not UTF-8, or starts with U+001A".into()));
        }
        let parts = split(routing_key, entity.key.len())?;
        let mut canonical = Vec::with_capacity(parts.len());
        for (part, column) in parts.iter().zip(&entity.key) {
            if part.is_empty() || part.contains('\0') {
                return Err(invalid(format!("key column {} is empty or holds NUL", column.name)));
            }
            let text = column
                .kind
                .canonical_key(part)
                .map_err(|why| invalid(format!("key column {}: {why}", column.name)))?;
            canonical.push(text);
        }
        let text = join(&canonical);
        if text != routing_key {
            return Err(invalid(format!("the right form of this key is `{text}`")));
        }
        Ok(Self { text, parts: canonical })
    }

    /// The routing key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The values of the key columns, in configured order, as PostgreSQL prints them.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }
}

/// The routing key of a row: a single part as it is; several percent-encoded where they hold `/`
/// or `%`, joined by `/`.
pub fn join(parts: &[String]) -> String {
    match parts {
        [single] => single.clone(),
        several => {
            let encoded: Vec<String> =
                several.iter().map(|part| part.replace('%', "%25").replace('/', "%2F")).collect();
            encoded.join("/")
        }
    }
}

fn invalid(detail: String) -> Rejection {
    Rejection::new(Reason::KeyInvalid, detail)
}

fn split(routing_key: &str, columns: usize) -> Result<Vec<Cow<'_, str>>, Rejection> {
    if columns == 1 {
        return Ok(vec![Cow::Borrowed(routing_key)]);
    }
    let parts: Vec<&str> = routing_key.split('/').collect();
    if parts.len() != columns {
        return Err(invalid(format!(
            "the key has {columns} parts joined by `/`, and this one has {}",
            parts.len()
        )));
    }
    parts.into_iter().map(decode).collect()
}

fn decode(part: &str) -> Result<Cow<'_, str>, Rejection> {
    if !part.contains('%') {
        return Ok(Cow::Borrowed(part));
    }
    let mut pieces = part.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (plain, rest) = match (piece.strip_prefix("25"), piece.strip_prefix("2F")) {
            (Some(rest), _) => ('%', rest),
            (None, Some(rest)) => ('/', rest),
            (None, None) => {
                return Err(invalid("in a key only `%25` and `%2F` are encoded".into()));
            }
        };
        decoded.push(plain);
        decoded.push_str(rest);
    }
    Ok(Cow::Owned(decoded))
}
