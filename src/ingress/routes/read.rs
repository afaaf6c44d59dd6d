//! Reading: a row, and what became of a write.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::core::entity::Entity;
use crate::core::fingerprint::ledger_id;
use crate::core::outcome::{Reason, Rejection};
use crate::core::write::WRITE_ID_BYTES_MAX;
use crate::ingress::Ingress;
use crate::ingress::answer;
use crate::ingress::code::Own;
use crate::ingress::headers::Preferences;
use crate::ingress::problem::Problem;
use crate::ingress::target;
use crate::postgres::reading;
use crate::wire::OutcomeBody;

use super::Call;

/// Longest wait for the database.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// A row as a caller gets it.
pub(super) struct Found {
    pub json: Vec<u8>,
    pub version: Option<i64>,
}

fn entity_of(call: &Call<'_>, name: &str) -> Result<std::sync::Arc<Entity>, Problem> {
    let entities = call.ingress.catalogue.entities();
    entities.get(name).cloned().ok_or_else(|| {
        let detail = format!("no entity `{name}` is configured");
        Problem::rejected(&Rejection::new(Reason::UnknownEntity, detail))
    })
}

/// Reads what a caller asks for. A database that hangs holds up neither the caller nor, by reads
/// that pile up, anybody else.
async fn asked<T>(
    ingress: &Ingress,
    read: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Problem> {
    let _place = ingress.places.read().ok_or_else(super::busy)?;
    let why = match timeout(ANSWER_MAX, read).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("no answer within {ANSWER_MAX:?}"),
    };
    tracing::debug!("failed to read: {why}");
    Err(Problem::new(Own::DatabaseUnavailable, "the database cannot be asked now"))
}

/// The row of a key.
pub(super) async fn row(call: &Call<'_>) -> Result<Response, Problem> {
    let name = call.segments.first().map_or("", String::as_str);
    let entity = entity_of(call, name)?;
    let parts = call.segments.get(1..).unwrap_or_default();
    let key = target::routing_key(&entity, parts);
    let key = key.map_err(|rejection| Problem::rejected(&rejection))?;
    let Some(found) = find(call.ingress, &entity, &key).await? else {
        let detail = "there is no row with this key";
        return Err(Problem::new(Own::NoSuchRow, detail));
    };
    let tag = found.version.map(|version| format!("\"{version}\""));
    let mut known = call.headers.get_all(IF_NONE_MATCH).iter().filter_map(|it| it.to_str().ok());
    let same = |tags: &str| {
        // A cache compares weakly.
        tags.trim() == "*"
            || tags.split(',').any(|other| {
                let other = other.trim();
                Some(other.strip_prefix("W/").unwrap_or(other)) == tag.as_deref()
            })
    };
    let mut response = if known.any(same) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        answer::json(StatusCode::OK, found.json)
    };
    if let Some(tag) = &tag {
        answer::insert(response.headers_mut(), ETAG, tag);
    }
    Ok(response)
}

/// Reads a row that is there and not marked as deleted.
pub(super) async fn find(
    ingress: &Ingress,
    entity: &Entity,
    key: &str,
) -> Result<Option<Found>, Problem> {
    let row = asked(ingress, reading::row(&ingress.pool, entity, key)).await?;
    Ok(row.map(|(json, version)| Found { json: json.into_bytes(), version }))
}

/// What became of a write.
pub(super) async fn outcome(
    call: &Call<'_>,
    entity: &str,
    write_id: &str,
) -> Result<Response, Problem> {
    let entity = entity_of(call, entity)?;
    if !(1..=WRITE_ID_BYTES_MAX).contains(&write_id.len()) || write_id.contains('\0') {
        let detail = "a write id has 1 to 200 bytes, and no NUL";
        return Err(Problem::rejected(&Rejection::new(Reason::MissingWriteId, detail)));
    }
    let id = ledger_id(&entity.name, write_id);
    let known = reading::outcome(&call.ingress.pool, &entity.name, write_id, id);
    match asked(call.ingress, known).await? {
        None => Ok(answer::accepted(&entity.name, write_id, &Preferences::default())),
        Some(line) => {
            let identity = crate::core::write::Identity {
                id,
                entity: entity.name.clone(),
                key: line.key.clone(),
                write_id: write_id.to_owned(),
                fingerprint: line.fingerprint,
            };
            let body = OutcomeBody::new(Some(&identity), "", &line.outcome, line.applied_at, true);
            let text = serde_json::to_vec(&body).unwrap_or_default();
            let mut response = answer::json(StatusCode::OK, text);
            if let Some(version) = body.version {
                answer::insert(response.headers_mut(), ETAG, &format!("\"{version}\""));
            }
            Ok(response)
        }
    }
}
