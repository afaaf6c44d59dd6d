//! Dead letters: rejected writes with all that came with them, written with the rejection.

use sqlx::{PgConnection, PgPool};

use crate::core::batch::Item;
use crate::core::message::escape;
use crate::core::outcome::Outcome;
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;

/// Writes the plan's dead letters. One that is there already (the same write, delivered again) is
/// left as it is.
pub(super) async fn insert(
    connection: &mut PgConnection,
    partition: PartitionId,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.dead_letters
               (generation, partition, dead_at, entity, key, write_id, fingerprint, reason, detail,
                pointer, routing_key, properties, body)
        select $1, $2, $3, letter.*
          from unnest($4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[],
                      $10::text[], $11::text[], $12::jsonb[], $13::bytea[]) as letter
        on conflict do nothing";
    let letters: Vec<_> = plan
        .dead_letters
        .iter()
        .filter_map(|position| {
            let item = items.get(*position)?;
            match &plan.settled.get(*position)?.outcome {
                Outcome::Rejected(rejection) => Some((item, item.identity(), rejection)),
                Outcome::Applied { .. } | Outcome::PreconditionFailed { .. } => None,
            }
        })
        .collect();
    let identities = || letters.iter().map(|(_, identity, _)| *identity);
    let messages = || letters.iter().map(|(item, _, _)| &item.message);
    let rejections = || letters.iter().map(|(_, _, rejection)| *rejection);
    sqlx::query(SQL)
        .bind(partition.generation)
        .bind(partition.partition)
        .bind(plan.now)
        .bind(identities().map(|id| id.map(|id| id.entity.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.key.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.write_id.as_str())).collect::<Vec<_>>())
        .bind(identities().map(|id| id.map(|id| id.fingerprint.as_slice())).collect::<Vec<_>>())
        .bind(rejections().map(|rejection| rejection.reason.label()).collect::<Vec<_>>())
        .bind(
            rejections()
                .map(|rejection| rejection.detail.replace('\0', "\\x00"))
                .collect::<Vec<_>>(),
        )
        .bind(rejections().map(|rejection| rejection.pointer.as_deref()).collect::<Vec<_>>())
        .bind(messages().map(|message| escape(&message.routing_key)).collect::<Vec<_>>())
        .bind(messages().map(|message| message.properties.stored()).collect::<Vec<_>>())
        .bind(messages().map(|message| message.body.as_slice()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// How many dead letters wait for somebody to decide.
pub async fn count_open(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from keylane.dead_letters where state = 'dead'")
        .fetch_one(pool)
        .await
}
