//! Decodes a message into a write, or into a rejection with as much identity as it has.
//!
//! Owns: every check that needs neither the row nor the ledger.
//! Never: drops a delivery. What cannot be a write is `Refused`, and becomes a dead letter.

use std::sync::Arc;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use super::body::{Members, parse_members};
use super::column::{ColumnType, Mismatch};
use super::entity::{Entities, Entity};
use super::fingerprint::{Canonical, Fingerprint, ledger_id};
use super::key::Key;
use super::message::{Message, NOT_TEXT, escape};
use super::moment::parse_rfc3339_micros;
use super::outcome::{Reason, Rejection};

/// The longest write id.
pub const WRITE_ID_BYTES_MAX: usize = 200;

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Upsert,
    Create,
    Update,
    Replace,
    Increment,
    Delete,
}

impl Change {
    /// Every change, in the order of WIRE.md.
    pub const ALL: [Self; 6] =
        [Self::Upsert, Self::Create, Self::Update, Self::Replace, Self::Increment, Self::Delete];

    /// The name behind the dot of `type`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Increment => "increment",
            Self::Delete => "delete",
        }
    }

    fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.label() == label)
    }
}

/// The version that a sender expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfVersion {
    /// `0`: the row must be absent.
    Absent,
    /// `*`: the row must be present.
    Present,
    /// The row must be at this version.
    Is(i64),
}

/// The sender's own conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guards {
    pub if_version: Option<IfVersion>,
    /// In microseconds: what PostgreSQL keeps.
    pub occurred_at: Option<OffsetDateTime>,
}

/// A write as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The ledger's id, of entity and write id.
    pub id: Uuid,
    pub entity: String,
    /// The routing key; escaped where no `text` column could hold it.
    pub key: String,
    pub write_id: String,
    pub fingerprint: Fingerprint,
}

/// One requested change of one row; everything in it is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub identity: Identity,
    pub entity: Arc<Entity>,
    pub key: Key,
    pub change: Change,
    /// Column (position among [`Entity::columns`]) and its new text; `None` is NULL.
    pub values: Vec<(usize, Option<String>)>,
    pub guards: Guards,
}

/// What can never be applied, with the identity it has, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub identity: Option<Identity>,
    pub rejection: Rejection,
    /// The catalogue may know better by now: a column or an enum label that it did not have.
    pub stale: bool,
    /// Its entity lets later writes of the key wait behind a dead letter.
    pub parks: bool,
}

/// A delivery after decoding.
pub type Decoded = Result<Write, Box<Refused>>;

/// Decodes `message`; a body above `body_bytes_max` bytes is refused.
pub fn decode(message: &Message, entities: &Entities, body_bytes_max: usize) -> Decoded {
    let anonymous =
        |rejection| Box::new(Refused { identity: None, rejection, stale: false, parks: false });
    let properties = &message.properties;
    let write_id = write_id(properties.message_id.as_deref()).map_err(anonymous)?;
    let (entity, change) = kind(properties.kind.as_deref()).map_err(anonymous)?;
    let entity = entities.get(entity).ok_or_else(|| {
        anonymous(Rejection::new(
            Reason::UnknownEntity,
            format!("no entity `{}` is configured", escape(entity)),
        ))
    })?;

    let headers = [properties.header("if-version"), properties.header("occurred-at")];
    let members = parse_members(&message.body);
    let identity = Identity {
        id: ledger_id(&entity.name, write_id),
        entity: entity.name.clone(),
        key: storable(&message.routing_key),
        write_id: write_id.to_owned(),
        fingerprint: fingerprint(message, entity, change, &headers, &members),
    };
    let parks = entity.parks;
    let refuse = |rejection, stale| {
        Box::new(Refused { identity: Some(identity.clone()), rejection, stale, parks })
    };

    check_envelope(message, body_bytes_max).map_err(|rejection| refuse(rejection, false))?;
    let change = Change::from_label(change).ok_or_else(|| {
        refuse(
            Rejection::new(
                Reason::UnknownChange,
                format!(
                    "no change `{}`; there are upsert, create, update, replace, increment, delete",
                    escape(change)
                ),
            ),
            false,
        )
    })?;
    let key = Key::parse(entity, &message.routing_key).map_err(|rejection| {
        let labels = entity.key.iter().any(|column| matches!(column.kind, ColumnType::Enum(_)));
        refuse(rejection, labels)
    })?;
    let members = match members {
        Ok(members) => members,
        Err(_) if change == Change::Delete && message.body.is_empty() => Vec::new(),
        Err(detail) => return Err(refuse(Rejection::new(Reason::MalformedBody, detail), false)),
    };
    let guards = parse_guards(entity, &headers).map_err(|r| refuse(r, false))?;
    let values = values(entity, &key, change, &members)
        .map_err(|refusal| refuse(refusal.rejection, refusal.stale))?;
    Ok(Write { identity, entity: Arc::clone(entity), key, change, values, guards })
}

