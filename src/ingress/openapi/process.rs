//! The calls about the process itself, which need no token.

use serde_json::{Value, json};

use super::responses::problem;
use super::set;

const JSON: &str = "application/json";

/// Health, metrics, documents.
pub(super) fn of_the_process() -> Vec<(String, Value)> {
    let text = |description: &str, media: &str| json!({"description": description, "content": {media: {"schema": {"type": "string"}}}});
    let plain = "text/plain";
    let open = |id: &str, summary: &str, responses: Value| {
        json!({"get": {"operationId": id, "tags": ["process"], "summary": summary,
                       "security": [], "responses": responses}})
    };
    let mut ready = open(
        "readyz",
        "Whether it can do its work",
        json!({
            "200": text("It can", plain), "503": text("A line for each thing that is missing", plain),
        }),
    );
    set(
        &mut ready,
        "parameters",
        json!([{
            "name": "verbose", "in": "query", "description": "A line for each check, whatever it found",
            "allowEmptyValue": true, "schema": {"type": "string"},
        }]),
    );
    let mut page = open(
        "problem",
        "What a code means, and what to do",
        json!({
            "200": text("Its page", "text/markdown"), "404": problem(404),
        }),
    );
    set(
        &mut page,
        "parameters",
        json!([{
            "name": "code", "in": "path", "required": true, "example": "type_mismatch",
            "description": "The `code` of a problem", "schema": {"type": "string", "minLength": 1},
        }]),
    );
    let document = json!({"200": {
        "description": "OpenAPI 3.1", "content": {JSON: {"schema": {"type": "object"}}},
    }});
    vec![
        (
            "/livez".into(),
            open(
                "livez",
                "Whether the process lives",
                json!({
                    "200": text("It does; neither broker nor database was asked", plain),
                }),
            ),
        ),
        (
            "/startupz".into(),
            open(
                "startupz",
                "Whether it has ever been ready",
                json!({
                    "200": text("It has", plain), "503": text("Not yet: what is missing", plain),
                }),
            ),
        ),
        ("/readyz".into(), ready),
        (
            "/metrics".into(),
            open(
                "metrics",
                "Metrics for Prometheus",
                json!({
                    "200": text("Text format 0.0.4", plain),
                }),
            ),
        ),
        ("/openapi.json".into(), open("openapi", "This document", document)),
        ("/problems/{code}".into(), page),
    ]
}
