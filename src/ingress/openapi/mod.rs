//! The API as `OpenAPI` 3.1, made from what the code and the catalogue know.
//!
//! Owns: the document, and that it is made anew when the catalogue is. With entities it names each
//! of them, its key and its columns; without, it has the general form of a path.
//! Never: asks the database, or says what no code does: schemas come from the types that are sent.

mod columns;
mod paths;
mod process;
mod responses;
mod target;

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::core::entity::Entities;
use crate::wire::OutcomeBody;
use crate::wire::line::Form;

use super::answer::Pending;
use super::problem::{Fault, Problem};
use super::routes::NoOutcome;

use target::Target;

const ABOUT: &str = "\
Writes over HTTP, each applied exactly once to a row of PostgreSQL, those of one key in the order \
in which they were accepted. A write is published to the broker first; `2xx` and `202` are \
answered only after the broker confirmed it, and then it is never lost.\n\n\
Name every write with an `Idempotency-Key` of your own: sent again, it gets the stored outcome \
and changes nothing. What goes wrong is `application/problem+json` (RFC 9457), its `code` \
explained under `/problems/{code}`.";

/// The schemas of what is sent and received.
#[derive(OpenApi)]
#[openapi(components(schemas(OutcomeBody, Pending, Problem, Fault, NoOutcome, Form<'static>)))]
struct Schemas;

/// The document for these entities; without any, in its general form.
pub fn document(entities: &Entities) -> Value {
    let general = [Target::general()];
    let named: Vec<Target> = entities.values().map(|entity| Target::of(entity)).collect();
    let targets = if named.is_empty() { general.as_slice() } else { named.as_slice() };
    let known: Vec<&str> = entities.keys().map(String::as_str).collect();

    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    let mut schemas = schemas.map(std::mem::take).unwrap_or_default();
    schemas.extend(targets.iter().flat_map(Target::schemas));
    let mut calls = Map::new();
    calls.extend(targets.iter().flat_map(paths::of_rows));
    calls.extend(paths::of_writes(&known));
    calls.extend(process::of_the_process());
    let mut tags: Vec<Value> = targets.iter().map(Target::tag).collect();
    tags.push(json!({"name": "writes", "description": "Many writes, and what became of one"}));
    tags.push(
        json!({"name": "process", "description": "Health, metrics and documents; open to all"}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "keylane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "security": [{"bearer": []}],
        "paths": calls,
        "components": {
            "schemas": schemas,
            "responses": responses::problems(),
            "headers": responses::headers(),
            "parameters": paths::parameters(),
            "securitySchemes": {"bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of `http.tokens_file` with the scope `write` or `read`; \
                                for the outcome of a write either will do. Without such a file `/v1` answers on loopback only, to anybody.",
            }},
        },
    })
}

/// Sets a member of an object.
fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

/// The text of the document, made once for each state of the catalogue.
#[derive(Default)]
pub(super) struct Page {
    made: Mutex<Option<(Arc<Entities>, Bytes)>>,
}

impl Page {
    /// The document for these entities.
    pub(super) fn text(&self, entities: &Arc<Entities>) -> Bytes {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((of, text)) if Arc::ptr_eq(of, entities) => text.clone(),
            _ => {
                let text = Bytes::from(document(entities).to_string());
                *made = Some((Arc::clone(entities), text.clone()));
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in the document, wherever it stands.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(elements) => elements.iter().for_each(|it| references(it, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&Entities::new());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