/// A key as it is; escaped only where no `text` column could hold it, and then it is no key.
fn storable(key: &str) -> String {
    if key.contains('\0') { escape(key) } else { key.to_owned() }
}

fn write_id(message_id: Option<&str>) -> Result<&str, Rejection> {
    let refuse = |detail: &str| Err(Rejection::new(Reason::MissingWriteId, detail));
    match message_id {
        None | Some("") => refuse("set message_id to a write id of 1 to 200 bytes"),
        Some(id) if id.starts_with(NOT_TEXT) => {
            refuse("message_id is not UTF-8, or starts with U+001A")
        }
        Some(id) if id.len() > WRITE_ID_BYTES_MAX => refuse("message_id is longer than 200 bytes"),
        Some(id) if id.contains('\0') => refuse("message_id holds NUL"),
        Some(id) => Ok(id),
    }
}

fn kind(kind: Option<&str>) -> Result<(&str, &str), Rejection> {
    kind.filter(|kind| !kind.starts_with(NOT_TEXT))
        .and_then(|kind| kind.split_once('.'))
        .ok_or_else(|| Rejection::new(Reason::MissingType, "set type to `<entity>.<change>`"))
}

fn check_envelope(message: &Message, body_bytes_max: usize) -> Result<(), Rejection> {
    let media = message.properties.content_type.as_deref().unwrap_or("application/json");
    let essence = media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Rejection::new(
            Reason::UnsupportedMediaType,
            format!("content_type is `{}`; send application/json", escape(media)),
        ));
    }
    if message.body.len() > body_bytes_max {
        return Err(Rejection::new(
            Reason::BodyTooLarge,
            format!(
                "the body has {} bytes, at most {body_bytes_max} are taken",
                message.body.len()
            ),
        ));
    }
    Ok(())
}

fn fingerprint(
    message: &Message,
    entity: &Entity,
    change: &str,
    headers: &[Option<String>; 2],
    members: &Result<Members<'_>, String>,
) -> Fingerprint {
    let [if_version, occurred_at] = headers;
    let moment = occurred_at.as_deref().map(|text| {
        parse_rfc3339_micros(text)
            .map_or_else(|_| text.to_owned(), |at| at.unix_timestamp_nanos().to_string())
    });
    let guards = [if_version.as_deref(), moment.as_deref()];
    let canonical = Canonical::new(&entity.name, &message.routing_key, change, guards);
    match members {
        Ok(members) => canonical.members(
            members
                .iter()
                .map(|(name, value)| (name.as_ref(), *value))
                .filter(|(name, _)| !entity.key.iter().any(|column| column.name == *name))
                .collect(),
        ),
        Err(_) => canonical.raw(&message.body),
    }
}

fn parse_guards(entity: &Entity, headers: &[Option<String>; 2]) -> Result<Guards, Rejection> {
    let [if_version, occurred_at] = headers;
    let if_version = if_version.as_deref().map(parse_if_version).transpose()?;
    if matches!(if_version, Some(IfVersion::Is(_))) && entity.version.is_none() {
        return Err(Rejection::new(
            Reason::UnsupportedGuard,
            format!("if-version: entity {} has no version column", entity.name),
        ));
    }
    let occurred_at = occurred_at
        .as_deref()
        .map(|text| {
            parse_rfc3339_micros(text)
                .map_err(|why| Rejection::new(Reason::TypeMismatch, format!("occurred-at: {why}")))
        })
        .transpose()?;
    if occurred_at.is_some() && entity.occurred_at.is_none() {
        return Err(Rejection::new(
            Reason::UnsupportedGuard,
            format!("occurred-at: entity {} has no occurred_at column", entity.name),
        ));
    }
    Ok(Guards { if_version, occurred_at })
}

