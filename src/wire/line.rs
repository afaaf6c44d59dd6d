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
    #[schema(min_length = 1, max_length = 200, example = "5b1f")]
    #[serde(borrow)]
    id: Cow<'line, str>,
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

    /// Checks a line; the error says what is wrong, for whoever wrote the file.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let form: Form<'_> = serde_json::from_slice(line).map_err(|error| reason(&error))?;
        let kind = kind(&form.entity, &form.change)?;
        let routing_key = routing_key(form.key)?;
        write_id(&form.id)?;
        Ok(Self {
            kind,
            entity_bytes: form.entity.len(),
            routing_key,
            id: form.id.into_owned(),
            body: body(form.body, &form.change)?,
            if_version: form.if_version.map(if_version).transpose()?,
            occurred_at: form.occurred_at.map(occurred_at).transpose()?,
        })
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

fn kind(entity: &str, change: &str) -> Result<String, String> {
    for (name, text) in [("entity", entity), ("change", change)] {
        if text.is_empty() || text.contains('.') {
            return Err(format!("`{name}` must be a name without a dot"));
        }
    }
    let kind = format!("{entity}.{change}");
    if kind.len() > TYPE_BYTES_MAX {
        return Err(format!(
            "`entity` and `change` have more than {TYPE_BYTES_MAX} bytes together"
        ));
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

fn write_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("`id` is empty".into());
    }
    if id.len() > WRITE_ID_BYTES_MAX {
        let bytes = id.len();
        return Err(format!("`id` has {bytes} bytes, and a write id at most {WRITE_ID_BYTES_MAX}"));
    }
    Ok(())
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
mod tests {
    use super::*;

    fn line(members: &str) -> String {
        format!("{{\"entity\":\"customer\",\"change\":\"upsert\",{members}}}")
    }

    #[test]
    fn a_line_becomes_a_message_and_its_body_stays_as_it_was_written() {
        let text = line(
            r#""key":"CUST 1/%","id":"w1","body":{ "n" : 1.000000000000000000000001e5,"n":2 },
               "if_version":7,"occurred_at":"2026-11-21T02:00:00.5+01:00""#,
        );
        let write = Write::parse(text.as_bytes()).unwrap();
        assert_eq!(write.kind, "customer.upsert");
        assert_eq!(write.entity(), "customer");
        assert_eq!(write.routing_key, "CUST 1/%");
        assert_eq!(write.id, "w1");
        assert_eq!(write.body, r#"{ "n" : 1.000000000000000000000001e5,"n":2 }"#);
        assert_eq!(write.if_version.as_deref(), Some("7"));
        assert_eq!(write.occurred_at.as_deref(), Some("2026-11-21T02:00:00.5+01:00"));
    }

    #[test]
    fn a_composite_key_is_encoded_and_a_single_one_is_not() {
        let table = [
            (r#""a/b%2F""#, "a/b%2F"),
            (r#"["a/b%2F"]"#, "a/b%2F"),
            (r#"["a/b","50%","c d"]"#, "a%2Fb/50%25/c d"),
            (r#""\u00e9""#, "é"),
        ];
        for (key, routing_key) in table {
            let text = line(&format!(r#""key":{key},"id":"w","body":{{}}"#));
            assert_eq!(Write::parse(text.as_bytes()).unwrap().routing_key, routing_key, "{key}");
        }
    }

    #[test]
    fn a_version_may_be_a_number_its_text_or_a_star() {
        let table =
            [("0", Some("0")), ("\"12\"", Some("12")), ("\"*\"", Some("*")), ("null", None)];
        for (version, header) in table {
            let text = line(&format!(r#""key":"k","id":"w","body":{{}},"if_version":{version}"#));
            let write = Write::parse(text.as_bytes()).unwrap();
            assert_eq!(write.if_version.as_deref(), header, "{version}");
        }
        for version in ["1.0", "-1", "1e3", "\"\"", "\"+1\"", "9223372036854775808", "true", "[1]"]
        {
            let text = line(&format!(r#""key":"k","id":"w","body":{{}},"if_version":{version}"#));
            assert!(Write::parse(text.as_bytes()).is_err(), "{version}");
        }
    }

    #[test]
    fn a_delete_needs_no_body() {
        let text = r#"{"entity":"customer","change":"delete","key":"k","id":"w"}"#;
        assert_eq!(Write::parse(text.as_bytes()).unwrap().body, "{}");
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_reason() {
        let long_id = format!(r#""key":"k","id":"{}","body":{{}}"#, "x".repeat(201));
        let long_key = format!(r#""key":["a","{}"],"id":"w","body":{{}}"#, "/".repeat(85));
        let table = [
            (r#""key":"k","body":{}"#, "missing field `id`"),
            (r#""key":"k","id":"w""#, "missing field `body`"),
            (r#""key":"k","id":"w","body":{},"x":1"#, "unknown field `x`"),
            (r#""key":"k","id":"w","body":{},"id":"v""#, "duplicate field `id`"),
            (r#""key":"k","id":"","body":{}"#, "`id` is empty"),
            (r#""key":"k","id":7,"body":{}"#, "invalid type"),
            (&long_id, "`id` has 201 bytes"),
            (&long_key, "`key` has 257 bytes"),
            (r#""key":"","id":"w","body":{}"#, "`key` is empty"),
            (r#""key":["a",""],"id":"w","body":{}"#, "`key` is empty"),
            (r#""key":[],"id":"w","body":{}"#, "`key` is empty"),
            (r#""key":"a\u0000","id":"w","body":{}"#, "holds NUL"),
            (r#""key":7,"id":"w","body":{}"#, "`key` must be a string or an array"),
            (r#""key":"k","id":"w","body":[]"#, "`body` must be a JSON object"),
            (r#""key":"k","id":"w","body":{},"occurred_at":"2026-11-21T02:00:00""#, "RFC 3339"),
            (r#""key":"k","id":"w","body":{},"occurred_at":5"#, "invalid type"),
            (r#""key":"k","id":"w","body":{"a":}"#, "expected value"),
        ];
        for (members, reason) in table {
            let error = Write::parse(line(members).as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{members}: {error}");
        }
        for text in [&b"\xff"[..], b"", b"[]", b"{} {}", b"{\"entity\":\"a.b\"}"] {
            assert!(Write::parse(text).is_err(), "{text:?}");
        }
    }
}
