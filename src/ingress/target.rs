//! Which row a request is about: path segments, or members of the body, become the one routing key.
//!
//! Owns: the canonical form on behalf of HTTP callers: `07` in a path is the key `7`.

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::core::body::parse_members;
use crate::core::entity::Entity;
use crate::core::key::{KEY_BYTES_MAX, join};
use crate::core::outcome::{Reason, Rejection};

/// The segments of a path behind `/v1/`, decoded.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Rejection> {
    let rest = path.strip_prefix("/v1/").unwrap_or_default();
    rest.split('/')
        .map(|segment| {
            let invalid = |why| Rejection::new(Reason::KeyInvalid, why);
            if !is_encoded(segment) {
                return Err(invalid("in a path two hexadecimal digits stand behind every `%`"));
            }
            let decoded = percent_decode_str(segment).decode_utf8().map(Into::into);
            decoded.map_err(|_not_utf8| invalid("a path segment is not UTF-8 once decoded"))
        })
        .collect()
}

/// Whoever forgot to encode a `%` means another key than the one that would be read.
fn is_encoded(segment: &str) -> bool {
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    segment.split('%').skip(1).all(|behind| {
        let mut bytes = behind.as_bytes().iter();
        digit(bytes.next()) && digit(bytes.next())
    })
}

/// The routing key of these parts, each in the form that PostgreSQL prints.
pub(super) fn routing_key(entity: &Entity, parts: &[String]) -> Result<String, Rejection> {
    let invalid = |detail: String| Rejection::new(Reason::KeyInvalid, detail);
    if parts.len() != entity.key.len() {
        return Err(invalid(format!(
            "the key of {} has {} parts, and this one has {}",
            entity.name,
            entity.key.len(),
            parts.len()
        )));
    }
    let mut canonical = Vec::with_capacity(parts.len());
    for (part, column) in parts.iter().zip(&entity.key) {
        if part.is_empty() || part.contains('\0') {
            return Err(invalid(format!("key column {} is empty or holds NUL", column.name)));
        }
        let text = column.kind.canonical_key(part);
        canonical.push(text.map_err(|why| invalid(format!("key column {}: {why}", column.name)))?);
    }
    let key = join(&canonical);
    if key.len() > KEY_BYTES_MAX {
        return Err(invalid(format!("the key has {} bytes, at most {KEY_BYTES_MAX}", key.len())));
    }
    Ok(key)
}

/// The routing key of a body that names its key columns.
pub(super) fn routing_key_of(entity: &Entity, body: &[u8]) -> Result<String, Rejection> {
    let members = parse_members(body).map_err(|why| Rejection::new(Reason::MalformedBody, why))?;
    let mut parts = Vec::with_capacity(entity.key.len());
    for column in &entity.key {
        let member = members.iter().find(|(name, _)| *name == column.name);
        let part = member.and_then(|(_, value)| text(value)).ok_or_else(|| {
            let detail = format!("the body must name the key column {} with a value", column.name);
            Rejection::new(Reason::KeyInvalid, detail).at(format!("/{}", column.name))
        })?;
        parts.push(part);
    }
    routing_key(entity, &parts)
}

/// A scalar as text; `None` for null, arrays and objects.
fn text(value: &RawValue) -> Option<String> {
    let raw = value.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(raw.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::column::ColumnType;
    use crate::core::entity::Column;

    fn entity() -> Entity {
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
            sql_type: "text".into(),
            not_null: true,
            default: None,
        };
        Entity {
            name: "line".into(),
            table: "lines".into(),
            key: vec![column("order", ColumnType::Text(None)), column("n", ColumnType::Int4)],
            columns: Vec::new(),
            version: None,
            occurred_at: None,
            deleted_at: None,
            fold: true,
            user_triggers: false,
            parks: false,
        }
    }

    #[test]
    fn a_path_becomes_the_one_key_of_its_row() {
        let table = [
            ("/v1/line/a/7", Some("a/7")),
            ("/v1/line/a%2Fb/7", Some("a%2Fb/7")),
            ("/v1/line/50%25/7", Some("50%25/7")),
            ("/v1/line/a%20b/7", Some("a b/7")),
            ("/v1/line/a", None),
            ("/v1/line/a/b/7", None),
            ("/v1/line//7", None),
            ("/v1/line/%00/7", None),
            ("/v1/line/%ff/7", None),
            ("/v1/line/%zz/7", None),
            ("/v1/line/100%/7", None),
            ("/v1/line/%4/7", None),
            ("/v1/line/%4%31/7", None),
            ("/v1/line/a/seven", None),
        ];
        for (path, key) in table {
            let found = segments(path)
                .and_then(|segments| routing_key(&entity(), segments.get(1..).unwrap_or_default()));
            assert_eq!(found.ok().as_deref(), key, "{path}");
        }
    }

    #[test]
    fn a_body_names_its_key_columns() {
        let table = [
            (r#"{"order":"a/b","n":7}"#, Some("a%2Fb/7")),
            (r#"{"order":"a","n":"7"}"#, Some("a/7")),
            (r#"{"order":"a"}"#, None),
            (r#"{"order":"a","n":null}"#, None),
            (r#"{"order":"a","n":[7]}"#, None),
            ("[]", None),
        ];
        for (body, key) in table {
            let found = routing_key_of(&entity(), body.as_bytes()).ok();
            assert_eq!(found.as_deref(), key, "{body}");
        }
    }
}
