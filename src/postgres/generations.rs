//! Which rings there are, and who declares the next.
//!
//! Owns: that a ring is declared once in its life: by the worker that inserted its row.

use sqlx::{PgPool, Row};

/// A ring, as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub generation: i32,
    pub partitions: i32,
    pub state: State,
    /// The broker it lives on: cluster name, virtual host and prefix.
    pub broker: String,
    /// Seconds since its state changed.
    pub age_s: i64,
}

/// How far a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its number is taken; queues and ring are being declared.
    Planned,
    /// Stored before the binding is made.
    Bound,
    /// Writes flow through it.
    Open,
    /// Nothing will come from it any more.
    Closed,
}

impl State {
    const fn label(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Bound => "bound",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    fn from_label(label: &str) -> Option<Self> {
        [Self::Planned, Self::Bound, Self::Open, Self::Closed]
            .into_iter()
            .find(|state| state.label() == label)
    }
}

/// Every generation of this broker that is not closed, oldest first.
pub async fn list(pool: &PgPool, broker: &str) -> Result<Vec<Generation>, sqlx::Error> {
    const SQL: &str = "
        select generation, partitions, state, broker,
               extract(epoch from clock_timestamp() - state_changed_at)::bigint as age_s
          from keylane.generations where broker = $1 and state <> 'closed' order by generation";
    let rows = sqlx::query(SQL).bind(broker).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let state = State::from_label(row.try_get("state")?);
            Ok(Generation {
                generation: row.try_get("generation")?,
                partitions: row.try_get("partitions")?,
                state: state.ok_or_else(|| sqlx::Error::Decode("unknown state".into()))?,
                broker: row.try_get("broker")?,
                age_s: row.try_get("age_s")?,
            })
        })
        .collect()
}

/// Takes a number never used before, unless somebody else has taken one since `newest` was seen.
pub async fn plan_next(
    pool: &PgPool,
    newest: Option<i32>,
    partitions: i32,
    broker: &str,
    worker: &str,
) -> Result<Option<i32>, sqlx::Error> {
    const SQL: &str = "
        with locked as (select pg_advisory_xact_lock(hashtext('keylane.generations')))
        insert into keylane.generations (generation, partitions, state, broker, planned_by)
        select coalesce((select max(generation) from keylane.generations), 0) + 1,
               $2, 'planned', $3, $4
          from locked
         where (select max(generation) from keylane.generations
                 where broker = $3 and state <> 'closed') is not distinct from $1
        on conflict do nothing
        returning generation";
    sqlx::query_scalar(SQL)
        .bind(newest)
        .bind(partitions)
        .bind(broker)
        .bind(worker)
        .fetch_optional(pool)
        .await
}

/// Moves a generation on.
pub async fn set_state(pool: &PgPool, generation: i32, state: State) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.generations set state = $2, state_changed_at = clock_timestamp()
         where generation = $1";
    sqlx::query(SQL).bind(generation).bind(state.label()).execute(pool).await?;
    Ok(())
}
