//! What a column can hold, and whether a JSON value fits it unaltered.
//!
//! Owns: the types that keylane knows, and what each takes, keeps and adds.
//! Never: rounds, guesses or shortens a value, or repeats one in a message (bodies may be
//! personal).

use super::json::{Kind, expects, string};
use super::{array, json, moment, number};

/// The type of a column, with what of its modifier matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// numeric, with precision and scale where the column declares them
    Numeric(Option<(u16, i16)>),
    /// real
    Float4,
    /// double precision
    Float8,
    /// text, varchar(n), char(n); the longest in characters
    Text(Option<u32>),
    /// boolean
    Bool,
    /// uuid
    Uuid,
    /// date
    Date,
    /// time without time zone; digits of a second
    Time(u8),
    /// timestamp without time zone; digits of a second
    Timestamp(u8),
    /// timestamp with time zone; digits of a second
    TimestampTz(u8),
    /// json
    Json,
    /// jsonb
    Jsonb,
    /// bytea
    Bytea,
    /// an enum and its labels
    Enum(Vec<String>),
    /// an array of any depth
    Array(Box<ColumnType>),
    /// any other type: given as a JSON string, judged by PostgreSQL
    Other,
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What is wrong and what would be right, without the value itself.
    pub detail: String,
    /// Where inside the value, as the tail of a JSON pointer (`""` for the value itself, `/2`).
    pub pointer: String,
    /// Whether the catalogue may know better by now: an enum label that it did not have.
    pub stale: bool,
}

impl Mismatch {
    /// A mismatch of the value itself.
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), pointer: String::new(), stale: false }
    }

    /// The same, seen from the array that holds the value at `index`.
    pub(super) fn inside(mut self, index: usize) -> Self {
        self.pointer.insert_str(0, &format!("/{index}"));
        self
    }
}

impl ColumnType {
    /// Checks one JSON value, given as its exact text (valid JSON, never `null`), and returns the
    /// text that PostgreSQL's input function of the type is given.
    ///
    /// For a kind that may be a key column, this is also the text that PostgreSQL prints.
    pub fn check(&self, json: &str) -> Result<String, Mismatch> {
        match self {
            Self::Int2 => number::check_integer(json, number::INT2),
            Self::Int4 => number::check_integer(json, number::INT4),
            Self::Int8 => number::check_integer(json, number::INT8),
            Self::Numeric(modifier) => number::check_numeric(json, *modifier),
            Self::Float4 => number::check_float::<f32>(json),
            Self::Float8 => number::check_float::<f64>(json),
            Self::Bool => check_bool(json),
            Self::Json => json::check_document(json, false).map(|()| json.to_owned()),
            Self::Jsonb => json::check_document(json, true).map(|()| json.to_owned()),
            Self::Array(element) => array::check(element, json),
            Self::Other => check_other(json),
            Self::Enum(labels) => {
                let text = string(json)?;
                if labels.iter().any(|label| *label == text) {
                    return Ok(text.into_owned());
                }
                Err(Mismatch { stale: true, ..Mismatch::new(not_a_label(labels)) })
            }
            Self::Text(chars_max) => {
                let text = string(json)?;
                check_text(&text, *chars_max).map_err(Mismatch::new)?;
                Ok(text.into_owned())
            }
            Self::Uuid => uuid(&string(json)?).map_err(Mismatch::new),
            Self::Date => moment::date(&string(json)?).map_err(Mismatch::new),
            Self::Time(digits) => moment::time(&string(json)?, *digits).map_err(Mismatch::new),
            Self::Timestamp(digits) => {
                moment::timestamp(&string(json)?, *digits).map_err(Mismatch::new)
            }
            Self::TimestampTz(digits) => {
                moment::timestamp_tz(&string(json)?, *digits).map_err(Mismatch::new)
            }
            Self::Bytea => check_bytea(&string(json)?).map_err(Mismatch::new),
        }
    }

    /// The text that PostgreSQL prints for this value of a key column, or why it is none.
    pub fn canonical_key(&self, text: &str) -> Result<String, String> {
        match self {
            Self::Int2 => number::integer(text, &number::INT2),
            Self::Int4 => number::integer(text, &number::INT4),
            Self::Int8 => number::integer(text, &number::INT8),
            Self::Text(chars_max) => check_text(text, *chars_max).map(|()| text.to_owned()),
            Self::Bool => match text {
                "true" | "t" => Ok("true".to_owned()),
                "false" | "f" => Ok("false".to_owned()),
                _ => Err("expects `true` or `false`".to_owned()),
            },
            Self::Uuid => uuid(text),
            Self::Date => moment::date(text),
            Self::Time(digits) => moment::time(text, *digits),
            Self::Timestamp(digits) => moment::timestamp(text, *digits),
            Self::Enum(labels) => {
                let known = labels.iter().any(|label| label == text);
                if known { Ok(text.to_owned()) } else { Err(not_a_label(labels)) }
            }
            Self::Numeric(_)
            | Self::Float4
            | Self::Float8
            | Self::TimestampTz(_)
            | Self::Json
            | Self::Jsonb
            | Self::Bytea
            | Self::Array(_)
            | Self::Other => Err("a column of this type cannot be part of a key".to_owned()),
        }
    }

