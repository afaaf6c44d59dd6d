//! Entities and messages that the tests of the core share.

use std::sync::Arc;

use serde_json::Value;

use super::column::ColumnType;
use super::entity::{Column, Entities, Entity};
use super::message::{Message, Properties};

/// A column without a default that may be NULL.
pub(super) fn column(name: &str, kind: ColumnType) -> Column {
    let sql_type = "text".to_owned();
    Column { name: name.to_owned(), kind, sql_type, not_null: false, default: None }
}

/// `account`: key `id`, a `balance` that starts at 5, a `name` that must be given, and all guards.
pub(super) fn account() -> Entity {
    let balance = Column { default: Some("5".into()), ..column("balance", ColumnType::Int4) };
    let name = Column { not_null: true, ..column("name", ColumnType::Text(Some(4))) };
    Entity {
        name: "account".into(),
        table: "public.accounts".into(),
        key: vec![Column { not_null: true, ..column("id", ColumnType::Int4) }],
        columns: vec![balance, name],
        version: Some("version".into()),
        occurred_at: Some("seen_at".into()),
        deleted_at: None,
        fold: true,
        user_triggers: false,
        parks: false,
    }
}

pub(super) fn entities(entity: Entity) -> Entities {
    Entities::from([(entity.name.clone(), Arc::new(entity))])
}

/// A message with a fresh write id; headers are JSON.
pub(super) fn message(
    write_id: &str,
    kind: &str,
    body: &str,
    headers: &[(&str, Value)],
) -> Message {
    Message {
        routing_key: "7".into(),
        properties: Properties {
            message_id: Some(write_id.into()),
            kind: Some(kind.into()),
            content_type: Some("application/json".into()),
            headers: headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect(),
            ..Properties::default()
        },
        body: body.as_bytes().to_vec(),
    }
}
