//! Keys that stand still: who they are, what rests before them, and how they go on.
//!
//! Owns: the statements on `keylane.parked_keys` that a lane makes, and on the line of a key
//! (docs/decisions/0007-parking.md). A key's row is locked before its dead letters.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::core::batch::{Item, Letter, Source};
use crate::core::fingerprint::ledger_id;
use crate::core::message::{Message, Properties, unescape};
use crate::core::outcome::{Outcome, Rest};
use crate::core::parking::{ByKey, Gate, KeyChange, KeyThen, Waiting, WaitsFor};
use crate::core::partition::PartitionId;
use crate::core::plan::{CommitPlan, Recorded};
use crate::core::write::Identity;
use crate::store::Look;

/// Keys that one look takes at most.
const KEYS_MAX: i64 = 200;

/// The lines that a look takes.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) gates: ByKey<Gate>,
    pub(super) keys: usize,
    pub(super) letters: Vec<Letter>,
    pub(super) more: bool,
}

/// Takes over the keys that somebody asked for, and locks those that are due with their lines.
pub(super) async fn take(
    connection: &mut PgConnection,
    partition: PartitionId,
    look: &Look,
) -> Result<Taken, sqlx::Error> {
    const TAKE_OVER: &str = "
        update keylane.parked_keys set generation = $1, partition = $2
         where (entity, key) in (select k.entity, k.key from keylane.parked_keys k
                                  where k.key = any($3) and (k.generation, k.partition) <> ($1, $2)
                                  order by k.entity, k.key for update skip locked)";
    const DUE: &str = "
        select entity, key, paused, waits_for, waiting_since, tries, blocker, resting
          from keylane.parked_keys
         where generation = $1 and partition = $2 and due_at <= clock_timestamp() and not paused
         order by due_at
         limit $3
           for update skip locked";
    if !look.keys.is_empty() {
        sqlx::query(TAKE_OVER)
            .bind(partition.generation)
            .bind(partition.partition)
            .bind(&look.keys)
            .execute(&mut *connection)
            .await?;
    }
    let due = sqlx::query(DUE)
        .bind(partition.generation)
        .bind(partition.partition)
        .bind(KEYS_MAX)
        .fetch_all(&mut *connection)
        .await?;
    if due.is_empty() {
        return Ok(Taken::default());
    }
    let mut taken = Taken { keys: due.len(), ..Taken::default() };
    let (mut entities, mut keys) = (Vec::new(), Vec::new());
    for row in &due {
        let (entity, key, gate) = gate(row)?;
        taken.gates.insert(&entity, &key, Gate { looked_at: true, ..gate });
        entities.push(entity);
        keys.push(key);
    }
    let letters_max = i64::try_from(look.letters_max).unwrap_or(i64::MAX);
    taken.letters = letters(connection, &entities, &keys, letters_max, look.bytes_max).await?;
    taken.more =
        taken.letters.len() >= look.letters_max || i64::try_from(taken.keys) == Ok(KEYS_MAX);
    Ok(taken)
}

/// The fronts of these lines, up to the first dead letter that stops each.
async fn letters(
    connection: &mut PgConnection,
    entities: &[String],
    keys: &[String],
    letters_max: i64,
    bytes_max: usize,
) -> Result<Vec<Letter>, sqlx::Error> {
    const SQL: &str = "
        with line as (
            select w.place, d.id,
                   sum(octet_length(d.body)) over (order by w.place, d.id) - octet_length(d.body)
                       as before
              from unnest($1::text[], $2::text[]) with ordinality as w (entity, key, place)
             cross join lateral (
                   select d.id, d.body
                     from keylane.dead_letters d
                    where d.entity = w.entity and d.key = w.key
                      and d.state in ('parked', 'waiting', 'replaying')
                      and d.id < coalesce((select min(s.id) from keylane.dead_letters s
                                            where s.entity = w.entity and s.key = w.key
                                              and s.state = 'dead' and s.stops),
                                          9223372036854775807)
                    order by d.id
                    limit $3) d
             order by w.place, d.id
             limit $3)
        select d.id, d.state <> 'replaying' as rests, d.entity, d.key, d.write_id, d.fingerprint,
               d.routing_key, d.properties, d.body
          from line join keylane.dead_letters d using (id)
         where line.before < $4
         order by line.place, d.id";
    sqlx::query(SQL)
        .bind(entities)
        .bind(keys)
        .bind(letters_max)
        .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?
        .iter()
        .map(letter)
        .collect()
}

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let (entity, write_id): (String, String) = (row.try_get("entity")?, row.try_get("write_id")?);
    let Json(properties) = row.try_get("properties")?;
    Ok(Letter {
        id: row.try_get("id")?,
        rests: row.try_get("rests")?,
        message: Message {
            routing_key: unescape(row.try_get("routing_key")?),
            properties: Properties::restored(properties)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            body: row.try_get("body")?,
        },
        identity: Identity {
            id: ledger_id(&entity, &write_id),
            key: row.try_get("key")?,
            fingerprint: fingerprint(row)?,
            entity,
            write_id,
        },
    })
}