    /// Whether the kind may be a key column at all: equal values have one text.
    pub fn is_key_kind(&self) -> bool {
        match self {
            Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Text(_)
            | Self::Bool
            | Self::Uuid
            | Self::Date
            | Self::Time(_)
            | Self::Timestamp(_)
            | Self::Enum(_) => true,
            Self::Numeric(_)
            | Self::Float4
            | Self::Float8
            | Self::TimestampTz(_)
            | Self::Json
            | Self::Jsonb
            | Self::Bytea
            | Self::Array(_)
            | Self::Other => false,
        }
    }

    /// Whether numbers can be added to it.
    pub fn is_number(&self) -> bool {
        match self {
            Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Numeric(_)
            | Self::Float4
            | Self::Float8 => true,
            Self::Text(_)
            | Self::Bool
            | Self::Uuid
            | Self::Date
            | Self::Time(_)
            | Self::Timestamp(_)
            | Self::TimestampTz(_)
            | Self::Json
            | Self::Jsonb
            | Self::Bytea
            | Self::Enum(_)
            | Self::Array(_)
            | Self::Other => false,
        }
    }

    /// Adds `delta` (checked text) to `current` (PostgreSQL's text; `None`, NULL, counts as 0) in
    /// the column's own type: integer range, numeric precision and scale, width of a float.
    ///
    /// The result is the text to store.
    pub fn add(&self, current: Option<&str>, delta: &str) -> Result<String, Mismatch> {
        let current = current.unwrap_or("0");
        let sum = match self {
            Self::Int2 => number::add_integer(current, delta, number::INT2),
            Self::Int4 => number::add_integer(current, delta, number::INT4),
            Self::Int8 => number::add_integer(current, delta, number::INT8),
            Self::Numeric(modifier) => number::add_numeric(current, delta, *modifier),
            Self::Float4 => number::add_float::<f32>(current, delta),
            Self::Float8 => number::add_float::<f64>(current, delta),
            Self::Text(_)
            | Self::Bool
            | Self::Uuid
            | Self::Date
            | Self::Time(_)
            | Self::Timestamp(_)
            | Self::TimestampTz(_)
            | Self::Json
            | Self::Jsonb
            | Self::Bytea
            | Self::Enum(_)
            | Self::Array(_)
            | Self::Other => Err("only numbers can be added".to_owned()),
        };
        sum.map_err(Mismatch::new)
    }
}

fn check_bool(json: &str) -> Result<String, Mismatch> {
    match Kind::of(json) {
        Kind::Bool => Ok(json.to_owned()),
        Kind::Null | Kind::Number | Kind::String | Kind::Array | Kind::Object => {
            Err(expects("true or false", json))
        }
    }
}

fn check_other(json: &str) -> Result<String, Mismatch> {
    match Kind::of(json) {
        Kind::Number | Kind::Bool => Ok(json.to_owned()),
        Kind::String => {
            let text = string(json)?;
            check_text(&text, None).map_err(Mismatch::new)?;
            Ok(text.into_owned())
        }
        Kind::Null | Kind::Array | Kind::Object => {
            Err(expects("a JSON string, a number or true or false", json))
        }
    }
}

/// PostgreSQL's text cannot hold NUL; `varchar(n)` drops blanks beyond its length silently.
fn check_text(text: &str, chars_max: Option<u32>) -> Result<(), String> {
    if text.contains('\0') {
        return Err("expects text without the character U+0000".to_owned());
    }
    let Some(chars_max) = chars_max else { return Ok(()) };
    let max = usize::try_from(chars_max).unwrap_or(usize::MAX);
    // A character has at least one byte, so that most texts need not be counted.
    if text.len() > max && text.chars().count() > max {
        return Err(format!("expects at most {chars_max} characters"));
    }
    Ok(())
}

fn not_a_label(labels: &[String]) -> String {
    format!("expects one of the labels {}", labels.join(", "))
}

/// Only with all its hyphens or with none; PostgreSQL also takes braces and stray hyphens.
fn uuid(text: &str) -> Result<String, String> {
    let parsed = matches!(text.len(), 32 | 36).then(|| uuid::Uuid::try_parse(text).ok()).flatten();
    parsed.map(|uuid| uuid.to_string()).ok_or_else(|| {
        "expects a uuid: 32 hexadecimal digits, with hyphens as 8-4-4-4-12 or without".to_owned()
    })
}

/// Without `\x`, PostgreSQL stores the letters: base64 would be kept as text.
fn check_bytea(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("\\x").filter(|hex| {
        hex.len().is_multiple_of(2) && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    match hex {
        Some(_) => Ok(text.to_owned()),
        None => Err("expects bytes as `\\x` and an even number of hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
#[path = "column_tests.rs"]
mod tests;
