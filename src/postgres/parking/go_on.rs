//! How keys go on after a transaction: they rest, wait, stop, or are free.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::core::batch::{Item, Source};
use crate::core::outcome::{Outcome, Rest};
use crate::core::parking::{KeyChange, KeyThen, Waiting};
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;

use super::{state, storable};

/// Stores how keys go on; after a look, also what that means for what rests behind.
pub(in crate::postgres) async fn go_on(
    connection: &mut PgConnection,
    partition: PartitionId,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<(), sqlx::Error> {
    let (before, after): (Vec<&KeyChange>, Vec<&KeyChange>) =
        plan.keys.iter().partition(|key| key.then == KeyThen::AsBefore);
    if !before.is_empty() {
        add(connection, &before).await?;
    }
    if !after.is_empty() {
        // A look has just done what was due; deliveries leave an operator's request alone.
        let looks = !items.iter().any(|item| matches!(item.source, Source::Delivery(_)));
        change(connection, partition, plan.now, looks, &after).await?;
        if looks {
            follow(connection, &after).await?;
            free(connection, &after).await?;
        }
    }
    Ok(())
}

fn names<'a>(keys: &[&'a KeyChange]) -> (Vec<&'a str>, Vec<&'a str>) {
    keys.iter().map(|key| (key.entity.as_str(), key.key.as_str())).unzip()
}

fn rested(keys: &[&KeyChange]) -> Vec<i32> {
    keys.iter().map(|key| i32::try_from(key.rested).unwrap_or(i32::MAX)).collect()
}

async fn add(connection: &mut PgConnection, keys: &[&KeyChange]) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.parked_keys k set resting = k.resting + n.rested
          from unnest($1::text[], $2::text[], $3::int[]) as n (entity, key, rested)
         where k.entity = n.entity and k.key = n.key";
    let (entities, texts) = names(keys);
    sqlx::query(SQL)
        .bind(entities)
        .bind(texts)
        .bind(rested(keys))
        .execute(connection)
        .await
        .map(drop)
}

async fn change(
    connection: &mut PgConnection,
    partition: PartitionId,
    now: OffsetDateTime,
    looks: bool,
    keys: &[&KeyChange],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.parked_keys as k
               (generation, partition, entity, key, resting, waits_for, waiting_since, tries,
                blocker, due_at)
        select $1, $2, n.entity, n.key, n.rested, n.waits_for, n.since, n.tries, n.blocker, n.due_at
          from unnest($4::text[], $5::text[], $6::int[], $7::text[], $8::timestamptz[], $9::int[],
                      $10::text[], $11::timestamptz[])
               as n (entity, key, rested, waits_for, since, tries, blocker, due_at)
         order by n.entity collate \"C\", n.key collate \"C\"
            on conflict (entity, key) do update
           set resting = k.resting + excluded.resting,
               waits_for = excluded.waits_for, waiting_since = excluded.waiting_since,
               tries = excluded.tries, blocker = excluded.blocker,
               due_at = case when $3 then excluded.due_at
                             else coalesce(k.due_at, excluded.due_at) end";
    let waiting = || {
        keys.iter().map(|key| match &key.then {
            KeyThen::Waits(waiting) => Some(waiting),
            KeyThen::AsBefore | KeyThen::Stopped | KeyThen::GoesOn => None,
        })
    };
    let due_at = keys.iter().map(|key| match &key.then {
        KeyThen::Waits(waiting) => Some(now + waiting.delay()),
        KeyThen::GoesOn => Some(now),
        KeyThen::AsBefore | KeyThen::Stopped => None,
    });
    let tries = |waiting: &Waiting| i32::try_from(waiting.tries).unwrap_or(i32::MAX);
    let (entities, texts) = names(keys);
    sqlx::query(SQL)
        .bind(partition.generation)
        .bind(partition.partition)
        .bind(looks)
        .bind(entities)
        .bind(texts)
        .bind(rested(keys))
        .bind(waiting().map(|it| it.map(|it| it.waits_for.label())).collect::<Vec<_>>())
        .bind(waiting().map(|it| it.map(|it| it.since)).collect::<Vec<_>>())
        .bind(waiting().map(|it| it.map_or(0, tries)).collect::<Vec<_>>())
        .bind(waiting().map(|it| it.map(|it| storable(&it.why))).collect::<Vec<_>>())
        .bind(due_at.collect::<Vec<Option<OffsetDateTime>>>())
        .execute(connection)
        .await
        .map(drop)
}

/// What rests behind a dead letter is `parked`, what rests behind a write that waits is `waiting`.
async fn follow(connection: &mut PgConnection, keys: &[&KeyChange]) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.dead_letters d set state = n.state, reason = n.reason
          from unnest($1::text[], $2::text[], $3::text[], $4::text[])
               as n (entity, key, state, reason)
         where d.entity = n.entity and d.key = n.key
           and d.state in ('parked', 'waiting') and d.state <> n.state";
    let rest = |key: &KeyChange| match key.then {
        KeyThen::Waits(_) => Some(Rest::BehindWaitingWrite),
        KeyThen::Stopped => Some(Rest::BehindDeadLetter),
        KeyThen::AsBefore | KeyThen::GoesOn => None,
    };
    let (keys, rests): (Vec<&KeyChange>, Vec<Rest>) =
        keys.iter().filter_map(|key| Some((*key, rest(key)?))).unzip();
    if keys.is_empty() {
        return Ok(());
    }
    let (entities, texts) = names(&keys);
    sqlx::query(SQL)
        .bind(entities)
        .bind(texts)
        .bind(rests.iter().map(|rest| state(&Outcome::Parked(*rest))).collect::<Vec<_>>())
        .bind(rests.iter().map(|rest| rest.label()).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

/// Frees the keys with nothing left in their line; one whose line begins with a dead letter is
/// not looked at again before somebody asks.
async fn free(connection: &mut PgConnection, keys: &[&KeyChange]) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        with looked_at as (
            select k.entity, k.key, k.paused,
                   (select d.state from keylane.dead_letters d
                     where d.entity = k.entity and d.key = k.key
                       and (d.state in ('parked', 'waiting', 'replaying')
                            or (d.state = 'dead' and d.stops))
                     order by d.id limit 1) as first
              from keylane.parked_keys k
              join unnest($1::text[], $2::text[]) as n (entity, key) using (entity, key)),
        freed as (
            delete from keylane.parked_keys k using looked_at l
             where k.entity = l.entity and k.key = l.key and l.first is null and not l.paused)
        update keylane.parked_keys k set due_at = null
          from looked_at l
         where k.entity = l.entity and k.key = l.key and l.first = 'dead'";
    let goes_on: Vec<&KeyChange> =
        keys.iter().copied().filter(|key| key.then == KeyThen::GoesOn).collect();
    if goes_on.is_empty() {
        return Ok(());
    }
    let (entities, texts) = names(&goes_on);
    sqlx::query(SQL).bind(entities).bind(texts).execute(connection).await.map(drop)
}
