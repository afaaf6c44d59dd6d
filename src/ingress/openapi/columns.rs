//! What a column takes and what it gives, as JSON schemas.

use serde_json::{Map, Value, json};

use crate::core::column::ColumnType;
use crate::core::entity::{Column, Entity};

/// Longest routing key; no part of a key is longer.
const KEY_BYTES_MAX: usize = crate::core::key::KEY_BYTES_MAX;
const INTEGER_TEXT: &str = "^-?[0-9]+$";
const NUMBER_TEXT: &str = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const BYTES_TEXT: &str = "^\\\\x([0-9a-fA-F]{2})*$";
const TIME_TEXT: &str = "^[0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?$";
const TIMESTAMP_TEXT: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?$";

fn integer(least: i64, most: i64) -> Value {
    json!({"anyOf": [
        {"type": "integer", "minimum": least, "maximum": most},
        {"type": "string", "pattern": INTEGER_TEXT},
    ]})
}

/// What a body may hold for a value that is not null.
fn taken(kind: &ColumnType) -> Value {
    match kind {
        ColumnType::Int2 => integer(i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int4 => integer(i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int8 => integer(i64::MIN, i64::MAX),
        ColumnType::Numeric(_) => {
            json!({"anyOf": [{"type": "number"}, {"type": "string", "pattern": NUMBER_TEXT}]})
        }
        ColumnType::Float4 | ColumnType::Float8 => json!({"anyOf": [
            {"type": "number"},
            {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]},
        ]}),
        ColumnType::Text(None) => json!({"type": "string"}),
        ColumnType::Text(Some(most)) => json!({"type": "string", "maxLength": most}),
        ColumnType::Bool => json!({"type": "boolean"}),
        ColumnType::Uuid => json!({"type": "string", "format": "uuid"}),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Time(_) => json!({"type": "string", "pattern": TIME_TEXT}),
        ColumnType::Timestamp(_) => json!({"type": "string", "pattern": TIMESTAMP_TEXT}),
        ColumnType::TimestampTz(_) => json!({"type": "string", "format": "date-time"}),
        ColumnType::Json | ColumnType::Jsonb => json!({}),
        ColumnType::Bytea => json!({"type": "string", "pattern": BYTES_TEXT}),
        ColumnType::Enum(labels) => json!({"type": "string", "enum": labels}),
        ColumnType::Array(element) => {
            let element = or_null(taken(element));
            json!({"type": "array", "items": {"anyOf": [element, {"type": "array"}]}})
        }
        ColumnType::Other => json!({"type": ["string", "number", "boolean"]}),
    }
}

/// What a row may show for a value that is not null: as `to_jsonb` prints it.
fn given(kind: &ColumnType) -> Value {
    match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => json!({"type": "integer"}),
        // NaN and the infinities are strings.
        ColumnType::Numeric(_) | ColumnType::Float4 | ColumnType::Float8 => {
            json!({"type": ["number", "string"]})
        }
        ColumnType::Bool => json!({"type": "boolean"}),
        ColumnType::Array(_) => json!({"type": "array"}),
        ColumnType::Json | ColumnType::Jsonb | ColumnType::Other => json!({}),
        ColumnType::Text(_)
        | ColumnType::Uuid
        | ColumnType::Date
        | ColumnType::Time(_)
        | ColumnType::Timestamp(_)
        | ColumnType::TimestampTz(_)
        | ColumnType::Bytea
        | ColumnType::Enum(_) => json!({"type": "string"}),
    }
}

fn or_null(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return schema };
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.push(json!({"type": "null"}));
    } else if members.contains_key("enum") {
        return json!({"anyOf": [schema, {"type": "null"}]});
    } else {
        match members.get_mut("type") {
            Some(Value::Array(types)) => types.push("null".into()),
            Some(one) => *one = json!([one.take(), "null"]),
            None => {}
        }
    }
    schema
}

fn of(column: &Column, schema: Value) -> Value {
    let mut schema = if column.not_null { schema } else { or_null(schema) };
    schema["description"] = column_type(column).into();
    schema
}

fn column_type(column: &Column) -> String {
    let modifier = match &column.kind {
        ColumnType::Numeric(Some((precision, scale))) => format!("({precision},{scale})"),
        ColumnType::Text(Some(most)) => format!("({most})"),
        _ => String::new(),
    };
    let default = column.default.as_ref().map(|default| format!(", default `{default}`"));
    format!("`{}{modifier}`{}", column.sql_type, default.unwrap_or_default())
}

/// A body that names columns; `with_key`: those of the key must be among them.
pub(super) fn body(entity: &Entity, with_key: bool) -> Value {
    let mut members = Map::new();
    for column in entity.key.iter().chain(&entity.columns) {
        members.insert(column.name.clone(), of(column, taken(&column.kind)));
    }
    let mut schema = json!({
        "type": "object", "properties": members, "additionalProperties": false,
        "description": "Columns and their values. A column that is left out keeps its value, or \
                        takes its default where the row is new; those of the key, if named, \
                        equal the path.",
    });
    if with_key {
        let names: Vec<&str> = entity.key.iter().map(|column| column.name.as_str()).collect();
        schema["required"] = json!(names);
        schema["description"] = "Columns and their values; those of the key are required.".into();
    }
    schema
}

/// A body of numbers to add.
pub(super) fn sums(entity: &Entity) -> Value {
    let mut members = Map::new();
    for column in entity.columns.iter().filter(|column| column.kind.is_number()) {
        let mut schema = taken(&column.kind);
        schema["description"] = column_type(column).into();
        members.insert(column.name.clone(), schema);
    }
    for column in &entity.key {
        members.insert(column.name.clone(), of(column, taken(&column.kind)));
    }
    json!({
        "type": "object", "properties": members, "additionalProperties": false,
        "description": "Numbers to add to their columns; NULL counts as 0.",
    })
}

/// The row as it is read: also columns that no write can name.
pub(super) fn row(entity: &Entity) -> Value {
    let mut members = Map::new();
    for column in entity.key.iter().chain(&entity.columns) {
        members.insert(column.name.clone(), of(column, given(&column.kind)));
    }
    let names: Vec<&str> = entity.key.iter().map(|column| column.name.as_str()).collect();
    json!({"type": "object", "properties": members, "required": names})
}

/// A part of the key, as a path segment.
pub(super) fn key(column: &Column) -> Value {
    match &column.kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => {
            let whole = integer_range(&column.kind);
            json!({"type": "integer", "minimum": whole.0, "maximum": whole.1})
        }
        ColumnType::Text(most) => json!({
            "type": "string", "minLength": 1,
            "maxLength": most.map_or(KEY_BYTES_MAX, |most| KEY_BYTES_MAX.min(most as usize)),
        }),
        kind => taken(kind),
    }
}

const fn integer_range(kind: &ColumnType) -> (i64, i64) {
    match kind {
        ColumnType::Int2 => (i16::MIN as i64, i16::MAX as i64),
        ColumnType::Int4 => (i32::MIN as i64, i32::MAX as i64),
        _ => (i64::MIN, i64::MAX),
    }
}
