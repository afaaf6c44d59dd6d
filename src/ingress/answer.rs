//! What a caller is told: status, headers and body of an outcome.

use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::wire::OutcomeBody;

use super::headers::{Condition, Preferences, Return};
use super::problem::Problem;

/// Says that the answer was stored before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Which preferences were honoured.
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Seconds after which it is worth asking again.
const ASK_AGAIN_S: u64 = 1;
/// What stays as it is in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An outcome that is known; one that is no success names the trace in which it was told.
pub fn done(
    outcome: &OutcomeBody,
    condition: &Condition,
    preferences: &Preferences,
    row: Option<Vec<u8>>,
    trace_id: Option<&str>,
) -> Response {
    let status = match (outcome.outcome.as_str(), outcome.effect.as_deref()) {
        ("applied", Some("created")) => StatusCode::CREATED,
        ("applied", _) => StatusCode::OK,
        ("parked", _) => {
            let mut response = pending(
                outcome.entity.as_deref().unwrap_or_default(),
                outcome.write_id.as_deref().unwrap_or_default(),
                Some(outcome),
            );
            let headers = response.headers_mut();
            if outcome.replayed {
                insert(headers, REPLAYED, "true");
            }
            say_waited(headers, preferences);
            return response;
        }
        _ => {
            let trace_id = trace_id.map(str::to_owned);
            return Problem { trace_id, ..Problem::of_outcome(outcome, condition) }.into_response();
        }
    };
    let mut applied = Vec::new();
    let mut response = match (preferences.returns, row) {
        (Some(Return::Minimal), _) => {
            applied.push("return=minimal");
            let status = if status == StatusCode::OK { StatusCode::NO_CONTENT } else { status };
            status.into_response()
        }
        (Some(Return::Representation), Some(row)) => {
            applied.push("return=representation");
            json(status, row)
        }
        (None, _) | (Some(Return::Representation), None) => json(status, body(outcome)),
    };
    let headers = response.headers_mut();
    if let Some(version) = outcome.version {
        insert(headers, ETAG, &format!("\"{version}\""));
    }
    if outcome.replayed {
        insert(headers, REPLAYED, "true");
    }
    if preferences.wait.is_some() {
        applied.push("wait");
    }
    say_applied(headers, &applied);
    response
}

fn say_applied(headers: &mut HeaderMap, applied: &[&str]) {
    if !applied.is_empty() {
        insert(headers, APPLIED, &applied.join(", "));
    }
}

/// How the caller wishes to wait was honoured: that of one who does not, else that of one who does.
pub fn say_waited(headers: &mut HeaderMap, preferences: &Preferences) {
    match (preferences.respond_async, preferences.wait) {
        (true, _) => say_applied(headers, &["respond-async"]),
        (false, Some(_)) => say_applied(headers, &["wait"]),
        (false, None) => {}
    }
}

/// A write that is accepted, and whose outcome is not known yet.
pub fn accepted(entity: &str, write_id: &str, preferences: &Preferences) -> Response {
    let mut response = pending(entity, write_id, None);
    say_waited(response.headers_mut(), preferences);
    response
}

/// What is said of a write while its outcome is not known.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Pending {
    entity: String,
    write_id: String,
    /// What is known: nothing yet.
    #[schema(schema_with = pending_labels)]
    outcome: &'static str,
    /// Where the outcome will be.
    #[schema(example = "/v1/writes/customer/5b1f")]
    location: String,
}

fn pending_labels() -> utoipa::openapi::Object {
    crate::wire::schemas::labels(["pending"])
}

fn pending(entity: &str, write_id: &str, parked: Option<&OutcomeBody>) -> Response {
    let location = status_path(entity, write_id);
    let body = parked.map_or_else(
        || {
            let pending = Pending {
                entity: entity.to_owned(),
                write_id: write_id.to_owned(),
                outcome: "pending",
                location: location.clone(),
            };
            serde_json::to_vec(&pending).unwrap_or_default()
        },
        body,
    );
    let mut response = json(StatusCode::ACCEPTED, body);
    insert(response.headers_mut(), LOCATION, &location);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ASK_AGAIN_S));
    response
}

/// Where the outcome of a write is told.
pub fn status_path(entity: &str, write_id: &str) -> String {
    let segment = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    format!("/v1/writes/{}/{}", segment(entity), segment(write_id))
}

/// A JSON body.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn body(outcome: &OutcomeBody) -> Vec<u8> {
    serde_json::to_vec(outcome).unwrap_or_default()
}

/// Sets a header whose value is known to be printable.
pub fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
