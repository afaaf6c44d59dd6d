//! The body of a write: a JSON object, looked at without changing anything in it.
//!
//! Owns: member names and the exact text of their values, so that no number passes through a
//! binary float.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::message::escape;

/// The members of a JSON object: name, and the exact text of the value.
pub type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The members of a JSON object with the exact text of their values; a name twice is an error.
pub fn parse_members(body: &[u8]) -> Result<Members<'_>, String> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members: Members<'de> = Vec::new();
            while let Some(Name(name)) = map.next_key()? {
                members.push((name, map.next_value()?));
            }
            Ok(members)
        }
    }
    let text = std::str::from_utf8(body).map_err(|_not_utf8| "the body is not UTF-8".to_owned())?;
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json
        .deserialize_map(Object)
        .and_then(|members| json.end().map(|()| members))
        .map_err(|error| format!("the body is no JSON object: {}", place(&error)))?;
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => {
            Err(format!("the body names `{}` twice", escape(pair.first().unwrap_or(&""))))
        }
        None => Ok(members),
    }
}

/// A member's name, borrowed where it holds no escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// What serde says, without the value it may quote: a body may be personal data.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "it is another kind of JSON value",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "a syntax error",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
