//! Dead letters: rejected writes with all that came with them, written with the rejection.

use sqlx::{PgConnection, PgPool};

use crate::core::batch::Item;
use crate::core::message::escape;
use crate::core::outcome::Outcome;
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;

use super::parking;

/// Writes the plan's dead letters, and what rests among them, in queue order; returns how many of
/// those that rest it took. A rejected write that is there already (delivered again) is left as it
/// is.
pub(super) async fn insert(
    connection: &mut PgConnection,
    partition: PartitionId,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<usize, sqlx::Error> {
    const SQL: &str = "
        insert into keylane.dead_letters
               (generation, partition, dead_at, entity, key, write_id, fingerprint, state, stops,
                reason, detail, pointer, routing_key, properties, body, digest)
        select $1, $2, $3, entity, key, write_id, fingerprint, state, stops, reason, detail,
               pointer, routing_key, properties, body, digest
          from unnest($4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::bool[],
                      $10::text[], $11::text[], $12::text[], $13::text[], $14::jsonb[],
                      $15::bytea[], $16::bytea[])
               with ordinality as letter (entity, key, write_id, fingerprint, state, stops, reason,
                                          detail, pointer, routing_key, properties, body, digest,
                                          place)
         order by place
            on conflict do nothing
        returning state <> 'dead'";
    let letters: Vec<(&Item, &Outcome)> = plan
        .dead_letters
        .iter()
        .filter_map(|position| Some((items.get(*position)?, &plan.settled.get(*position)?.outcome)))
        .collect();
    let identities = || letters.iter().map(|(item, _)| item.identity());
    let messages = || letters.iter().map(|(item, _)| &item.message);
    let outcomes = || letters.iter().map(|(_, outcome)| *outcome);
    let rests: Vec<bool> = sqlx::query_scalar(SQL)
        .bind(partition.generation)
        .bind(partition.partition)
        .bind(plan.now)
        .bind(identities().map(|id| id.map(|id| id.entity.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.key.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.write_id.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.fingerprint.as_slice())).collect::<Vec<_>>())
        .bind(outcomes().map(parking::state).collect::<Vec<_>>())
        .bind(
            letters.iter().map(|(item, outcome)| parking::stops(item, outcome)).collect::<Vec<_>>(),
        )
        .bind(outcomes().map(Outcome::reason).collect::<Vec<_>>())
        .bind(outcomes().map(|outcome| outcome.detail().map(parking::storable)).collect::<Vec<_>>())
        .bind(outcomes().map(Outcome::pointer).collect::<Vec<_>>())
        .bind(messages().map(|message| escape(&message.routing_key)).collect::<Vec<_>>())
        .bind(messages().map(|message| message.properties.stored()).collect::<Vec<_>>())
        .bind(messages().map(|message| message.body.as_slice()).collect::<Vec<_>>())
        .bind(letters.iter().map(|(item, _)| digest(item)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rests.into_iter().filter(|rests| *rests).count())
}

/// What a message without a name is known by.
fn digest(item: &Item) -> Option<Vec<u8>> {
    item.identity().is_none().then(|| item.message.digest().to_vec())
}

/// Open dead letters of one entity, reason and state.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Tally {
    pub entity: Option<String>,
    pub reason: String,
    pub state: String,
    pub count: i64,
    /// In seconds.
    pub oldest_age: f64,
}

/// What is open, counted.
pub async fn tally(pool: &PgPool) -> Result<Vec<Tally>, sqlx::Error> {
    const SQL: &str = "
        select entity, reason, state, count(*) as count,
               extract(epoch from clock_timestamp() - min(dead_at))::float8 as oldest_age
          from keylane.dead_letters
         where state in ('dead', 'parked', 'waiting', 'replaying')
         group by entity, reason, state";
    sqlx::query_as(SQL).fetch_all(pool).await
}