fn parse_if_version(text: &str) -> Result<IfVersion, Rejection> {
    match text {
        "*" => Ok(IfVersion::Present),
        "0" => Ok(IfVersion::Absent),
        digits => digits
            .parse::<i64>()
            .ok()
            .filter(|version| *version > 0 && !digits.starts_with('+'))
            .map(IfVersion::Is)
            .ok_or_else(|| {
                Rejection::new(
                    Reason::TypeMismatch,
                    "if-version: expects a version from 1, `0` for absent or `*` for present",
                )
            }),
    }
}

/// A refusal of the body, before it has an identity.
struct Refusal {
    rejection: Rejection,
    stale: bool,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, stale: false }
    }
}

fn values(
    entity: &Entity,
    key: &Key,
    change: Change,
    members: &Members<'_>,
) -> Result<Vec<(usize, Option<String>)>, Refusal> {
    let mut values = Vec::with_capacity(members.len());
    for (name, raw) in members {
        if let Some(part) = entity.key.iter().position(|column| column.name == *name) {
            check_key_member(entity, key, part, raw)?;
            continue;
        }
        let Some(index) = entity.column(name).filter(|_| change != Change::Delete) else {
            return Err(unknown_column(entity, change, name));
        };
        values.push((index, value(entity, change, index, raw)?));
    }
    values.sort_unstable_by_key(|(index, _)| *index);
    Ok(values)
}

fn unknown_column(entity: &Entity, change: Change, name: &str) -> Refusal {
    let detail = if change == Change::Delete {
        "a delete names no columns besides its key".to_owned()
    } else {
        format!("entity {} has no writable column `{}`", entity.name, escape(name))
    };
    let rejection = Rejection::new(Reason::UnknownColumn, detail).at(pointer(name, ""));
    Refusal { rejection, stale: change != Change::Delete }
}

fn value(
    entity: &Entity,
    change: Change,
    index: usize,
    raw: &RawValue,
) -> Result<Option<String>, Refusal> {
    let Some(column) = entity.columns.get(index) else { return Ok(None) };
    let refuse = |reason, detail: String, tail: &str, stale| Refusal {
        rejection: Rejection::new(reason, format!("column {}: {detail}", column.name))
            .at(pointer(&column.name, tail)),
        stale,
    };
    if change == Change::Increment && (!column.kind.is_number() || raw.get() == "null") {
        return Err(refuse(Reason::TypeMismatch, "only numbers can be added".into(), "", false));
    }
    if raw.get() == "null" {
        return if column.not_null {
            let detail = "it is not null, and the body says null".to_owned();
            Err(refuse(Reason::ConstraintViolation, detail, "", false))
        } else {
            Ok(None)
        };
    }
    match column.kind.check(raw.get()) {
        Ok(text) => Ok(Some(text)),
        Err(Mismatch { detail, pointer, stale }) => {
            Err(refuse(Reason::TypeMismatch, detail, &pointer, stale))
        }
    }
}

fn check_key_member(
    entity: &Entity,
    key: &Key,
    part: usize,
    raw: &RawValue,
) -> Result<(), Rejection> {
    let (Some(column), Some(text)) = (entity.key.get(part), key.parts().get(part)) else {
        return Ok(());
    };
    if column.kind.check(raw.get()).is_ok_and(|value| value == *text) {
        return Ok(());
    }
    let detail = format!("column {} differs from the routing key", column.name);
    Err(Rejection::new(Reason::KeyMismatch, detail).at(pointer(&column.name, "")))
}

/// RFC 6901: `~` and `/` are escaped.
fn pointer(name: &str, tail: &str) -> String {
    format!("/{}{tail}", escape(name).replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
