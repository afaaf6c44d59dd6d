//! What goes wrong, as `application/problem+json` (RFC 9457).
//!
//! Owns: the status of each code. Codes are the reasons of outcomes, and a few of HTTP's own; each
//! has its section in docs/PROBLEMS.md.

use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::outcome::{Reason, Rejection, Unmet};
use crate::wire::OutcomeBody;

use super::submit::Refusal;

/// Seconds after which a request that was not accepted may be sent again.
const RETRY_AFTER_S: u64 = 1;

/// A problem, as the caller gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Where the code is explained.
    #[serde(rename = "type")]
    #[schema(example = "/problems/type_mismatch")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong with this very request.
    pub detail: String,
    /// The stable name of what is wrong.
    #[schema(example = "type_mismatch")]
    pub code: &'static str,
    /// The write, where it has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_id: Option<String>,
    /// The trace in which this happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Members of the body to blame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// The stored outcome, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeBody>,
    /// Seconds after which the same request may succeed; sent as `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

/// A member of the body to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901).
    #[schema(example = "/email")]
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    /// A problem with one of HTTP's own codes.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{code}"),
            title: title(code),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            write_id: None,
            trace_id: None,
            errors: Vec::new(),
            outcome: None,
            retry_after: None,
        }
    }

    /// A write that can never be applied as it is.
    pub fn rejected(rejection: &Rejection) -> Self {
        let Rejection { reason, detail, pointer } = rejection;
        let mut problem = Self::new(status(*reason), reason.label(), detail.clone());
        problem.errors = faults(pointer.as_deref(), detail);
        problem
    }

    /// A write that was not accepted.
    pub fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => Self::rejected(rejection),
            Refusal::NotAccepted(why) => Self::later("broker_unavailable", why.clone()),
            Refusal::Busy => Self::later("busy", "as many requests are in hand as may be"),
        }
    }

    /// Nothing was accepted; the same request may succeed later.
    pub fn later(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after = Some(RETRY_AFTER_S);
        problem
    }

    /// A stored outcome that is no success.
    pub fn of_outcome(outcome: &OutcomeBody) -> Self {
        let label = outcome.reason.as_deref().unwrap_or_default();
        let (status, code) = match (Reason::from_label(label), Unmet::from_label(label)) {
            (Some(reason), _) => (status(reason), reason.label()),
            (None, Some(unmet)) => (StatusCode::PRECONDITION_FAILED, unmet.label()),
            (None, None) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let detail = outcome.detail.clone().unwrap_or_else(|| title(code));
        let mut problem = Self::new(status, code, detail.clone());
        problem.write_id.clone_from(&outcome.write_id);
        problem.errors = faults(outcome.pointer.as_deref(), &detail);
        problem.outcome = Some(outcome.clone());
        problem
    }

    /// The same, for a write with this name.
    #[must_use]
    pub fn of_write(mut self, write_id: &str) -> Self {
        self.write_id = Some(write_id.to_owned());
        self
    }
}

fn faults(pointer: Option<&str>, detail: &str) -> Vec<Fault> {
    let fault = |pointer: &str| Fault { pointer: pointer.to_owned(), detail: detail.to_owned() };
    pointer.map(fault).into_iter().collect()
}

/// The status of a rejection, whichever side noticed it.
pub const fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::MalformedBody | Reason::MissingWriteId | Reason::MissingType => {
            StatusCode::BAD_REQUEST
        }
        Reason::UnknownEntity => StatusCode::NOT_FOUND,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::UnknownChange
        | Reason::KeyInvalid
        | Reason::KeyMismatch
        | Reason::UnknownColumn
        | Reason::TypeMismatch
        | Reason::ConstraintViolation
        | Reason::UnsupportedGuard
        | Reason::WriteIdReused
        | Reason::RedeliveredTooOften
        | Reason::Discarded => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// A code in words.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(outcome) = &self.outcome {
            if let Some(version) = outcome.version {
                insert(headers, ETAG, &format!("\"{version}\""));
            }
            if outcome.replayed {
                insert(headers, super::answer::REPLAYED, "true");
            }
        }
        response
    }
}

fn insert(headers: &mut axum::http::HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_status_that_the_contract_names() {
        for reason in Reason::ALL {
            let expected = match reason.label() {
                "malformed_body" | "missing_write_id" | "missing_type" => 400,
                "unknown_entity" => 404,
                "body_too_large" => 413,
                "unsupported_media_type" => 415,
                _ => 422,
            };
            assert_eq!(status(*reason).as_u16(), expected, "{reason}");
        }
    }

    #[test]
    fn a_problem_names_its_code_its_place_and_what_is_wrong() {
        let rejection = Rejection::new(Reason::TypeMismatch, "expects a number").at("/qty");
        let problem = Problem::rejected(&rejection).of_write("w");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "/problems/type_mismatch", "title": "Type mismatch", "status": 422,
                "detail": "expects a number", "code": "type_mismatch", "write_id": "w",
                "errors": [{"pointer": "/qty", "detail": "expects a number"}],
            })
        );
    }
}