fn fingerprint(row: &PgRow) -> Result<[u8; 32], sqlx::Error> {
    let bytes: Vec<u8> = row.try_get("fingerprint")?;
    bytes.try_into().map_err(|_bytes| {
        sqlx::Error::Decode("keylane.dead_letters.fingerprint has not 32 bytes".into())
    })
}

fn gate(row: &PgRow) -> Result<(String, String, Gate), sqlx::Error> {
    let waits_for = row.try_get::<Option<&str>, _>("waits_for")?.and_then(WaitsFor::from_label);
    let since: Option<OffsetDateTime> = row.try_get("waiting_since")?;
    let tries: i32 = row.try_get("tries")?;
    let why: Option<String> = row.try_get("blocker")?;
    let waiting = waits_for.zip(since).map(|(waits_for, since)| Waiting {
        waits_for,
        since,
        tries: u32::try_from(tries).unwrap_or(0),
        why: why.unwrap_or_default(),
    });
    let resting: i32 = row.try_get("resting")?;
    let gate = Gate {
        paused: row.try_get("paused")?,
        waiting,
        resting: usize::try_from(resting).unwrap_or(0),
        looked_at: false,
    };
    Ok((row.try_get("entity")?, row.try_get("key")?, gate))
}

/// The keys among these writes that stand still, locked; and those of the writes that rest there
/// already, by ledger id.
pub(super) async fn gates(
    connection: &mut PgConnection,
    items: &[Item],
) -> Result<(ByKey<Gate>, HashMap<Uuid, Vec<Recorded>>), sqlx::Error> {
    const GATES: &str = "
        select k.entity, k.key, k.paused, k.waits_for, k.waiting_since, k.tries, k.blocker,
               k.resting
          from keylane.parked_keys k
         where (k.entity, k.key) in (select * from unnest($1::text[], $2::text[]))
         order by k.entity, k.key
           for update";
    let names: Vec<&Identity> = items.iter().filter_map(Item::identity).collect();
    let mut gates = ByKey::default();
    let rows = sqlx::query(GATES)
        .bind(names.iter().map(|name| name.entity.as_str()).collect::<Vec<_>>())
        .bind(names.iter().map(|name| name.key.as_str()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let (entity, key, found) = gate(row)?;
        gates.insert(&entity, &key, found);
    }
    let known = if gates.is_empty() {
        HashMap::new()
    } else {
        let behind = names.into_iter().filter(|name| gates.get(&name.entity, &name.key).is_some());
        resting(connection, &behind.collect::<Vec<_>>()).await?
    };
    Ok((gates, known))
}

async fn resting(
    connection: &mut PgConnection,
    names: &[&Identity],
) -> Result<HashMap<Uuid, Vec<Recorded>>, sqlx::Error> {
    const SQL: &str = "
        select entity, key, write_id, fingerprint, reason, dead_at
          from keylane.dead_letters
         where (entity, key, write_id) in
               (select * from unnest($1::text[], $2::text[], $3::text[]))
           and state in ('parked', 'waiting')";
    let rows = sqlx::query(SQL)
        .bind(names.iter().map(|name| name.entity.as_str()).collect::<Vec<_>>())
        .bind(names.iter().map(|name| name.key.as_str()).collect::<Vec<_>>())
        .bind(names.iter().map(|name| name.write_id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut known: HashMap<Uuid, Vec<Recorded>> = HashMap::new();
    for row in &rows {
        let (entity, write_id) = (row.try_get("entity")?, row.try_get("write_id")?);
        let reason: &str = row.try_get("reason")?;
        let rest = Rest::from_label(reason).unwrap_or(Rest::BehindDeadLetter);
        known.entry(ledger_id(entity, write_id)).or_default().push(Recorded {
            key: row.try_get("key")?,
            fingerprint: fingerprint(row)?,
            outcome: Outcome::Parked(rest),
            applied_at: row.try_get("dead_at")?,
        });
    }
    Ok(known)
}

/// Stores what became of the letters of a look.
pub(super) async fn decide(
    connection: &mut PgConnection,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.dead_letters d
           set state = n.state, stops = n.stops, result = coalesce(n.result, d.result),
               reason = coalesce(n.reason, d.reason),
               detail = case when n.reason is null then d.detail else n.detail end,
               pointer = case when n.reason is null then d.pointer else n.pointer end,
               attempts = d.attempts + 1, state_changed_at = $1
          from unnest($2::bigint[], $3::text[], $4::bool[], $5::jsonb[], $6::text[], $7::text[],
                      $8::text[]) as n (id, state, stops, result, reason, detail, pointer)
         where d.id = n.id";
    let decided: Vec<(i64, &Item, &Outcome)> = plan
        .letters
        .iter()
        .filter_map(|position| {
            let item = items.get(*position)?;
            let Source::Letter { id, .. } = item.source else { return None };
            Some((id, item, &plan.settled.get(*position)?.outcome))
        })
        .collect();
    let outcomes = || decided.iter().map(|(_, _, outcome)| *outcome);
    // What was wrong stays to be read beside the outcome that replaced it.
    let open = |of: fn(&Outcome) -> Option<&str>| -> Vec<Option<String>> {
        outcomes()
            .map(|outcome| if outcome.is_final() { None } else { of(outcome).map(storable) })
            .collect()
    };
    sqlx::query(SQL)
        .bind(plan.now)
        .bind(decided.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
        .bind(outcomes().map(state).collect::<Vec<_>>())
        .bind(decided.iter().map(|(_, item, outcome)| stops(item, outcome)).collect::<Vec<_>>())
        .bind(outcomes().map(result).collect::<Vec<_>>())
        .bind(open(Outcome::reason))
        .bind(open(Outcome::detail))
        .bind(open(Outcome::pointer))
        .execute(connection)
        .await
        .map(drop)
}

/// The state of a dead letter with this outcome.
pub(super) fn state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { .. } | Outcome::PreconditionFailed { .. } => "resolved",
        Outcome::Rejected(_) => "dead",
        Outcome::Parked(rest) if rest.passes() => "waiting",
        Outcome::Parked(_) => "parked",
    }
}

/// Whether its key stands still behind it until somebody decides.
pub(super) fn stops(item: &Item, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(rejection) if item.stops_its_key(rejection.reason))
}

/// Text that PostgreSQL can hold.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\\x00")
}

