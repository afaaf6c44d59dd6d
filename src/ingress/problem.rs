//! What goes wrong, as `application/problem+json` (RFC 9457).
//!
//! Owns: what is said about each code, in body and headers.

use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::outcome::{Reason, Rejection, Unmet};
use crate::wire::OutcomeBody;

use super::code::{Code, Own};
use super::headers::Condition;
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
    #[schema(schema_with = codes)]
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
    /// The methods that the path takes; sent as `Allow`.
    #[serde(skip)]
    pub allow: Option<&'static str>,
    /// How to identify oneself; sent as `WWW-Authenticate`.
    #[serde(skip)]
    pub challenge: Option<&'static str>,
}

fn codes() -> utoipa::openapi::Object {
    crate::wire::schemas::labels(Code::all().map(Code::label))
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
    /// A problem with this code. One of status 503 may pass by itself: nothing was accepted.
    pub fn new(code: impl Into<Code>, detail: impl Into<String>) -> Self {
        let code = code.into();
        let (label, status) = (code.label(), code.status());
        Self {
            kind: format!("/problems/{label}"),
            title: title(label),
            status: status.as_u16(),
            detail: detail.into(),
            code: label,
            write_id: None,
            trace_id: None,
            errors: Vec::new(),
            outcome: None,
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S),
            allow: None,
            challenge: None,
        }
    }

    /// A write that can never be applied as it is.
    pub fn rejected(rejection: &Rejection) -> Self {
        let Rejection { reason, detail, pointer } = rejection;
        let mut problem = Self::new(*reason, detail.clone());
        problem.errors = faults(pointer.as_deref(), detail);
        problem
    }

    /// A write that was not accepted.
    pub fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => Self::rejected(rejection),
            Refusal::NotAccepted(why) => Self::new(Own::BrokerUnavailable, why.clone()),
            Refusal::Busy => Self::new(Own::Busy, "as many requests are in hand as may be"),
        }
    }

    /// A stored outcome that is no success, of a write with this precondition.
    pub fn of_outcome(outcome: &OutcomeBody, condition: &Condition) -> Self {
        let label = outcome.reason.as_deref().unwrap_or_default();
        let code = match (Reason::from_label(label), Unmet::from_label(label)) {
            (Some(reason), _) => Code::from(reason),
            (None, Some(unmet)) => Code::from(unmet),
            (None, None) => Code::from(Own::Internal),
        };
        let in_words = || in_words(code, outcome.version, condition);
        let detail = outcome.detail.clone().unwrap_or_else(in_words);
        let mut problem = Self::new(code, detail.clone());
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

/// What an unmet condition says of the row.
fn in_words(code: Code, version: Option<i64>, condition: &Condition) -> String {
    match (code, version) {
        (Code::Unmet(Unmet::VersionMismatch), Some(version)) => {
            format!("the row is at version {version}")
        }
        (Code::Unmet(Unmet::OlderThanRow), _) => "the row has seen a newer write".to_owned(),
        (Code::Unmet(Unmet::AlreadyExists), _) => "the row is there already".to_owned(),
        // Of a row without versions that is all that can be said.
        (Code::Unmet(Unmet::VersionMismatch), None) if *condition == Condition::Absent => {
            "the row is there already".to_owned()
        }
        (Code::Unmet(Unmet::VersionMismatch | Unmet::NotFound), _) => {
            "there is no row with this key".to_owned()
        }
        _ => title(code.label()),
    }
}

/// A code in words.
pub(super) fn title(code: &str) -> String {
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
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
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
