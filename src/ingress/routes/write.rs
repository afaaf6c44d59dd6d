//! One write: the method and the headers say which, the answer is its outcome.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde_json::Value;

use crate::core::entity::Entity;
use crate::core::message::{Message, Properties};
use crate::core::outcome::{Reason, Rejection, Unmet};
use crate::http::{BodyError, TraceContext, read_body};
use crate::ingress::answer;
use crate::ingress::code::Own;
use crate::ingress::headers::{
    Condition, Preferences, Return, condition, occurred_at, plain_body, preferences, write_id,
};
use crate::ingress::problem::Problem;
use crate::ingress::submit::Sent;
use crate::ingress::target;
use crate::wire::OutcomeBody;

use super::{Call, carry_on, read};

/// The broker writes it to disk before it confirms.
const PERSISTENT: u8 = 2;

/// Takes one write and waits for its outcome as long as the caller likes.
pub(super) async fn write(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let ingress = call.ingress;
    let entities = ingress.catalogue.entities();
    let name = call.segments.first().map_or("", String::as_str);
    let entity = entities.get(name).ok_or_else(|| {
        let detail = format!("no entity `{name}` is configured");
        Problem::rejected(&Rejection::new(Reason::UnknownEntity, detail))
    })?;
    let write_id = write_id(&call.headers)?;
    let named = |problem: Problem| problem.of_write(&write_id);
    let condition = condition(&call.headers).map_err(named)?;
    plain_body(&call.headers).map_err(named)?;
    let body = bounded(call, body).await.map_err(named)?;
    let parts = call.segments.get(1..).unwrap_or_default();
    let key = if parts.is_empty() {
        target::routing_key_of(entity, &body)
    } else {
        target::routing_key(entity, parts)
    };
    let key = key.map_err(|rejection| named(Problem::rejected(&rejection)))?;
    let (change, if_version) = change(&call.method, parts.is_empty(), &condition).map_err(named)?;
    let preferences = preferences(&call.headers);
    let mut properties =
        properties(&call.headers, entity, &write_id, change, if_version).map_err(named)?;
    carry_on(call.trace.as_ref(), &mut properties);
    let message = Message { routing_key: key, properties, body };
    if condition.matches_nothing() {
        return Err(named(unmatched(call, &message).await));
    }

    let sent = ingress.submit(message).await.map_err(|why| named(Problem::refused(&why)))?;
    let outcome = match sent {
        Sent::Known(outcome) => Some(outcome),
        Sent::UnderWay(_) if preferences.respond_async => None,
        Sent::UnderWay(under_way) => ingress.outcome(under_way, wait(call, &preferences)).await,
    };
    let Some(outcome) = outcome else {
        ingress.metrics.accepted();
        return Ok(answer::accepted(&entity.name, &write_id, &preferences));
    };
    ingress.metrics.answered(&outcome);
    let row = row(call, entity, &outcome, &preferences).await;
    let trace_id = call.trace.as_ref().map(TraceContext::trace_id);
    Ok(answer::done(&outcome, &condition, &preferences, row, trace_id))
}

fn wait(call: &Call<'_>, preferences: &Preferences) -> Duration {
    let http = &call.ingress.settings.http;
    let most = Duration::from_millis(http.wait_max_ms.get().into());
    preferences.wait.map_or(Duration::from_millis(http.wait_ms.into()), |wait| wait.min(most))
}

/// The row, where the caller wants it, may read it, and nothing else has changed it since: a stored
/// answer is given without it.
async fn row(
    call: &Call<'_>,
    entity: &Entity,
    outcome: &OutcomeBody,
    preferences: &Preferences,
) -> Option<Vec<u8>> {
    let wanted = preferences.returns == Some(Return::Representation);
    let there = outcome.outcome == "applied" && outcome.effect.as_deref() != Some("deleted");
    if !wanted || !call.reads || !there || outcome.replayed {
        return None;
    }
    let found = read::find(call.ingress, entity, &outcome.key).await.ok()??;
    (found.version == outcome.version).then_some(found.json)
}

