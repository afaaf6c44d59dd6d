//! Discards dead letters, and takes that back.
//!
//! Owns: that a change is done under the lock of its key where it matters to the key's line, in
//! bounded transactions, and noted.

use std::collections::BTreeMap;

use anyhow::Context;
use sqlx::{Connection, FromRow, PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::Filter;
use crate::core::fingerprint::ledger_id;
use crate::core::partition::PartitionId;
use crate::operate::actions::{self, Action};
use crate::operate::actor::Actor;
use crate::operate::requests::{self, TRIES_MAX, is_conflict};
use crate::operate::wake;
use crate::settings::Settings;

/// Dead letters that are changed in one transaction: their keys are held so long.
const LETTERS_MAX: i64 = 1000;

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nobody will replay it.
    Discard,
    /// It may be replayed after all.
    Restore,
}

impl Change {
    /// The name of the command, and of the action in the audit.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Restore => "restore",
        }
    }

    /// What was done, in one word.
    pub const fn done(self) -> &'static str {
        match self {
            Self::Discard => "discarded",
            Self::Restore => "restored",
        }
    }

    /// The state of one of them afterwards.
    pub const fn to(self) -> &'static str {
        match self {
            Self::Discard => "discarded",
            Self::Restore => "dead",
        }
    }

    /// The states in which it can be done.
    pub const fn from(self) -> &'static [&'static str] {
        match self {
            Self::Discard => &["dead", "parked", "waiting"],
            Self::Restore => &["discarded"],
        }
    }
}

/// Who wants what done to which dead letters, and why.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub change: Change,
    pub filter: &'a Filter,
    pub actor: &'a Actor,
    pub because: &'a str,
}

/// Those that match now, in a state in which it can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Matching {
    pub count: i64,
    /// The newest of them: what comes later is not meant.
    pub id_max: i64,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub count: i64,
    /// Why lanes were not told to look: they will by themselves, a little later.
    pub not_woken: Option<anyhow::Error>,
}

/// Counts those that match.
pub async fn matching(
    connection: &mut PgConnection,
    change: Change,
    filter: &Filter,
) -> Result<Matching, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select count(*) as count, coalesce(max(d.id), 0) as id_max
           from keylane.dead_letters d
          where d.state = any(",
    );
    query.push_bind(change.from()).push(")");
    filter.append(&mut query);
    query.build_query_as().fetch_one(connection).await
}

/// The states of those that are named by number.
pub async fn states(
    connection: &mut PgConnection,
    ids: &[i64],
) -> Result<BTreeMap<i64, String>, sqlx::Error> {
    const SQL: &str = "select id, state from keylane.dead_letters where id = any($1)";
    let found: Vec<(i64, String)> = sqlx::query_as(SQL).bind(ids).fetch_all(connection).await?;
    Ok(found.into_iter().collect())
}

/// Does it to all that match up to `id_max`. After an error, what was committed is noted and stays.
pub async fn run(
    connection: &mut PgConnection,
    settings: &Settings,
    order: Order<'_>,
    id_max: i64,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    let (mut after, mut noted) = (0, None);
    loop {
        let picked = pick(connection, order, after, id_max).await.context("read what is next")?;
        let Some(last) = picked.last() else { return Ok(done) };
        after = last.id;
        let mut tries = 0;
        let (mut tx, changed) = loop {
            tries += 1;
            let mut tx = connection.begin().await?;
            match change(&mut tx, order, &picked).await {
                Err(error) if tries < TRIES_MAX && is_conflict(&error) => tx.rollback().await?,
                changed => break (tx, changed),
            }
        };
        let (count, keys) = changed
            .with_context(|| format!("{} (so far: {})", order.change.label(), done.count))?;
        noted = Some(note(&mut tx, order, noted, (count, done.count + count)).await?);
        tx.commit().await.context("commit")?;
        done.count += count;
        if !keys.is_empty() && done.not_woken.is_none() {
            done.not_woken = wake::look(settings, keys).await.err();
        }
    }
}

/// One of those that match.
#[derive(Debug, FromRow)]
struct Picked {
    id: i64,
    entity: Option<String>,
    key: Option<String>,
    generation: i32,
    partition: i32,
    /// Its key's line may change with it.
    in_line: bool,
}

async fn pick(
    connection: &mut PgConnection,
    order: Order<'_>,
    after: i64,
    id_max: i64,
) -> Result<Vec<Picked>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select d.id, d.entity, d.key, d.generation, d.partition,
                d.state in ('parked', 'waiting') or d.stops as in_line
           from keylane.dead_letters d
          where d.state = any(",
    );
    query.push_bind(order.change.from());
    query.push(") and d.id > ").push_bind(after).push(" and d.id <= ").push_bind(id_max);
    order.filter.append(&mut query);
    query.push(" order by d.id limit ").push_bind(LETTERS_MAX);
    query.build_query_as().fetch_all(connection).await
}

