//! Reads a message as WIRE.md says: whose it is, what it asks for, or why it is refused.

use std::collections::BTreeMap;
use std::fmt;

use keylane::core::message::{Message, escape};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decimal::Decimal;
use super::entities::Spec;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Upsert,
    Create,
    Update,
    Replace,
    Increment,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    Present,
    Version(i64),
}

/// What a body says of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Given<T> {
    #[default]
    Nothing,
    Null,
    Value(T),
}

/// The columns of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) name: Given<String>,
    pub(crate) qty: Given<i64>,
    /// In cents.
    pub(crate) price: Given<i64>,
    pub(crate) note: Given<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) spec: &'static Spec,
    pub(crate) key: String,
    pub(crate) change: Change,
    pub(crate) if_version: Option<Expected>,
    pub(crate) occurred_at: Option<OffsetDateTime>,
    pub(crate) body: Body,
}

/// What makes two messages the same write: equal values, not equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    key: String,
    kind: String,
    guards: [Option<String>; 2],
    body: Result<BTreeMap<String, Same>, Vec<u8>>,
}

/// A value by which contents are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Same {
    Number(Option<Decimal>, String),
    Text(String),
    Items(Vec<Same>),
    Members(BTreeMap<String, Same>),
    Word(Option<bool>),
}

/// A message as far as it can be read.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    /// Entity, write id and key, and the content; where the first two are usable.
    pub(crate) identity: Option<((String, String, String), Content)>,
    /// Or the reason of the rejection.
    pub(crate) request: Result<Request, &'static str>,
}

/// Reads a message.
pub(crate) fn read(message: &Message) -> Read {
    let refused = |reason| Read { identity: None, request: Err(reason) };
    let write_id = message.properties.message_id.clone().unwrap_or_default();
    if write_id.is_empty() || write_id.len() > 200 || write_id.contains('\0') {
        return refused("missing_write_id");
    }
    let kind = message.properties.kind.clone().unwrap_or_default();
    let Some((entity, change)) = kind.split_once('.') else { return refused("missing_type") };
    let Some(spec) = Spec::named(entity) else { return refused("unknown_entity") };
    let members = members(&message.body);
    let same = |members: &Vec<(String, Value)>| {
        let counted = members.iter().filter(|(name, _)| name != "id");
        counted.map(|(name, value)| (name.clone(), same(value))).collect()
    };
    let content = Content {
        key: message.routing_key.clone(),
        kind: kind.clone(),
        guards: [message.properties.header("if-version"), moment_text(message)],
        body: members.as_ref().map(same).map_err(|()| message.body.clone()),
    };
    // A key that no text column could hold is kept escaped.
    let name = (entity.to_owned(), write_id, escape(&message.routing_key));
    let request = request(message, spec, change, members);
    Read { identity: Some((name, content)), request }
}

fn moment_text(message: &Message) -> Option<String> {
    let text = message.properties.header("occurred-at")?;
    let moment = OffsetDateTime::parse(&text, &Rfc3339).map(OffsetDateTime::unix_timestamp_nanos);
    Some(moment.map_or(text, |nanos| nanos.to_string()))
}

fn request(
    message: &Message,
    spec: &'static Spec,
    change: &str,
    members: Result<Vec<(String, Value)>, ()>,
) -> Result<Request, &'static str> {
    let media = message.properties.content_type.as_deref().unwrap_or("application/json");
    if media != "application/json" {
        return Err("unsupported_media_type");
    }
    let change = match change {
        "upsert" => Change::Upsert,
        "create" => Change::Create,
        "update" => Change::Update,
        "replace" => Change::Replace,
        "increment" => Change::Increment,
        "delete" => Change::Delete,
        _ => return Err("unknown_change"),
    };
    let key = message.routing_key.clone();
    if key.is_empty() || key.contains('\0') {
        return Err("key_invalid");
    }
    let members = match members {
        Err(()) if change == Change::Delete && message.body.is_empty() => Vec::new(),
        members => members.map_err(|()| "malformed_body")?,
    };
    let if_version = match message.properties.header("if-version").as_deref() {
        None => None,
        Some("0") => Some(Expected::Absent),
        Some("*") => Some(Expected::Present),
        Some(text) => Some(Expected::Version(text.parse().map_err(|_text| "type_mismatch")?)),
    };
    let occurred_at = match message.properties.header("occurred-at") {
        None => None,
        Some(text) => {
            Some(OffsetDateTime::parse(&text, &Rfc3339).map_err(|_text| "type_mismatch")?)
        }
    };
    if !spec.guarded && (occurred_at.is_some() || matches!(if_version, Some(Expected::Version(_))))
    {
        return Err("unsupported_guard");
    }
    let mut body = Body::default();
    for (name, value) in members {
        member(&mut body, &key, change, &name, &value)?;
    }
    Ok(Request { spec, key, change, if_version, occurred_at, body })
}

fn member(
    body: &mut Body,
    key: &str,
    change: Change,
    name: &str,
    value: &Value,
) -> Result<(), &'static str> {
    let adds = change == Change::Increment;
    match (name, value) {
        ("id", value) => return if value == key { Ok(()) } else { Err("key_mismatch") },
        _ if change == Change::Delete => return Err("unknown_column"),
        ("qty", Value::Number(number)) => body.qty = Given::Value(whole(&number.to_string())?),
        ("price", Value::Number(number)) => body.price = Given::Value(cents(&number.to_string())?),
        ("qty", Value::Null) if !adds => body.qty = Given::Null,
        ("price", Value::Null) if !adds => body.price = Given::Null,
        ("name", Value::Null) if !adds => body.name = Given::Null,
        ("note", Value::Null) if !adds => return Err("constraint_violation"),
        ("name", Value::String(text)) if !adds && !text.contains('\0') => {
            body.name = Given::Value(text.clone());
        }
        ("note", Value::String(text)) if !adds && text.chars().count() <= 10 => {
            body.note = Given::Value(text.clone());
        }
        ("name" | "qty" | "price" | "note", _) => return Err("type_mismatch"),
        _ => return Err("unknown_column"),
    }
    Ok(())
}

fn whole(number: &str) -> Result<i64, &'static str> {
    let whole = Decimal::parse(number).and_then(|number| number.scaled(0, 1 << 31));
    whole.filter(|whole| i32::try_from(*whole).is_ok()).ok_or("type_mismatch")
}

fn cents(number: &str) -> Result<i64, &'static str> {
    let cents = Decimal::parse(number).and_then(|number| number.scaled(2, Spec::CENTS_MAX));
    cents.ok_or("type_mismatch")
}

fn same(value: &Value) -> Same {
    match value {
        Value::Null => Same::Word(None),
        Value::Bool(word) => Same::Word(Some(*word)),
        Value::Number(number) => {
            let text = number.to_string();
            let decimal = Decimal::parse(&text);
            Same::Number(decimal, if decimal.is_some() { String::new() } else { text })
        }
        Value::String(text) => Same::Text(text.clone()),
        Value::Array(items) => Same::Items(items.iter().map(same).collect()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), same(value)));
            Same::Members(members.collect())
        }
    }
}

/// The members of the object that the body must be, no name twice.
fn members(body: &[u8]) -> Result<Vec<(String, Value)>, ()> {
    let Pairs(pairs) = serde_json::from_slice(body).map_err(|_error| ())?;
    let twice = |(index, (name, _)): (usize, &(String, Value))| {
        pairs.iter().take(index).any(|(earlier, _)| earlier == name)
    };
    if pairs.iter().enumerate().any(twice) { Err(()) } else { Ok(pairs) }
}

struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