async fn bounded(call: &Call<'_>, body: Body) -> Result<Vec<u8>, Problem> {
    let most = call.ingress.body_bytes_max();
    let pause = Duration::from_millis(call.ingress.settings.http.body_timeout_ms.get().into());
    let read = read_body(body, most, pause).await.map_err(|error| match error {
        BodyError::TooLarge => {
            let detail = format!("the body has more than {most} bytes");
            Problem::rejected(&Rejection::new(Reason::BodyTooLarge, detail))
        }
        BodyError::TooSlow => Problem::new(Own::BodyTooSlow, error.to_string()),
        BodyError::Broken => Problem::new(Own::BodyIncomplete, error.to_string()),
    })?;
    Ok(read.into())
}

/// Which change it is, and its `if-version`.
fn change(
    method: &Method,
    without_key: bool,
    condition: &Condition,
) -> Result<(&'static str, Option<Value>), Problem> {
    let change = match (method.as_str(), without_key) {
        ("PATCH", _) | ("POST", true) => "upsert",
        ("PUT", _) => "replace",
        ("DELETE", _) => "delete",
        _ => "increment",
    };
    Ok(match (change, condition) {
        (change, Condition::Any) => (change, None),
        ("upsert", Condition::Absent) => ("create", None),
        ("upsert", Condition::Present) => ("update", None),
        ("delete", Condition::Absent) => {
            return Err(Problem::new(
                Own::PreconditionInvalid,
                "a delete of a row that must be absent does nothing",
            ));
        }
        (change, Condition::Absent) => (change, Some(Value::from(0))),
        (change, Condition::Present) => (change, Some(Value::from("*"))),
        (change, Condition::Version(version)) => (change, Some(Value::from(*version))),
        (change, Condition::NoVersion) => (change, Some(Value::from(i64::MAX))),
    })
}

/// What is said of a write whose ETag no row ever had: that, unless the write can never be applied
/// at all.
async fn unmatched(call: &Call<'_>, message: &Message) -> Problem {
    match call.ingress.decoded(message, Duration::ZERO).await {
        Ok(_identity) => Problem::new(Unmet::VersionMismatch, "no row ever had this ETag"),
        Err(rejection) => Problem::rejected(&rejection),
    }
}

fn properties(
    headers: &HeaderMap,
    entity: &Entity,
    write_id: &str,
    change: &str,
    if_version: Option<Value>,
) -> Result<Properties, Problem> {
    let media = headers.get(CONTENT_TYPE).map(|value| value.to_str().map(str::to_owned));
    let mut properties = Properties {
        message_id: Some(write_id.to_owned()),
        kind: Some(format!("{}.{change}", entity.name)),
        delivery_mode: Some(PERSISTENT),
        ..Properties::default()
    };
    properties.content_type = match media {
        None => Some("application/json".to_owned()),
        Some(Ok(media)) => Some(media),
        Some(Err(_)) => {
            let detail = "Content-Type holds characters that are not printable ASCII";
            let rejection = Rejection::new(Reason::UnsupportedMediaType, detail);
            return Err(Problem::rejected(&rejection));
        }
    };
    if let Some(if_version) = if_version {
        properties.headers.insert("if-version".to_owned(), if_version);
    }
    if let Some(time) = occurred_at(headers)? {
        properties.headers.insert("occurred-at".to_owned(), Value::from(time));
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_preconditions_are_changes() {
        let version = || Condition::Version(7);
        let table = [
            ("PATCH", false, Condition::Any, Some(("upsert", None))),
            ("PATCH", false, Condition::Absent, Some(("create", None))),
            ("PATCH", false, Condition::Present, Some(("update", None))),
            ("PATCH", false, version(), Some(("upsert", Some(Value::from(7))))),
            ("PUT", false, Condition::Any, Some(("replace", None))),
            ("PUT", false, Condition::Absent, Some(("replace", Some(Value::from(0))))),
            ("PUT", false, Condition::Present, Some(("replace", Some(Value::from("*"))))),
            ("DELETE", false, version(), Some(("delete", Some(Value::from(7))))),
            ("DELETE", false, Condition::Absent, None),
            ("POST", true, Condition::Any, Some(("upsert", None))),
            ("POST", true, Condition::Absent, Some(("create", None))),
            ("POST", false, Condition::Any, Some(("increment", None))),
        ];
        for (method, without_key, condition, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let found = change(&method, without_key, &condition).ok();
            assert_eq!(found, expected, "{method} {condition:?}");
        }
    }
}
