//! The calls: parameters, bodies, answers.

use serde_json::{Map, Value, json};

use super::responses::{header, problem};
use super::set;
use super::target::Target;

/// What a key in quotes or bare may look like: `headers::write_id` in a pattern.
const IDEMPOTENCY_KEY: &str =
    "^(\"([ !#-\\[\\]-~]|\\\\[\"\\\\]){1,200}\"|[!#-~]([ !#-~]{0,198}[!#-~])?)$";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn parameter(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Request headers, by name.
pub(super) fn parameters() -> Value {
    let header = |name: &str, description: &str, schema: Value, example: &str| {
        json!({"name": name, "in": "header", "description": description, "schema": schema,
               "example": example})
    };
    let text = || json!({"type": "string"});
    let mut id = header(
        "Idempotency-Key",
        "The write id: the same one means the same write. A quoted string (RFC 8941), or bare; \
         1 to 200 bytes",
        json!({"type": "string", "pattern": IDEMPOTENCY_KEY}),
        "\"5b1f\"",
    );
    set(&mut id, "required", true);
    json!({
        "IdempotencyKey": id,
        "IfMatch": header(
            "If-Match",
            "`*`: only if the row is there; an ETag: only onto that version",
            json!({"type": "string", "minLength": 1, "pattern": "^(\\*|\"[^\",]*\")$"}),
            "\"7\"",
        ),
        "IfNoneMatch": header(
            "If-None-Match",
            "`*`: only if the row is not there; not together with If-Match",
            json!({"type": "string", "enum": ["*"]}),
            "*",
        ),
        "IfNoneMatchTag": header(
            "If-None-Match", "ETags that the caller has: `304` if one is current", text(), "\"7\"",
        ),
        "OccurredAt": header(
            "Occurred-At",
            "Only if no newer write was applied to the row; RFC 3339 with offset, at most an \
             hour ahead",
            json!({"type": "string", "format": "date-time"}),
            "2026-11-21T02:00:00Z",
        ),
        "Prefer": header(
            "Prefer",
            "RFC 7240: `wait=N` seconds for the outcome, `respond-async`, `return=minimal`, \
             `return=representation`; others are ignored",
            text(),
            "wait=10",
        ),
        "traceparent": header(
            "traceparent", "W3C trace context, handed on with the write", text(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        "tracestate": header("tracestate", "W3C trace context", text(), "vendor=1"),
    })
}

/// `If-Match` where rows have no versions.
fn if_present() -> Value {
    json!({
        "name": "If-Match", "in": "header", "description": "`*`: only if the row is there",
        "schema": {"type": "string", "enum": ["*"]},
    })
}

fn answers(ok: Map<String, Value>, problems: &[u16]) -> Value {
    let mut answers = ok;
    answers.extend(problems.iter().map(|status| (status.to_string(), problem(*status))));
    answers.into()
}

fn outcome(description: &str, row: Option<Value>) -> Value {
    let schema = match row {
        Some(row) => json!({"anyOf": [schema("OutcomeBody"), row]}),
        None => schema("OutcomeBody"),
    };
    json!({
        "description": description,
        "headers": {
            "ETag": header("ETag"), "Idempotent-Replayed": header("Idempotent-Replayed"),
            "Preference-Applied": header("Preference-Applied"),
        },
        "content": {JSON: {"schema": schema}},
    })
}

fn accepted() -> Value {
    json!({
        "description": "Accepted, and its outcome is not known yet: it will be under `Location`",
        "headers": {
            "Location": header("Location"), "Retry-After": header("Retry-After"),
            "Idempotent-Replayed": header("Idempotent-Replayed"),
            "Preference-Applied": header("Preference-Applied"),
        },
        "content": {JSON: {"schema": {"anyOf": [schema("Pending"), schema("OutcomeBody")]}}},
    })
}

/// One write of a row.
struct WriteCall {
    verb: &'static str,
    summary: &'static str,
    description: &'static str,
    body: Option<&'static str>,
    creates: bool,
    if_absent: bool,
}

const UPSERT: WriteCall = WriteCall {
    verb: "upsert",
    summary: "Set some columns",
    description: "Creates the row if it is not there. `If-None-Match: *` makes it `create`, \
                  `If-Match: *` `update`.",
    body: Some("body"),
    creates: true,
    if_absent: true,
};
const REPLACE: WriteCall = WriteCall {
    verb: "replace",
    summary: "Set all columns",
    description: "Every column that the body does not name goes back to its default.",
    body: Some("body"),
    creates: true,
    if_absent: true,
};
const DELETE: WriteCall = WriteCall {
    verb: "delete",
    summary: "Delete the row",
    description: "`unchanged` where there is none.",
    body: None,
    creates: false,
    if_absent: false,
};
const INCREMENT: WriteCall = WriteCall {
    verb: "increment",
    summary: "Add to numbers",
    description: "Creates the row from its defaults if it is not there.",
    body: Some("increments"),
    creates: true,
    if_absent: true,
};
const POST: WriteCall = WriteCall {
    verb: "post",
    summary: "Set some columns, key in the body",
    description: "As PATCH, but the body names the columns of the key.",
    body: Some("body_with_key"),
    creates: true,
    if_absent: true,
};

impl WriteCall {
    fn operation(&self, target: &Target) -> Value {
        let mut parameters = vec![
            parameter("IdempotencyKey"),
            if target.versions { parameter("IfMatch") } else { if_present() },
        ];
        if self.if_absent {
            parameters.push(parameter("IfNoneMatch"));
        }
        if target.times {
            parameters.push(parameter("OccurredAt"));
        }
        parameters.extend(["Prefer", "traceparent", "tracestate"].map(parameter));
        let row = || Some(target.reference("row"));
        let mut ok = Map::new();
        let done = if self.creates { "Applied: updated" } else { "Applied: deleted, or unchanged" };
        ok.insert("200".into(), outcome(done, row().filter(|_| self.creates)));
        if self.creates {
            ok.insert("201".into(), outcome("Applied: created", row()));
        }
        ok.insert("202".into(), accepted());
        let minimal = "Applied, and the caller prefers `return=minimal`";
        ok.insert("204".into(), json!({
            "description": minimal,
            "headers": {"ETag": header("ETag"), "Preference-Applied": header("Preference-Applied")},
        }));
        let mut problems = vec![400, 401, 403, 408, 412, 413, 415, 422, 500, 503];
        if target.any {
            problems.push(404);
        }
        let mut operation = json!({
            "operationId": format!("{}_{}", self.verb, target.name),
            "tags": [target.name],
            "summary": self.summary,
            "description": self.description,
            "parameters": parameters,
            "responses": answers(ok, &problems),
        });
        if let Some(body) = self.body {
            set(
                &mut operation,
                "requestBody",
                json!({
                    "required": true, "content": {JSON: {"schema": target.reference(body)}},
                }),
            );
        }
        operation
    }
}

/// The calls on rows.
pub(super) fn of_rows(target: &Target) -> Vec<(String, Value)> {
    let mut ok = Map::new();
    ok.insert(
        "200".into(),
        json!({
            "description": "The row",
            "headers": {"ETag": header("ETag")},
            "content": {JSON: {"schema": target.reference("row")}},
        }),
    );
    ok.insert(
        "304".into(),
        json!({
            "description": "The caller has it already", "headers": {"ETag": header("ETag")},
        }),
    );
    let read = json!({
        "operationId": format!("read_{}", target.name),
        "tags": [target.name],
        "summary": "Read the row",
        "description": "As it is committed now: a write that waits in the queue is not in it.",
        "parameters": [parameter("IfNoneMatchTag")],
        "responses": answers(ok, &[401, 403, 404, 422, 500, 503]),
    });
    let row = json!({
        "parameters": target.row_parameters,
        "get": read,
        "patch": UPSERT.operation(target),
        "put": REPLACE.operation(target),
        "delete": DELETE.operation(target),
        "post": INCREMENT.operation(target),
    });
    let mut collection = json!({"post": POST.operation(target)});
    if !target.collection_parameters.is_empty() {
        set(&mut collection, "parameters", json!(target.collection_parameters));
    }
    vec![(target.row.clone(), row), (target.collection.clone(), collection)]
}

/// The calls on writes themselves.
pub(super) fn of_writes(names: &[&str]) -> Vec<(String, Value)> {
    vec![
        ("/v1/writes".to_owned(), json!({"post": bulk()})),
        ("/v1/writes/{entity}/{write_id}".to_owned(), json!({"get": status(names)})),
    ]
}

fn bulk() -> Value {
    let result = json!({"anyOf": [schema("OutcomeBody"), schema("NoOutcome")]});
    let line = r#"{"entity":"customer","change":"upsert","key":"CUST-4892","id":"5b1f","body":{"name":"Ada"}}"#;
    let ok = json!({
        "description": "A result an item, in the order sent and in the form of the request",
        "headers": {"Preference-Applied": header("Preference-Applied")},
        "content": {
            JSON: {"schema": {"type": "array", "items": result}},
            LINES: {"schema": {"type": "string", "description": "A result a line"},
                    "x-item-schema": result},
        },
    });
    let ok = Map::from_iter([("200".to_owned(), ok)]);
    json!({
        "operationId": "bulk",
        "tags": ["writes"],
        "summary": "Many writes",
        "description": "Streamed both ways. Items of one key are applied in the order sent; each \
                        item's `id` is its write id. What is wrong with an item is said in its \
                        result; headers that would guard or name one write are refused.",
        "parameters": [parameter("Prefer")],
        "requestBody": {"required": true, "content": {
            JSON: {"schema": {"type": "array", "items": schema("BulkItem")}},
            LINES: {"schema": {"type": "string", "description": "An item a line"},
                    "x-item-schema": schema("BulkItem"), "example": format!("{line}\n")},
        }},
        "responses": answers(ok, &[400, 401, 403, 406, 408, 415, 500, 503]),
    })
}

fn status(names: &[&str]) -> Value {
    let mut entity = json!({"type": "string"});
    if !names.is_empty() {
        set(&mut entity, "enum", json!(names));
    }
    let ok = Map::from_iter([
        (
            "200".to_owned(),
            json!({
                "description": "Its outcome, whichever; `parked` is not final",
                "headers": {"ETag": header("ETag")},
                "content": {JSON: {"schema": schema("OutcomeBody")}},
            }),
        ),
        (
            "202".to_owned(),
            json!({
                "description": "Not known: it waits in the queue, or never came",
                "headers": {"Location": header("Location"), "Retry-After": header("Retry-After")},
                "content": {JSON: {"schema": schema("Pending")}},
            }),
        ),
    ]);
    json!({
        "operationId": "outcome",
        "tags": ["writes"],
        "summary": "What became of a write",
        "parameters": [
            {"name": "entity", "in": "path", "required": true, "schema": entity,
             "description": "The entity that it was sent to"},
            {"name": "write_id", "in": "path", "required": true,
             "description": "Its Idempotency-Key, without quotes, percent-encoded",
             "schema": {"type": "string", "minLength": 1, "maxLength": 200}, "example": "5b1f"},
        ],
        "responses": answers(ok, &[400, 401, 403, 404, 500, 503]),
    })
}
