//! How many dead letters there are, and of what kind.

use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::Filter;

/// The dead letters of one entity, reason and state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Group {
    pub entity: Option<String>,
    pub reason: String,
    pub state: String,
    pub count: i64,
    /// Different keys among them; where they have none, different routing keys.
    pub keys: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub first_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_at: OffsetDateTime,
    /// The newest of them, to look at.
    pub sample: i64,
}

/// Counts what matches, the largest group first.
pub async fn stats(
    connection: &mut PgConnection,
    filter: &Filter,
) -> Result<Vec<Group>, sqlx::Error> {
    // Grouping by key first is several times faster than `count(distinct key)`, which sorts.
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select entity, reason, state, sum(count)::bigint as count, count(*) as keys,
                min(first_at) as first_at, max(last_at) as last_at, max(sample) as sample
           from (select d.entity, d.reason, d.state, coalesce(d.key, d.routing_key) as key,
                        count(*) as count, min(d.dead_at) as first_at, max(d.dead_at) as last_at,
                        max(d.id) as sample
                   from keylane.dead_letters d
                  where true",
    );
    filter.append(&mut query);
    query.push(
        "         group by 1, 2, 3, 4) as keys
          group by entity, reason, state
          order by count desc, entity, reason, state",
    );
    query.build_query_as().fetch_all(connection).await
}
