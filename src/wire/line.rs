//! Reads one line of the `publish` form, and checks it before anything is sent.
//!
//! Owns: what a line may hold, and the message that it stands for.
//! Never: looks at tables or entities (the worker judges those), or changes the body's text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::core::key::{KEY_BYTES_MAX, join};
use crate::core::outcome::{Reason, Rejection};
use crate::core::write::WRITE_ID_BYTES_MAX;

/// The longest `<entity>.<change>`: a short string of AMQP.
const TYPE_BYTES_MAX: usize = 255;

/// One write of many, as a line or an element of an array.
#[derive(Deserialize, ToSchema)]
#[schema(as = BulkItem)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form<'line> {
    /// The configured table.
    #[schema(example = "customer")]
    #[serde(borrow)]
    entity: Cow<'line, str>,
    /// What is asked for.
    #[schema(schema_with = schemas::change)]
    #[serde(borrow)]
    change: Cow<'line, str>,
    /// The business key; the parts of a composite one as an array.
    #[schema(schema_with = schemas::key)]
    #[serde(borrow)]
    key: &'line RawValue,
    /// The write id.
    #[schema(required, value_type = String, min_length = 1, max_length = 200, example = "5b1f")]
    #[serde(borrow, default)]
    id: Option<Cow<'line, str>>,
    /// Columns and their values; only a delete needs none.
    #[schema(value_type = Option<Object>)]
    #[serde(borrow, default)]
    body: Option<&'line RawValue>,
    /// Only onto this version; `0`: absent, `"*"`: present.
    #[schema(schema_with = schemas::if_version)]
    #[serde(borrow, default)]
    if_version: Option<&'line RawValue>,
    /// Only if nothing newer was applied to the row.
    #[schema(format = DateTime)]
    #[serde(borrow, default)]
    occurred_at: Option<Cow<'line, str>>,
}

/// What the derive cannot tell from the types.
mod schemas {
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{
        AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type,
    };

    use crate::core::write::Change;
    use crate::wire::schemas::labels;

    pub(super) fn change() -> RefOr<Schema> {
        labels(Change::ALL.iter().map(|change| change.label())).into()
    }

    pub(super) fn key() -> RefOr<Schema> {
        let part = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build();
        let parts = ArrayBuilder::new().items(part()).min_items(Some(1)).build();
        Schema::AnyOf(AnyOfBuilder::new().item(part()).item(parts).build()).into()
    }

    pub(super) fn if_version() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::Integer, Type::Null]))
            .minimum(Some(0));
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^(\*|[0-9]+)$"));
        Schema::AnyOf(AnyOfBuilder::new().item(number).item(text).build()).into()
    }
}

/// A write that may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// `<entity>.<change>`.
    pub kind: String,
    /// How long the entity's name is in `kind`.
    entity_bytes: usize,
    pub routing_key: String,
    pub id: String,
    /// The text of `body`, as it stands in the line.
    pub body: String,
    pub if_version: Option<String>,
    pub occurred_at: Option<String>,
}

impl Write {
    /// The name of the entity.
    pub fn entity(&self) -> &str {
        self.kind.get(..self.entity_bytes).unwrap_or_default()
    }

    /// Checks a line; the rejection says what is wrong, for whoever wrote it.
    pub fn parse(line: &[u8]) -> Result<Self, Rejection> {
        // serde would take the members from an array too, by their places.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(malformed("an item must be a JSON object"));
        }
        let form: Form<'_> =
            serde_json::from_slice(line).map_err(|error| malformed(reason(&error)))?;
        let kind = kind(&form.entity, &form.change)?;
        let routing_key = routing_key(form.key).map_err(wrong(Reason::KeyInvalid, "/key"))?;
        let id = write_id(form.id).map_err(wrong(Reason::MissingWriteId, "/id"))?;
        let if_version = form.if_version.map(if_version).transpose();
        let occurred_at = form.occurred_at.map(occurred_at).transpose();
        Ok(Self {
            kind,
            entity_bytes: form.entity.len(),
            routing_key,
            id,
            body: body(form.body, &form.change).map_err(wrong(Reason::MalformedBody, "/body"))?,
            if_version: if_version.map_err(wrong(Reason::TypeMismatch, "/if_version"))?,
            occurred_at: occurred_at.map_err(wrong(Reason::TypeMismatch, "/occurred_at"))?,
        })
    }
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::MalformedBody, detail)
}

