//! The calls about the process itself, which need no token.

use serde_json::{Value, json};

use super::responses::problem;
use super::set;

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain";

fn text(description: &str, media: &str) -> Value {
    json!({"description": description, "content": {media: {"schema": {"type": "string"}}}})
}

fn open(id: &str, summary: &str, responses: &Value) -> Value {
    json!({"get": {"operationId": id, "tags": ["process"], "summary": summary,
                   "security": [], "responses": responses}})
}

/// Health, metrics, documents.
pub(super) fn of_the_process() -> Vec<(String, Value)> {
    let lives = json!({"200": text("It does; neither broker nor database was asked", PLAIN)});
    let started =
        json!({"200": text("It has", PLAIN), "503": text("Not yet: what is missing", PLAIN)});
    let metrics = json!({"200": text("Text format 0.0.4", PLAIN)});
    let document = json!({"200": {
        "description": "OpenAPI 3.1", "content": {JSON: {"schema": {"type": "object"}}},
    }});
    vec![
        ("/livez".into(), open("livez", "Whether the process lives", &lives)),
        ("/startupz".into(), open("startupz", "Whether it has ever been ready", &started)),
        ("/readyz".into(), readyz()),
        ("/metrics".into(), open("metrics", "Metrics for Prometheus", &metrics)),
        ("/openapi.json".into(), open("openapi", "This document", &document)),
        ("/problems/{code}".into(), problem_page()),
    ]
}

fn readyz() -> Value {
    let answers = json!({
        "200": text("It can", PLAIN), "503": text("A line for each thing that is missing", PLAIN),
    });
    let verbose = json!([{
        "name": "verbose", "in": "query", "description": "A line for each check, whatever it found",
        "allowEmptyValue": true, "schema": {"type": "string"},
    }]);
    let mut ready = open("readyz", "Whether it can do its work", &answers);
    set(&mut ready, "parameters", verbose);
    ready
}

fn problem_page() -> Value {
    let answers = json!({"200": text("Its page", "text/markdown"), "404": problem(404)});
    let code = json!([{
        "name": "code", "in": "path", "required": true, "example": "type_mismatch",
        "description": "The `code` of a problem", "schema": {"type": "string", "minLength": 1},
    }]);
    let mut page = open("problem", "What a code means, and what to do", &answers);
    set(&mut page, "parameters", code);
    page
}
