//! What a look takes: keys that are due, and the front of each one's line.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};

use crate::core::batch::Letter;
use crate::core::fingerprint::ledger_id;
use crate::core::message::{Message, Properties, unescape};
use crate::core::parking::{ByKey, Gate};
use crate::core::partition::PartitionId;
use crate::core::write::Identity;
use crate::store::Look;

use super::{fingerprint, gate};

/// Keys that one look takes at most.
const KEYS_MAX: i64 = 200;

/// The lines that a look takes.
#[derive(Default)]
pub(in crate::postgres) struct Taken {
    pub(in crate::postgres) gates: ByKey<Gate>,
    pub(in crate::postgres) keys: usize,
    pub(in crate::postgres) letters: Vec<Letter>,
    pub(in crate::postgres) more: bool,
}

/// Takes over the keys that somebody asked for, and locks those that are due with their lines.
pub(in crate::postgres) async fn take(
    connection: &mut PgConnection,
    partition: PartitionId,
    look: &Look,
) -> Result<Taken, sqlx::Error> {
    const TAKE_OVER: &str = "
        update keylane.parked_keys set generation = $1, partition = $2
         where (entity, key) in (select k.entity, k.key from keylane.parked_keys k
                                  where k.key = any($3) and (k.generation, k.partition) <> ($1, $2)
                                  for update skip locked)";
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