fn wrong(reason: Reason, pointer: &'static str) -> impl FnOnce(String) -> Rejection {
    move |detail| Rejection::new(reason, detail).at(pointer)
}

/// Of which write a line speaks, as far as that can be read in one that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub entity: Option<String>,
    pub key: Option<String>,
    pub id: Option<String>,
}

impl Names {
    /// Reads a line that [`Write::parse`] refused.
    pub fn of(line: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Known<'line> {
            #[serde(borrow)]
            entity: Option<&'line RawValue>,
            #[serde(borrow)]
            key: Option<&'line RawValue>,
            #[serde(borrow)]
            id: Option<&'line RawValue>,
        }
        let known = serde_json::from_slice::<Known<'_>>(line).unwrap_or_default();
        let text = |value: &RawValue| serde_json::from_str(value.get()).ok();
        Self {
            entity: known.entity.and_then(text),
            key: known.key.and_then(|key| routing_key(key).ok()),
            id: known.id.and_then(text),
        }
    }
}

/// What the parser says, without the line number of a one-line text.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

fn kind(entity: &str, change: &str) -> Result<String, Rejection> {
    let entity_is = (Reason::UnknownEntity, "/entity", entity);
    for (reason, pointer, text) in [entity_is, (Reason::UnknownChange, "/change", change)] {
        if text.is_empty() || text.contains('.') {
            let name = pointer.trim_start_matches('/');
            let detail = format!("`{name}` must be a name without a dot");
            return Err(Rejection::new(reason, detail).at(pointer));
        }
    }
    let kind = format!("{entity}.{change}");
    if kind.len() > TYPE_BYTES_MAX {
        let detail =
            format!("`entity` and `change` have more than {TYPE_BYTES_MAX} bytes together");
        return Err(malformed(detail));
    }
    Ok(kind)
}

/// A key of several parts in an array; a single one as text, or in an array of one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`key` must be a string or an array of strings")]
enum KeyForm {
    One(String),
    Several(Vec<String>),
}

fn routing_key(key: &RawValue) -> Result<String, String> {
    let parts = match serde_json::from_str(key.get()).map_err(|error| reason(&error))? {
        KeyForm::One(single) => vec![single],
        KeyForm::Several(parts) => parts,
    };
    if parts.is_empty() || parts.iter().any(|part| part.is_empty() || part.contains('\0')) {
        return Err("`key` is empty, has an empty part, or holds NUL".into());
    }
    let routing_key = join(&parts);
    if routing_key.len() > KEY_BYTES_MAX {
        let bytes = routing_key.len();
        return Err(format!("`key` has {bytes} bytes, and a routing key at most {KEY_BYTES_MAX}"));
    }
    Ok(routing_key)
}

fn write_id(id: Option<Cow<'_, str>>) -> Result<String, String> {
    let Some(id) = id else { return Err("missing field `id`".into()) };
    if id.is_empty() {
        return Err("`id` is empty".into());
    }
    if id.len() > WRITE_ID_BYTES_MAX {
        let bytes = id.len();
        return Err(format!("`id` has {bytes} bytes, and a write id at most {WRITE_ID_BYTES_MAX}"));
    }
    Ok(id.into_owned())
}

/// The body's own text: numbers must arrive as they were written. A delete needs none.
fn body(body: Option<&RawValue>, change: &str) -> Result<String, String> {
    match body.map(RawValue::get) {
        Some(text) if text.starts_with('{') => Ok(text.to_owned()),
        Some(_) => Err("`body` must be a JSON object".into()),
        None if change == "delete" => Ok("{}".into()),
        None => Err("missing field `body`".into()),
    }
}

fn if_version(value: &RawValue) -> Result<String, String> {
    let text: Cow<'_, str> = if value.get().starts_with('"') {
        serde_json::from_str::<String>(value.get()).map_err(|error| reason(&error))?.into()
    } else {
        value.get().into()
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text == "*" || (digits && text.parse::<i64>().is_ok()) {
        return Ok(text.into_owned());
    }
    Err("`if_version` must be a whole number, its digits as text, or \"*\"".into())
}

fn occurred_at(text: Cow<'_, str>) -> Result<String, String> {
    match OffsetDateTime::parse(&text, &Rfc3339) {
        Ok(_) => Ok(text.into_owned()),
        Err(error) => Err(format!("`occurred_at` must be an RFC 3339 time with offset: {error}")),
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
