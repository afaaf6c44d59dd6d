//! Sends letters again that never were a write of a key: they have no line to stand in.
//!
//! Owns: that none is marked before the broker has confirmed it. A command that is killed in
//! between sends it again; then the write id, which it has by now, makes it a repeat.

use anyhow::{Context, bail};
use futures_util::future::join_all;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection};

use super::request::skip;
use super::skipped;
use crate::core::message::{Message, NOT_TEXT, Properties, unescape};
use crate::core::write::WRITE_ID_BYTES_MAX;
use crate::operate::wake::{Wake, unconfirmed};
use crate::settings::Settings;

/// Letters that are read with their bodies and sent at once.
const AT_ONCE: usize = 20;

#[derive(FromRow)]
struct Letter {
    id: i64,
    state: String,
    routing_key: String,
    properties: Json<Value>,
    body: Vec<u8>,
}

/// Who replays what, and which entities there are.
pub(super) struct Front<'a> {
    pub(super) replay: i64,
    pub(super) actor: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) wake: &'a Wake,
}

impl Front<'_> {
    /// Sends those of `ids` that can be sent; the others are skipped with what to edit. Returns
    /// how many were sent and how many skipped.
    pub(super) async fn send(
        &self,
        connection: &mut PgConnection,
        ids: &[i64],
    ) -> anyhow::Result<(u64, u64)> {
        let (mut sent, mut passed_over) = (0, 0);
        for ids in ids.chunks(AT_ONCE) {
            let (more_sent, more_passed_over) = self.send_some(connection, ids).await?;
            sent += more_sent;
            passed_over += more_passed_over;
        }
        Ok((sent, passed_over))
    }

    async fn send_some(
        &self,
        connection: &mut PgConnection,
        ids: &[i64],
    ) -> anyhow::Result<(u64, u64)> {
        let mut tx = connection.begin().await.context("open a transaction")?;
        let letters = letters(&mut tx, ids).await.context("read dead letters")?;
        let mut passed_over: Vec<(i64, Value)> = ids
            .iter()
            .filter(|id| !letters.iter().any(|letter| letter.id == **id))
            .map(|id| (*id, skipped("gone", "it is not there any more")))
            .collect();
        let mut confirms = Vec::with_capacity(letters.len());
        for letter in letters {
            let id = letter.id;
            if letter.state != "dead" {
                let detail = format!("it is {} already", letter.state);
                passed_over.push((id, skipped(&letter.state, &detail)));
                continue;
            }
            match message(letter, |entity| self.settings.entities.contains_key(entity)) {
                Ok(message) => match self.wake.send(message).await {
                    Ok(confirm) => confirms.push(async move { (id, confirm.wait().await) }),
                    Err(error) => passed_over.push((id, skipped("too_long", &error.to_string()))),
                },
                Err(detail) => passed_over.push((id, skipped("edit_first", &detail))),
            }
        }
        let (mut sent, mut failed) = (Vec::new(), None);
        for (id, confirmed) in join_all(confirms).await {
            match unconfirmed(&confirmed) {
                None => sent.push(id),
                Some(why) => failed = Some((id, why)),
            }
        }
        self.resolve(&mut tx, &sent).await.context("mark what was sent")?;
        skip(&mut tx, self.replay, &passed_over).await.context("mark what was not sent")?;
        tx.commit().await.context("commit")?;
        if let Some((id, why)) = failed {
            bail!("dead letter {id} was not sent again: {why}");
        }
        let count = |letters: usize| u64::try_from(letters).unwrap_or(u64::MAX);
        Ok((count(sent.len()), count(passed_over.len())))
    }

    async fn resolve(&self, tx: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
        const LETTERS: &str = r#"
            update keylane.dead_letters
               set state = 'resolved', result = '{"outcome": "published"}',
                   state_changed_at = clock_timestamp(), state_changed_by = $2
             where id = any($1)"#;
        const REPLAY: &str = r#"
            update keylane.replay_letters
               set state = 'done', result = '{"outcome": "published"}'
             where replay = $1 and dead_letter = any($2)"#;
        sqlx::query(LETTERS).bind(ids).bind(self.actor).execute(&mut *tx).await?;
        sqlx::query(REPLAY).bind(self.replay).bind(ids).execute(tx).await.map(drop)
    }
}

/// Locks them: another replay of the same waits, and then finds them resolved.
async fn letters(tx: &mut PgConnection, ids: &[i64]) -> Result<Vec<Letter>, sqlx::Error> {
    const SQL: &str = "
        select id, state, routing_key, properties, body from keylane.dead_letters
         where id = any($1)
         order by id for update";
    sqlx::query_as(SQL).bind(ids).fetch_all(tx).await
}

/// The message as it was delivered, or edited since; or what must be edited before it can be sent.
fn message(letter: Letter, known: impl Fn(&str) -> bool) -> Result<Message, String> {
    let properties = Properties::restored(letter.properties.0)
        .map_err(|error| format!("its properties cannot be read: {error}"))?;
    let routing_key = unescape(&letter.routing_key);
    check(&routing_key, &properties, known)?;
    Ok(Message { routing_key, properties, body: letter.body })
}

/// What must be edited before it can be sent.
pub(super) fn check(
    routing_key: &str,
    properties: &Properties,
    known: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if routing_key.starts_with(NOT_TEXT) {
        return Err("its routing key was no text: it cannot be sent again".into());
    }
    let usable = |text: &&String| !text.starts_with(NOT_TEXT) && !text.contains('\0');
    let id = properties.message_id.as_ref().filter(usable);
    if !id.is_some_and(|id| (1..=WRITE_ID_BYTES_MAX).contains(&id.len())) {
        return Err("edit it: message_id must be a write id of 1 to 200 bytes".into());
    }
    let kind = properties.kind.as_ref().filter(usable);
    let Some((entity, _)) = kind.and_then(|kind| kind.split_once('.')) else {
        return Err("edit it: type must be `<entity>.<change>`".into());
    };
    if !known(entity) {
        return Err(format!("edit its type, or configure the entity: there is no `{entity}`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_write_is_not_sent_and_says_what_to_edit() {
        let known = |entity: &str| entity == "customer";
        let checked = |key: &str, id: &str, kind: &str| {
            let properties = Properties {
                message_id: Some(id.into()),
                kind: Some(kind.into()),
                ..Properties::default()
            };
            check(key, &properties, known)
        };
        assert_eq!(checked("k", "w", "customer.upsert"), Ok(()));
        let table = [
            ("\u{1a}ff", "w", "customer.upsert", "routing key"),
            ("k", "", "customer.upsert", "message_id"),
            ("k", "\u{1a}ff", "customer.upsert", "message_id"),
            ("k", "w", "customer", "type"),
            ("k", "w", "order.upsert", "no `order`"),
        ];
        for (key, id, kind, says) in table {
            let detail = checked(key, id, kind).unwrap_err();
            assert!(detail.contains(says), "{detail}");
        }
        assert!(check("k", &Properties::default(), known).is_err());
    }
}
