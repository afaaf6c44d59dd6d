//! Requests a portion: the keys are held, their letters become `replaying`, their lanes are told.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{Connection, FromRow, PgConnection};

use super::skipped;
use crate::operate::requests::{TRIES_MAX, is_conflict};

/// What became of a portion.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// How many letters have no result now that had none before, and are asked for.
    pub(super) requested: u64,
    /// How many turned out not to be replayable any more.
    pub(super) skipped: u64,
    /// The last of the requested.
    pub(super) highest: i64,
    /// Keys whose lanes must look.
    pub(super) keys: Vec<String>,
    /// Letters that never were a write of a key: they go through the front door.
    pub(super) front: Vec<i64>,
}

#[derive(FromRow)]
struct Letter {
    id: i64,
    there: bool,
    entity: Option<String>,
    key: Option<String>,
    /// Of a write that a lane can tell from others; one that was imported without its fingerprint
    /// is sent again.
    write_id: Option<String>,
    generation: Option<i32>,
    partition: Option<i32>,
}

/// Requests the next `limit` letters of a replay, in one transaction.
pub(super) async fn request(
    connection: &mut PgConnection,
    replay: i64,
    limit: i64,
    actor: &str,
) -> Result<Portion, sqlx::Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_request(connection, replay, limit, actor).await {
            Err(error) if tries < TRIES_MAX && is_conflict(&error) => {}
            ended => return ended,
        }
    }
}

async fn try_request(
    connection: &mut PgConnection,
    replay: i64,
    limit: i64,
    actor: &str,
) -> Result<Portion, sqlx::Error> {
    let mut tx = connection.begin().await?;
    let mut keys: BTreeMap<(String, String), (i32, i32)> = BTreeMap::new();
    let (mut ids, mut gone) = (Vec::new(), Vec::new());
    let mut portion = Portion::default();
    for letter in next(&mut tx, replay, limit).await? {
        let id = letter.id;
        match (letter.there, letter.entity, letter.key, letter.write_id) {
            (false, ..) => gone.push(id),
            (true, Some(entity), Some(key), Some(_)) => {
                let lane = letter.generation.zip(letter.partition).unwrap_or_default();
                keys.insert((entity, key), lane);
                ids.push(id);
            }
            (true, ..) => portion.front.push(id),
        }
    }
    hold(&mut tx, &keys).await?;
    let states = replaying(&mut tx, &ids, actor).await?;
    let mut requested = Vec::with_capacity(ids.len());
    let mut passed_over: Vec<(i64, Value)> =
        gone.into_iter().map(|id| (id, skipped("gone", "it is not there any more"))).collect();
    for id in ids {
        match states.get(&id) {
            Some((state, _)) if state == "replaying" => requested.push(id),
            Some((state, by)) => {
                let by = by.as_deref().unwrap_or("a lane");
                passed_over.push((id, skipped(state, &format!("it is {state} already, by {by}"))));
            }
            None => passed_over.push((id, skipped("gone", "it is not there any more"))),
        }
    }
    mark(&mut tx, replay, &requested).await?;
    skip(&mut tx, replay, &passed_over).await?;
    due(&mut tx, &keys).await?;
    tx.commit().await?;
    portion.highest = requested.last().copied().unwrap_or_default();
    portion.requested = u64::try_from(requested.len()).unwrap_or(u64::MAX);
    portion.skipped = u64::try_from(passed_over.len()).unwrap_or(u64::MAX);
    portion.keys = keys.into_keys().map(|(_, key)| key).collect();
    Ok(portion)
}

/// Another command that goes on with the same replay takes others.
async fn next(tx: &mut PgConnection, replay: i64, limit: i64) -> Result<Vec<Letter>, sqlx::Error> {
    const SQL: &str = "
        select r.dead_letter as id, d.id is not null as there, d.entity, d.key,
               case when octet_length(d.fingerprint) = 32 then d.write_id end as write_id,
               d.generation, d.partition
          from (select dead_letter from keylane.replay_letters
                 where replay = $1 and state = 'waiting'
                 order by dead_letter limit $2 for update skip locked) r
          left join keylane.dead_letters d on d.id = r.dead_letter
         order by r.dead_letter";
    sqlx::query_as(SQL).bind(replay).bind(limit).fetch_all(tx).await
}

/// As `requests::hold`, for many keys at once, in the order of entity and key.
async fn hold(
    tx: &mut PgConnection,
    keys: &BTreeMap<(String, String), (i32, i32)>,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.parked_keys (entity, key, generation, partition)
        select held.* from unnest($1::text[], $2::text[], $3::int[], $4::int[]) as held
        on conflict (entity, key) do update set key = excluded.key";
    let (entities, names): (Vec<&str>, Vec<&str>) =
        keys.keys().map(|(entity, key)| (entity.as_str(), key.as_str())).unzip();
    let (generations, partitions): (Vec<i32>, Vec<i32>) = keys.values().copied().unzip();
    let held = sqlx::query(SQL).bind(entities).bind(names).bind(generations).bind(partitions);
    held.execute(tx).await.map(drop)
}

/// As `requests::due`.
async fn due(
    tx: &mut PgConnection,
    keys: &BTreeMap<(String, String), (i32, i32)>,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.parked_keys p
           set due_at = case when p.paused then null else clock_timestamp() end, woken_at = null,
               resting = (select count(*) from keylane.dead_letters d
                           where d.entity = p.entity and d.key = p.key
                             and d.state in ('parked', 'waiting'))
          from unnest($1::text[], $2::text[]) as held (entity, key)
         where p.entity = held.entity and p.key = held.key";
    let (entities, names): (Vec<&str>, Vec<&str>) =
        keys.keys().map(|(entity, key)| (entity.as_str(), key.as_str())).unzip();
    sqlx::query(SQL).bind(entities).bind(names).execute(tx).await.map(drop)
}

/// The letters' states after those that were dead are asked for, and who brought them there.
async fn replaying(
    tx: &mut PgConnection,
    ids: &[i64],
    actor: &str,
) -> Result<BTreeMap<i64, (String, Option<String>)>, sqlx::Error> {
    const ASK: &str = "
        update keylane.dead_letters
           set state = 'replaying', state_changed_at = clock_timestamp(), state_changed_by = $2
         where id = any($1) and state = 'dead'";
    const STATES: &str =
        "select id, state, state_changed_by from keylane.dead_letters where id = any($1)";
    sqlx::query(ASK).bind(ids).bind(actor).execute(&mut *tx).await?;
    let states: Vec<(i64, String, Option<String>)> =
        sqlx::query_as(STATES).bind(ids).fetch_all(tx).await?;
    Ok(states.into_iter().map(|(id, state, by)| (id, (state, by))).collect())
}

async fn mark(tx: &mut PgConnection, replay: i64, ids: &[i64]) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.replay_letters set state = 'requested'
         where replay = $1 and dead_letter = any($2) and state = 'waiting'";
    sqlx::query(SQL).bind(replay).bind(ids).execute(tx).await.map(drop)
}

/// Notes why letters are not replayed.
pub(super) async fn skip(
    tx: &mut PgConnection,
    replay: i64,
    letters: &[(i64, Value)],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.replay_letters r set state = 'skipped', result = s.result
          from unnest($2::bigint[], $3::jsonb[]) as s (id, result)
         where r.replay = $1 and r.dead_letter = s.id and r.state in ('waiting', 'requested')";
    let (ids, results): (Vec<i64>, Vec<&Value>) =
        letters.iter().map(|(id, result)| (*id, result)).unzip();
    sqlx::query(SQL).bind(replay).bind(ids).bind(results).execute(tx).await.map(drop)
}
