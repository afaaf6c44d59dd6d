//! Changes what a dead letter asks for. Who it is stays: its identity and its fingerprint.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

use super::content::Changes;
use super::letter::DeadLetter;
use crate::core::body::parse_members;
use crate::core::message::Message;
use crate::core::outcome::Rejection;
use crate::core::write::{Change, WRITE_ID_BYTES_MAX, decode};
use crate::operate::actions::{self, Action};
use crate::operate::actor::Actor;
use crate::operate::chain;
use crate::postgres::catalogue;
use crate::settings::Settings;

/// Only these can be edited: all others are decided, or about to be.
pub const EDITABLE: [&str; 2] = ["dead", "parked"];
/// Only these have no identity yet, so that a write id may be given to them.
const WITHOUT_IDENTITY: [&str; 3] = ["missing_write_id", "missing_type", "unknown_entity"];

/// What is to be different; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    pub body: Option<Vec<u8>>,
    /// `<entity>.<change>`.
    pub kind: Option<String>,
    pub write_id: Option<String>,
}

/// A dead letter's content after an edit that may be stored.
#[derive(Debug, Clone)]
pub struct Edited {
    pub message: Message,
    /// The message's properties, as they are stored.
    pub properties: Value,
    pub changes: Changes,
}

/// Whether it can be edited at all; the error says why not.
pub fn check_state(letter: &DeadLetter) -> Result<(), String> {
    if EDITABLE.contains(&letter.state.as_str()) {
        return Ok(());
    }
    let DeadLetter { id, state, .. } = letter;
    let states = EDITABLE.join(" and ");
    Err(format!("dead letter {id} is {state}; only {states} ones can be edited"))
}

/// Checks an edit; the error says what is wrong with it.
pub fn prepare(letter: &DeadLetter, edit: Edit) -> Result<Edited, String> {
    check_state(letter)?;
    let mut message = letter
        .message()
        .map_err(|error| format!("dead letter {}: read its properties: {error}", letter.id))?;
    if let Some(kind) = edit.kind {
        check_kind(letter, &kind)?;
        message.properties.kind = Some(kind);
    }
    if let Some(write_id) = edit.write_id {
        check_write_id(letter, &write_id)?;
        message.properties.message_id = Some(write_id);
    }
    if let Some(body) = edit.body {
        message.body = body;
    }
    let properties = message.properties.stored();
    let old = (&letter.properties.0, letter.body.0.as_slice());
    let changes = Changes::between(old, (&properties, &message.body));
    if changes.is_empty() {
        return Err("nothing changed".into());
    }
    let kind = message.properties.kind.as_deref().unwrap_or_default();
    let deletes = kind.ends_with(".delete");
    if !(deletes && message.body.is_empty()) {
        parse_members(&message.body).map_err(|why| {
            format!("{why}; a write needs a JSON object (a delete may also have no body)")
        })?;
    }
    Ok(Edited { message, properties, changes })
}

fn check_kind(letter: &DeadLetter, kind: &str) -> Result<(), String> {
    let (entity, change) = kind.split_once('.').unwrap_or((kind, ""));
    if entity.is_empty() || !Change::ALL.iter().any(|known| known.label() == change) {
        let known: Vec<&str> = Change::ALL.iter().map(|known| known.label()).collect();
        return Err(format!(
            "type `{kind}` must be ENTITY.CHANGE, with CHANGE one of {}",
            known.join(", ")
        ));
    }
    match &letter.entity {
        Some(own) if own != entity => Err(format!(
            "dead letter {} is a write of entity {own}: that cannot be changed to {entity}",
            letter.id
        )),
        _ => Ok(()),
    }
}

fn check_write_id(letter: &DeadLetter, write_id: &str) -> Result<(), String> {
    if letter.write_id.is_some() || !WITHOUT_IDENTITY.contains(&letter.reason.as_str()) {
        return Err(format!(
            "a write id can be given only to a dead letter without one, whose reason is {}",
            WITHOUT_IDENTITY.join(", ")
        ));
    }
    if write_id.is_empty() || write_id.len() > WRITE_ID_BYTES_MAX || write_id.contains('\0') {
        return Err(format!("a write id has 1 to {WRITE_ID_BYTES_MAX} bytes, and no NUL"));
    }
    Ok(())
}

/// What decoding would say to a message; `Ok(Err(_))` is a rejection.
///
/// The table's own rules are not asked: they are where the row is written.
pub async fn judge(
    connection: &mut PgConnection,
    settings: &Settings,
    message: &Message,
) -> anyhow::Result<Result<(), Rejection>> {
    let kind = message.properties.kind.as_deref().unwrap_or_default();
    let name = kind.split('.').next().unwrap_or_default();
    let asked = settings.entities.get(name).map(|entity| (name.to_owned(), entity.clone()));
    let entities = catalogue::load(connection, &asked.into_iter().collect())
        .await
        .map_err(|error| anyhow::anyhow!(chain(&error)))?;
    let decoded = decode(message, &entities, settings.batch.body_bytes_max.get());
    Ok(decoded.map(drop).map_err(|refused| refused.rejection))
}

/// Stores an edit, with what was there before as a revision.
pub async fn store(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    edited: &Edited,
    (actor, because): (&Actor, &str),
) -> anyhow::Result<()> {
    const KEY: &str = "
        select from keylane.parked_keys where entity = $1 and key = $2 for update";
    const LETTER: &str = "
        select state, revision from keylane.dead_letters where id = $1 for update";
    const REVISION: &str = "
        insert into keylane.dead_letter_revisions
               (dead_letter, revision, properties, body, replaced_by, reason)
        select id, revision, properties, body, $2, $3 from keylane.dead_letters where id = $1";
    const EDIT: &str = "
        update keylane.dead_letters set properties = $2, body = $3, revision = revision + 1
         where id = $1";
    let mut tx = connection.begin().await?;
    // In the lane's order. A key without a row has no line, and needs none for this.
    if let Some((entity, key)) = letter.entity_and_key() {
        sqlx::query(KEY).bind(entity).bind(key).execute(&mut *tx).await.context("hold the key")?;
    }
    let now: Option<(String, i32)> =
        sqlx::query_as(LETTER).bind(letter.id).fetch_optional(&mut *tx).await?;
    if now != Some((letter.state.clone(), letter.revision)) {
        bail!("dead letter {} was changed meanwhile; look at it again", letter.id);
    }
    sqlx::query(REVISION)
        .bind(letter.id)
        .bind(actor.name())
        .bind(because)
        .execute(&mut *tx)
        .await
        .context("keep the revision")?;
    sqlx::query(EDIT)
        .bind(letter.id)
        .bind(Json(&edited.properties))
        .bind(&edited.message.body)
        .execute(&mut *tx)
        .await
        .context("store the edit")?;
    let revision = letter.revision.saturating_add(1);
    let action = Action {
        actor: actor.name(),
        action: "edit",
        target: &format!("dead letter {}", letter.id),
        reason: Some(because),
        filter: Some(json!({ "ids": [letter.id] })),
        count: 1,
        result: &format!("revision {revision}"),
    };
    actions::note(&mut tx, &action).await.context("note the action")?;
    tx.commit().await.context("commit")
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
