//! The form in which dead letters are exported and imported: a JSON object a line.
//!
//! Owns: that what is exported comes back byte by byte, and that nothing else is taken.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::STATES;
use super::letter::{Body, DeadLetter, Encoding, Hex, bytes};
use super::show::StoredRevision;
use crate::core::message::Properties;

/// A dead letter in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub id: i64,
    pub state: String,
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    pub fingerprint: Hex,
    pub reason: String,
    pub detail: Option<String>,
    pub pointer: Option<String>,
    pub routing_key: String,
    pub properties: Value,
    pub body_encoding: Encoding,
    pub body: String,
    pub generation: i32,
    pub partition: i32,
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub dead_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub state_changed_at: Option<OffsetDateTime>,
    pub state_changed_by: Option<String>,
    pub note: Option<String>,
    #[serde(default)]
    pub stops: bool,
    #[serde(default)]
    pub revision: i32,
    pub result: Option<Value>,
    #[serde(default)]
    pub revisions: Vec<RevisionLine>,
}

/// What it was before an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionLine {
    pub revision: i32,
    pub properties: Value,
    pub body_encoding: Encoding,
    pub body: String,
    #[serde(with = "time::serde::rfc3339")]
    pub replaced_at: OffsetDateTime,
    pub replaced_by: String,
    pub reason: String,
}

impl From<DeadLetter> for Line {
    fn from(letter: DeadLetter) -> Self {
        let (body_encoding, body) = letter.body.shown();
        Self {
            id: letter.id,
            state: letter.state,
            entity: letter.entity,
            key: letter.key,
            write_id: letter.write_id,
            fingerprint: letter.fingerprint,
            reason: letter.reason,
            detail: letter.detail,
            pointer: letter.pointer,
            routing_key: letter.routing_key,
            properties: letter.properties.0,
            body_encoding,
            body,
            generation: letter.generation,
            partition: letter.partition,
            attempts: letter.attempts,
            dead_at: letter.dead_at,
            state_changed_at: letter.state_changed_at,
            state_changed_by: letter.state_changed_by,
            note: letter.note,
            stops: letter.stops,
            revision: letter.revision,
            result: letter.result.map(|result| result.0),
            revisions: Vec::new(),
        }
    }
}

impl From<StoredRevision> for RevisionLine {
    fn from(stored: StoredRevision) -> Self {
        let (body_encoding, body) = stored.body.shown();
        Self {
            revision: stored.revision,
            properties: stored.properties.0,
            body_encoding,
            body,
            replaced_at: stored.replaced_at,
            replaced_by: stored.replaced_by,
            reason: stored.reason,
        }
    }
}

impl Line {
    /// Reads a line; the error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<(DeadLetter, Vec<StoredRevision>), String> {
        let line: Self = serde_json::from_slice(line).map_err(|error| reason(&error))?;
        line.check()?;
        line.checked()
    }

    fn check(&self) -> Result<(), String> {
        if self.id < 1 {
            return Err("id: must be 1 or more".into());
        }
        if !STATES.contains(&self.state.as_str()) {
            return Err(format!("state: must be one of {}", STATES.join(", ")));
        }
        let numbers = [
            ("generation", self.generation),
            ("partition", self.partition),
            ("attempts", self.attempts),
            ("revision", self.revision),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| *number < 0) {
            return Err(format!("{name}: must not be negative"));
        }
        match self.fingerprint.0.as_deref().map(bytes) {
            None => {}
            Some(Some(bytes)) if bytes.len() == 32 => {}
            Some(_) => return Err("fingerprint: must be 64 hexadecimal digits".into()),
        }
        let optional = [
            ("entity", &self.entity),
            ("key", &self.key),
            ("write_id", &self.write_id),
            ("detail", &self.detail),
            ("pointer", &self.pointer),
            ("state_changed_by", &self.state_changed_by),
            ("note", &self.note),
        ];
        let texts = optional.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
        let texts = texts.chain([("reason", &self.reason), ("routing_key", &self.routing_key)]);
        for (name, text) in texts {
            storable(name, text)?;
        }
        let mut numbers: Vec<i32> = self.revisions.iter().map(|one| one.revision).collect();
        numbers.dedup();
        let range = 0..self.revision;
        if numbers.len() != self.revisions.len() || !numbers.iter().all(|n| range.contains(n)) {
            return Err("revisions: must be numbered in order, below `revision`".into());
        }
        Ok(())
    }

    fn checked(self) -> Result<(DeadLetter, Vec<StoredRevision>), String> {
        let revisions = self.revisions.into_iter().map(|one| {
            storable("replaced_by", &one.replaced_by)?;
            storable("reason", &one.reason)?;
            Ok(StoredRevision {
                revision: one.revision,
                properties: properties(one.properties)?,
                body: Body::read(one.body_encoding, one.body)?,
                replaced_at: one.replaced_at,
                replaced_by: one.replaced_by,
                reason: one.reason,
            })
        });
        let revisions: Result<Vec<StoredRevision>, String> = revisions.collect();
        let letter = DeadLetter {
            id: self.id,
            state: self.state,
            entity: self.entity,
            key: self.key,
            write_id: self.write_id,
            fingerprint: self.fingerprint,
            reason: self.reason,
            detail: self.detail,
            pointer: self.pointer,
            routing_key: self.routing_key,
            properties: properties(self.properties)?,
            body: Body::read(self.body_encoding, self.body)?,
            generation: self.generation,
            partition: self.partition,
            attempts: self.attempts,
            dead_at: self.dead_at,
            state_changed_at: self.state_changed_at,
            state_changed_by: self.state_changed_by,
            note: self.note,
            stops: self.stops,
            revision: self.revision,
            result: self.result.map(Json),
        };
        Ok((letter, revisions?))
    }
}

/// What the parser says, with the place within the one line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

/// No column of PostgreSQL takes NUL.
fn storable(name: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') { Err(format!("{name}: holds NUL")) } else { Ok(()) }
}

/// Only what a message's properties can be: anything else would be lost in a replay.
fn properties(stored: Value) -> Result<Json<Value>, String> {
    let read =
        Properties::restored(stored.clone()).map_err(|error| format!("properties: {error}"))?;
    if read.stored() != stored {
        return Err("properties: holds what no message has".into());
    }
    Ok(Json(stored))
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
