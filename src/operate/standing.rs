//! Reads which keys stand still, why, and which ones are busy.

use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

/// Which standing keys are asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub entity: Option<String>,
    /// Behind this entity and key, the last of the page before.
    pub after: Option<(String, String)>,
    /// How many at most.
    pub limit: i64,
}

/// A key that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Standing {
    pub entity: String,
    pub key: String,
    /// How many of its writes rest.
    pub resting: i32,
    /// An operator paused it.
    pub paused: bool,
    /// `parent` or `lock`: it is tried again by itself.
    pub waits_for: Option<String>,
    /// How often that was in vain.
    pub tries: i32,
    /// Who holds the row, as far as the server tells.
    pub blocker: Option<String>,
    /// The dead letter that its line stands behind.
    pub behind: Option<i64>,
    /// Dead letters of it that somebody wants replayed.
    pub replaying: i64,
    /// The lane that looks at it.
    pub generation: i32,
    pub partition: i32,
    /// The worker that serves this lane.
    pub worker: Option<String>,
    /// When the lane looks at it by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

impl Standing {
    /// Why it stands still, the reason first that somebody has to do something about.
    pub fn why(&self) -> String {
        let mut why = Vec::new();
        if self.paused {
            why.push("paused".to_owned());
        }
        if let Some(id) = self.behind {
            why.push(format!("behind dead letter {id}"));
        }
        match (self.waits_for.as_deref(), &self.blocker) {
            (Some("lock"), Some(blocker)) => why.push(format!("row locked by {blocker}")),
            (Some("lock"), None) => why.push("row locked".to_owned()),
            (Some(_), _) => why.push(format!("waits for its parent, tried {} times", self.tries)),
            (None, _) => {}
        }
        if self.replaying > 0 {
            why.push(format!("{} to be replayed", self.replaying));
        }
        if why.is_empty() {
            why.push("its lane has not looked yet".to_owned());
        }
        why.join(", ")
    }
}

/// What is read of a standing key; the end of the statement says which.
macro_rules! standing_sql {
    ($end:literal) => {
        concat!(
            "select p.entity, p.key, p.resting, p.paused, p.waits_for, p.tries, p.blocker, \
                    p.generation, p.partition, p.due_at, \
                    coalesce(p.waiting_since, p.parked_at) as since, \
                    (select min(d.id) from keylane.dead_letters d \
                      where d.entity = p.entity and d.key = p.key \
                        and d.state = 'dead' and d.stops) as behind, \
                    (select count(*) from keylane.dead_letters d \
                      where d.entity = p.entity and d.key = p.key \
                        and d.state = 'replaying') as replaying, \
                    (select l.owner from keylane.partitions l where l.generation = p.generation \
                        and l.partition = p.partition and l.closed_at is null) as worker \
               from keylane.parked_keys p ",
            $end
        )
    };
}

/// The keys that stand still, by entity and key.
pub async fn list(
    connection: &mut PgConnection,
    page: &Page,
) -> Result<Vec<Standing>, sqlx::Error> {
    const SQL: &str = standing_sql!(
        "where ($1::text is null or p.entity = $1)
           and ($2::text is null or (p.entity, p.key) > ($2, $3))
         order by p.entity, p.key
         limit $4"
    );
    let (entity, key) = page.after.clone().unzip();
    sqlx::query_as(SQL)
        .bind(&page.entity)
        .bind(entity)
        .bind(key)
        .bind(page.limit)
        .fetch_all(connection)
        .await
}

/// One key, if it stands still.
pub async fn of_key(
    connection: &mut PgConnection,
    entity: &str,
    key: &str,
) -> Result<Option<Standing>, sqlx::Error> {
    const SQL: &str = standing_sql!("where p.entity = $1 and p.key = $2");
    sqlx::query_as(SQL).bind(entity).bind(key).fetch_optional(connection).await
}

/// A busy key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct HotKey {
    pub entity: String,
    pub key: String,
    /// In the last one to two minutes, at most so many.
    pub writes: i64,
    /// How many workers counted it.
    pub workers: i64,
}

/// The busiest keys, as workers counted them, the busiest first.
pub async fn hot(
    connection: &mut PgConnection,
    entity: Option<&str>,
    key: Option<&str>,
    limit: i64,
) -> Result<Vec<HotKey>, sqlx::Error> {
    const SQL: &str = "
        select entity, key, sum(writes)::bigint as writes, count(*) as workers
          from keylane.hot_keys
         where ($1::text is null or entity = $1) and ($2::text is null or key = $2)
           and counted_at > clock_timestamp() - interval '2 minutes'
         group by entity, key
         order by 3 desc, entity, key
         limit $3";
    sqlx::query_as(SQL).bind(entity).bind(key).bind(limit).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn standing() -> Standing {
        Standing {
            entity: "customer".into(),
            key: "C-1".into(),
            resting: 3,
            paused: false,
            waits_for: None,
            tries: 0,
            blocker: None,
            behind: None,
            replaying: 0,
            generation: 1,
            partition: 0,
            worker: None,
            due_at: None,
            since: datetime!(2026-11-21 02:00 UTC),
        }
    }

    #[test]
    fn a_key_says_why_it_stands_still() {
        let lock = || Some("lock".to_owned());
        let table = [
            (standing(), "its lane has not looked yet"),
            (Standing { paused: true, replaying: 2, ..standing() }, "paused, 2 to be replayed"),
            (Standing { behind: Some(17), ..standing() }, "behind dead letter 17"),
            (
                Standing { waits_for: Some("parent".into()), tries: 4, ..standing() },
                "waits for its parent, tried 4 times",
            ),
            (Standing { waits_for: lock(), ..standing() }, "row locked"),
            (
                Standing { waits_for: lock(), blocker: Some("pid 7".into()), ..standing() },
                "row locked by pid 7",
            ),
        ];
        for (standing, why) in table {
            assert_eq!(standing.why(), why);
        }
    }
}
