//! Answers that several calls share: problems by their status, and headers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::ingress::code::{Code, Own};

use super::set;

/// A reference to a header.
pub(super) fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// All headers of answers.
pub(super) fn headers() -> Value {
    let text = |description: &str, example: &str| json!({"description": description, "schema": {"type": "string"}, "example": example});
    let seconds = "Seconds after which it is worth asking again";
    json!({
        "ETag": text("The version of the row; not where the entity has none or the row is gone", "\"7\""),
        "Location": {
            "description": "Where the outcome will be", "required": true,
            "schema": {"type": "string", "format": "uri-reference"},
            "example": "/v1/writes/customer/5b1f",
        },
        "Retry-After": {
            "description": seconds, "required": true,
            "schema": {"type": "integer", "minimum": 0}, "example": 1,
        },
        "Idempotent-Replayed": {
            "description": "The outcome was stored before: this time nothing was changed",
            "schema": {"type": "string", "const": "true"},
        },
        "Preference-Applied": text("The preferences that were honoured", "wait"),
        "WWW-Authenticate": {
            "description": "How to identify oneself", "required": true,
            "schema": {"type": "string", "pattern": "^Bearer( |$)"}, "example": "Bearer",
        },
    })
}

fn headers_of(status: u16) -> Value {
    let names: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        412 => &["ETag", "Idempotent-Replayed"],
        400 | 413 | 415 | 422 => &["Idempotent-Replayed"],
        503 => &["Retry-After"],
        _ => &[],
    };
    names.iter().map(|name| ((*name).to_owned(), header(name))).collect::<Map<_, _>>().into()
}

/// A reference to the problems of a status.
pub(super) fn problem(status: u16) -> Value {
    json!({"$ref": format!("#/components/responses/{}", name(status))})
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

/// One response a status, made from the closed list of codes.
pub(super) fn problems() -> Value {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    // What a path does not take is not among its calls.
    for code in Code::all().filter(|code| *code != Code::Own(Own::MethodNotAllowed)) {
        by_status.entry(code.status().as_u16()).or_default().push(code.label());
    }
    let response = |status: u16, codes: &[&str]| {
        let names: Vec<String> =
            codes.iter().map(|code| format!("[`{code}`](/problems/{code})")).collect();
        let examples: Map<String, Value> =
            codes.iter().map(|code| ((*code).to_owned(), example(status, code))).collect();
        json!({
            "description": names.join(" · "),
            "headers": headers_of(status),
            "content": {"application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": examples,
            }},
        })
    };
    by_status
        .iter()
        .map(|(status, codes)| (name(*status), response(*status, codes)))
        .collect::<Map<_, _>>()
        .into()
}

fn example(status: u16, code: &str) -> Value {
    let mut problem = json!({
        "type": format!("/problems/{code}"), "title": crate::ingress::problem::title(code),
        "status": status, "detail": "What is wrong with this very request", "code": code,
    });
    if code == "type_mismatch" {
        let detail = "expects an integer from -2147483648 to 2147483647";
        set(&mut problem, "write_id", "5b1f");
        set(&mut problem, "detail", detail);
        set(&mut problem, "errors", json!([{"pointer": "/points", "detail": detail}]));
    }
    json!({"value": problem})
}