/// Changes these; how many were still in the right state, and the keys that were held.
async fn change(
    connection: &mut PgConnection,
    order: Order<'_>,
    picked: &[Picked],
) -> Result<(i64, Vec<String>), sqlx::Error> {
    let mut keys: BTreeMap<(&str, &str), PartitionId> = BTreeMap::new();
    for one in picked.iter().filter(|one| one.in_line) {
        if let (Some(entity), Some(key)) = (&one.entity, &one.key) {
            let Picked { generation, partition, .. } = *one;
            keys.insert((entity, key), PartitionId { generation, partition });
        }
    }
    for ((entity, key), lane) in &keys {
        requests::hold(connection, entity, key, *lane).await?;
    }
    let changed = update(connection, order, picked).await?;
    if order.change == Change::Discard {
        decide(connection, order, &changed).await?;
    }
    for (entity, key) in keys.keys() {
        requests::due(connection, entity, key).await?;
    }
    let count = i64::try_from(changed.len()).unwrap_or(i64::MAX);
    Ok((count, keys.keys().map(|(_, key)| (*key).to_owned()).collect()))
}

/// One that was changed.
#[derive(Debug, FromRow)]
struct Changed {
    entity: Option<String>,
    key: Option<String>,
    write_id: Option<String>,
    fingerprint: Option<Vec<u8>>,
    was: String,
}

/// Where no key is held, a letter that came into a line meanwhile is left alone.
///
/// A write that came again once the ledger had forgotten it has another dead letter: of these only
/// one is ever open.
async fn update(
    connection: &mut PgConnection,
    order: Order<'_>,
    picked: &[Picked],
) -> Result<Vec<Changed>, sqlx::Error> {
    const SQL: &str = "
        with held as (
            select d.id, d.state from keylane.dead_letters d
             where d.id = any($1) and d.state = any($2)
               and (d.id = any($6) or d.state in ('dead', 'discarded') and not d.stops)
               and ($3 <> 'dead' or not exists (
                   select from keylane.dead_letters o
                    where o.entity = d.entity and o.key = d.key and o.write_id = d.write_id
                      and o.fingerprint = d.fingerprint and o.id <> d.id
                      and (o.state in ('dead', 'parked', 'waiting', 'replaying')
                           or o.state = 'discarded' and o.id > d.id)
                   union all
                   select from keylane.dead_letters o
                    where o.digest = d.digest and o.id <> d.id
                      and (o.state in ('dead', 'replaying')
                           or o.state = 'discarded' and o.id > d.id)))
             order by d.id
               for update)
        update keylane.dead_letters d
           set state = $3, stops = false, state_changed_at = clock_timestamp(),
               state_changed_by = $4, note = $5
          from held
         where d.id = held.id
        returning d.entity, d.key, d.write_id, d.fingerprint, held.state as was";
    sqlx::query_as(SQL)
        .bind(picked.iter().map(|one| one.id).collect::<Vec<_>>())
        .bind(order.change.from())
        .bind(order.change.to())
        .bind(order.actor.name())
        .bind(order.because)
        .bind(picked.iter().filter(|one| one.in_line).map(|one| one.id).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
}

/// What rested was not decided yet. Now it is, so that a repeat of it is not applied.
async fn decide(
    connection: &mut PgConnection,
    order: Order<'_>,
    changed: &[Changed],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.ledger (part, applied_at, outcome, reason, detail, id, entity, write_id,
                                    key, fingerprint)
        select (select max(part) from keylane.ledger_parts), clock_timestamp(), 'rejected',
               'discarded', $1, line.*
          from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[]) as line
        on conflict do nothing";
    let lines: Vec<(Uuid, &str, &str, &str, &[u8])> = changed
        .iter()
        .filter(|one| one.was != "dead")
        .filter_map(|one| {
            let (entity, write_id) = (one.entity.as_deref()?, one.write_id.as_deref()?);
            let id = ledger_id(entity, write_id);
            Some((id, entity, write_id, one.key.as_deref()?, one.fingerprint.as_deref()?))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    sqlx::query(SQL)
        .bind(format!("an operator discarded it: {}", order.because))
        .bind(lines.iter().map(|line| line.0).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.1).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.2).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.3).collect::<Vec<_>>())
        .bind(lines.iter().map(|line| line.4).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

/// One line a command, however many transactions it takes; its number.
async fn note(
    connection: &mut PgConnection,
    order: Order<'_>,
    noted: Option<i64>,
    (count, all): (i64, i64),
) -> anyhow::Result<i64> {
    let result = format!("{all} {}", order.change.done());
    if let Some(id) = noted {
        actions::extend(connection, id, count, &result).await.context("note the action")?;
        return Ok(id);
    }
    let target = match order.filter.ids.as_slice() {
        [one] => format!("dead letter {one}"),
        _ => "dead letters".to_owned(),
    };
    let action = Action {
        actor: order.actor.name(),
        action: order.change.label(),
        target: &target,
        reason: Some(order.because),
        filter: Some(serde_json::to_value(order.filter)?),
        count,
        result: &result,
    };
    actions::note(connection, &action).await.context("note the action")
}
