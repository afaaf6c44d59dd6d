//! The keys of a batch of deliveries that stand still, and which of its writes rest there already.

use std::collections::HashMap;

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::core::batch::Item;
use crate::core::fingerprint::ledger_id;
use crate::core::outcome::{Outcome, Rest};
use crate::core::parking::{ByKey, Gate};
use crate::core::plan::Recorded;
use crate::core::write::Identity;

use super::{fingerprint, gate};

/// The keys among these writes that stand still, locked; and those of the writes that rest there
/// already, by ledger id. Keys are locked in the order of their bytes, as operators' commands do.
pub(in crate::postgres) async fn gates(
    connection: &mut PgConnection,
    items: &[Item],
) -> Result<(ByKey<Gate>, HashMap<Uuid, Vec<Recorded>>), sqlx::Error> {
    const GATES: &str = "
        select k.entity, k.key, k.paused, k.waits_for, k.waiting_since, k.tries, k.blocker,
               k.resting
          from keylane.parked_keys k
         where (k.entity, k.key) in (select * from unnest($1::text[], $2::text[]))
         order by k.entity collate \"C\", k.key collate \"C\"
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