fn result(outcome: &Outcome) -> Option<serde_json::Value> {
    outcome.is_final().then(|| {
        serde_json::json!({
            "outcome": outcome.label(),
            "effect": outcome.effect(),
            "reason": outcome.reason(),
            "version": outcome.version(),
        })
    })
}

/// Stores how keys go on; after a look, also what that means for what rests behind.
pub(super) async fn go_on(
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
         order by n.entity, n.key
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

/// Keys that have been due for so long that nobody seems to look; each is named at most once in
/// that time.
pub async fn overdue(
    pool: &PgPool,
    after: Duration,
    keys_max: i64,
) -> Result<Vec<String>, sqlx::Error> {
    const SQL: &str = "
        update keylane.parked_keys k set woken_at = clock_timestamp()
         where (k.entity, k.key) in (
               select entity, key from keylane.parked_keys
                where due_at < clock_timestamp() - make_interval(secs => $1)
                  and coalesce(woken_at, '-infinity')
                      < clock_timestamp() - make_interval(secs => $1)
                  and not paused
                order by due_at limit $2
                  for update skip locked)
        returning k.key";
    sqlx::query_scalar(SQL).bind(after.as_secs_f64()).bind(keys_max).fetch_all(pool).await
}

/// What stands still, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Census {
    /// Keys with a row.
    pub keys: i64,
    /// Of these: paused by an operator, waiting for a parent, waiting for a lock.
    pub paused: i64,
    pub for_parents: i64,
    pub for_locks: i64,
    /// Writes that rest.
    pub resting: i64,
}

/// Counts what stands still.
pub async fn census(pool: &PgPool) -> Result<Census, sqlx::Error> {
    const SQL: &str = "
        select count(*) as keys, count(*) filter (where paused) as paused,
               count(*) filter (where waits_for = 'parent') as for_parents,
               count(*) filter (where waits_for = 'lock') as for_locks,
               coalesce(sum(resting), 0)::bigint as resting
          from keylane.parked_keys";
    sqlx::query_as(SQL).fetch_one(pool).await
}

/// Who holds rows that keys wait for, and how many keys, the most first.
pub async fn blockers(pool: &PgPool, most: i64) -> Result<Vec<(String, i64)>, sqlx::Error> {
    const SQL: &str = "
        select coalesce(blocker, ''), count(*) from keylane.parked_keys
         where waits_for = 'lock' group by 1 order by 2 desc limit $1";
    sqlx::query_as(SQL).bind(most).fetch_all(pool).await
}
