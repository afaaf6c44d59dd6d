//! Says what a replay would do, as far as it can be known without doing it.
//!
//! Owns: that nothing is held and nothing is changed. What only the table can judge (constraints,
//! triggers) is not judged here.

use anyhow::{Context, anyhow};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::Duration;

use super::{Counts, Line, front};
use crate::core::batch::{BatchLimits, Item, Wanted};
use crate::core::entity::Entities;
use crate::core::message::{Message, Properties, unescape};
use crate::core::outcome::Outcome;
use crate::core::parking::ParkLimits;
use crate::core::plan::plan;
use crate::operate::dead_letters::Filter;
use crate::postgres::preview;
use crate::settings::Settings;

/// A chunk ends with a key, once it holds so many letters or bytes.
const LETTERS_MIN: usize = 200;
const BYTES_MIN: usize = 4 << 20;
/// A key with more is cut: the rest is planned onto the row as it is now.
const LETTERS_MAX: usize = 2000;
const BYTES_MAX: usize = 64 << 20;

/// A dead letter that may be replayed.
#[derive(FromRow)]
pub struct Letter {
    id: i64,
    entity: Option<String>,
    key: Option<String>,
    write_id: Option<String>,
    reason: String,
    routing_key: String,
    properties: Json<Value>,
    body: Vec<u8>,
}

/// What reads the letters that are meant, each key's together.
pub fn query(filter: &Filter, limit: Option<i64>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "select d.id, d.entity, d.key, d.write_id, d.reason, d.routing_key, d.properties, d.body
           from keylane.dead_letters d
           join (select d.id from keylane.dead_letters d where d.state = 'dead'",
    );
    filter.append(&mut query);
    query.push(" order by d.id limit ").push_bind(limit);
    query.push(") meant on meant.id = d.id order by d.entity, d.key, d.id");
    query
}

/// What would be replayed. Letters are read over one connection, rows over another.
pub struct DryRun<'a> {
    pub settings: &'a Settings,
    pub entities: &'a Entities,
    pub rows: &'a mut PgConnection,
    letters: BoxStream<'a, Result<Letter, sqlx::Error>>,
    next: Option<Letter>,
}

impl<'a> DryRun<'a> {
    /// Nothing is read yet.
    pub fn new(
        (settings, entities): (&'a Settings, &'a Entities),
        rows: &'a mut PgConnection,
        letters: &'a mut PgConnection,
        query: &'a mut QueryBuilder<Postgres>,
    ) -> Self {
        let letters = query.build_query_as::<Letter>().fetch(letters);
        Self { settings, entities, rows, letters, next: None }
    }

    /// Judges the next letters; none is the end.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Line>> {
        let (mut chunk, mut bytes) = (Vec::<Letter>::new(), 0);
        chunk.extend(self.next.take());
        while let Some(letter) = self.letters.try_next().await.context("read dead letters")? {
            let new_key = chunk.last().is_some_and(|last| {
                last.write_id.is_none()
                    || (&last.entity, &last.key) != (&letter.entity, &letter.key)
            });
            let enough = chunk.len() >= LETTERS_MIN || bytes >= BYTES_MIN;
            if (enough && new_key) || chunk.len() >= LETTERS_MAX || bytes >= BYTES_MAX {
                self.next = Some(letter);
                break;
            }
            bytes += letter.body.len();
            chunk.push(letter);
        }
        self.judge(chunk).await
    }

    async fn judge(&mut self, letters: Vec<Letter>) -> anyhow::Result<Vec<Line>> {
        let (mut lines, mut items, mut planned) = (Vec::new(), Vec::new(), Vec::new());
        for letter in letters {
            let (mut line, message) = self.begin(letter);
            match message {
                Some(Ok(message)) => {
                    planned.push(lines.len());
                    items.push(Item::new(0, message, self.entities, self.limits()));
                }
                Some(Err(detail)) => line.detail = Some(detail),
                None => {}
            }
            lines.push(line);
        }
        let loaded = preview::load(self.rows, &Wanted::of(&items)).await;
        let loaded = loaded.context("read rows as they are")?;
        let all = usize::MAX;
        let limits = ParkLimits { key_max: all, room: all, wait_max: Duration::ZERO };
        let plan = plan(&items, loaded, limits).map_err(|failure| anyhow!(failure))?;
        for (position, settled) in planned.into_iter().zip(&plan.settled) {
            if let Some(line) = lines.get_mut(position) {
                judged(line, &settled.outcome);
            }
        }
        Ok(lines)
    }

    /// A letter's line, and its message where it is to be planned.
    fn begin(&self, letter: Letter) -> (Line, Option<Result<Message, String>>) {
        let is_write = letter.write_id.is_some();
        let mut line = Line {
            dead_letter: letter.id,
            entity: letter.entity,
            key: letter.key.or_else(|| Some(letter.routing_key.clone())),
            write_id: letter.write_id,
            state: "dry_run".into(),
            outcome: Some("skipped".into()),
            effect: None,
            reason: Some("edit_first".into()),
            detail: None,
            version: None,
        };
        if letter.reason == "write_id_reused" {
            line.reason = Some(letter.reason);
            line.detail = Some("its id belongs to another write".into());
            return (line, None);
        }
        let message = Properties::restored(letter.properties.0)
            .map_err(|error| format!("its properties cannot be read: {error}"))
            .map(|properties| Message {
                routing_key: unescape(&letter.routing_key),
                properties,
                body: letter.body,
            });
        let message = message.and_then(|message| {
            if !is_write {
                let known = |entity: &str| self.settings.entities.contains_key(entity);
                front::check(&message.routing_key, &message.properties, known)?;
            }
            Ok(message)
        });
        (line, Some(message))
    }

    const fn limits(&self) -> BatchLimits {
        BatchLimits {
            writes_max: LETTERS_MAX,
            bytes_max: BYTES_MAX,
            body_bytes_max: self.settings.batch.body_bytes_max.get(),
        }
    }
}

fn judged(line: &mut Line, outcome: &Outcome) {
    let text = |text: Option<&str>| text.map(str::to_owned);
    line.outcome = Some(outcome.label().to_owned());
    line.effect = text(outcome.effect());
    line.reason = text(outcome.reason());
    line.detail = text(outcome.detail());
    line.version = outcome.version();
}

impl Counts {
    /// Counts what would become of a letter.
    pub fn add(&mut self, line: &Line) {
        self.total += 1;
        match line.outcome.as_deref() {
            Some("applied" | "precondition_failed") => self.resolved += 1,
            Some("skipped") => self.skipped += 1,
            _ => self.dead += 1,
        }
    }
}
