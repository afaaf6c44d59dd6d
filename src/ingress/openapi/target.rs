//! Whose rows a call is about: one entity's, or any one's.

use serde_json::{Value, json};

use crate::core::entity::Entity;

use super::columns;

/// What differs from entity to entity.
pub(super) struct Target {
    /// `customer`, or `row` in general.
    pub name: String,
    /// `/v1/customer` or `/v1/{entity}`.
    pub collection: String,
    /// `/v1/customer/{external_id}` or `/v1/{entity}/{key}`.
    pub row: String,
    /// Parameters of the collection's path.
    pub collection_parameters: Vec<Value>,
    /// Parameters of the row's path.
    pub row_parameters: Vec<Value>,
    /// Whether rows have versions, and a time that newer writes must not go behind.
    pub versions: bool,
    pub times: bool,
    /// Whether the name of an entity may be wrong.
    pub any: bool,
    schemas: [(&'static str, Value); 4],
}

impl Target {
    /// An entity, as the catalogue describes it.
    pub(super) fn of(entity: &Entity) -> Self {
        let collection = format!("/v1/{}", entity.name);
        let segments = entity.key.iter().map(|column| format!("/{{{}}}", column.name));
        let parameters = entity.key.iter().map(|column| {
            json!({
                "name": column.name, "in": "path", "required": true,
                "description": "Part of the business key, percent-encoded",
                "schema": columns::key(column),
            })
        });
        Self {
            name: entity.name.clone(),
            row: collection.clone() + &segments.collect::<String>(),
            collection,
            collection_parameters: Vec::new(),
            row_parameters: parameters.collect(),
            versions: entity.version.is_some(),
            times: entity.occurred_at.is_some(),
            any: false,
            schemas: [
                ("body", columns::body(entity, false)),
                ("body_with_key", columns::body(entity, true)),
                ("increments", columns::sums(entity)),
                ("row", columns::row(entity)),
            ],
        }
    }

    /// Any entity.
    pub(super) fn general() -> Self {
        let entity = json!({
            "name": "entity", "in": "path", "required": true,
            "description": "A configured entity", "example": "customer",
            "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        });
        let key = json!({
            "name": "key", "in": "path", "required": true, "example": "CUST-4892",
            "description": "The business key, percent-encoded. The parts of a composite key are \
                            segments of their own: `/v1/order_line/ORD-1/7`",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        });
        let object = |description: &str| json!({"type": "object", "description": description});
        Self {
            name: "row".to_owned(),
            collection: "/v1/{entity}".to_owned(),
            row: "/v1/{entity}/{key}".to_owned(),
            collection_parameters: vec![entity.clone()],
            row_parameters: vec![entity, key],
            versions: true,
            times: true,
            any: true,
            schemas: [
                ("body", object("Columns and their values")),
                ("body_with_key", object("Columns and their values, those of the key included")),
                ("increments", object("Numbers to add to their columns")),
                ("row", object("Columns and their values")),
            ],
        }
    }

    /// The name of one of its schemas.
    pub(super) fn schema(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }

    /// A reference to one of its schemas.
    pub(super) fn reference(&self, kind: &str) -> Value {
        json!({"$ref": format!("#/components/schemas/{}", self.schema(kind))})
    }

    /// Its schemas, by name.
    pub(super) fn schemas(&self) -> impl Iterator<Item = (String, Value)> {
        self.schemas.iter().map(|(kind, schema)| (self.schema(kind), schema.clone()))
    }

    /// Its group of calls.
    pub(super) fn tag(&self) -> Value {
        json!({"name": self.name, "description": format!("Rows under `{}`", self.collection)})
    }
}
