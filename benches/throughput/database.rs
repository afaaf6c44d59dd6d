//! The database between two measurements.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, raw_sql};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::sample::TABLE;

/// Longest wait for the first ring.
const RING_MAX: Duration = Duration::from_mins(1);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The database as the bench sees it.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    admin: PgPool,
}

impl Database {
    /// Connects, and makes the table that everybody writes.
    pub(crate) async fn open(url: &str, admin_url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(16).connect(url).await;
        let pool = pool.context("connect to DATABASE_URL")?;
        let admin = PgPoolOptions::new().max_connections(1).connect(admin_url).await;
        let admin = admin.context("connect to DATABASE_ADMIN_URL")?;
        raw_sql(TABLE).execute(&pool).await?;
        Ok(Self { pool, admin })
    }

    /// Empties what the last contender wrote, and lets the server finish with it.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let emptying = "truncate public.customers, keylane.ledger, keylane.dead_letters, \
                        keylane.dead_letter_revisions";
        raw_sql(emptying).execute(&self.pool).await.context("empty the tables")?;
        raw_sql("checkpoint").execute(&self.admin).await.context("checkpoint")?;
        Ok(())
    }

    /// The first ring, once it has its turn and nothing stands before it.
    pub(crate) async fn generation(&self) -> anyhow::Result<i32> {
        let sql = "select coalesce(max(generation), 0) from keylane.turns
                    where closed_at is null having count(*) = 1";
        let deadline = Instant::now() + RING_MAX;
        while Instant::now() < deadline {
            let found: Option<i32> = sqlx::query_scalar(sql).fetch_optional(&self.pool).await?;
            if let Some(generation) = found.filter(|generation| *generation > 0) {
                return Ok(generation);
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("no ring had its turn within {RING_MAX:?}")
    }

    /// How many writes the ledger holds as applied, and when the first of them was.
    pub(crate) async fn applied(&self) -> anyhow::Result<(i64, Option<OffsetDateTime>)> {
        let sql = "select count(*), min(applied_at) from keylane.ledger where outcome = 'applied'";
        Ok(sqlx::query_as(sql).fetch_one(&self.pool).await?)
    }

    /// The sum that increments have come to.
    pub(crate) async fn balances(&self) -> anyhow::Result<i64> {
        let sql = "select coalesce(sum(balance), 0)::bigint from public.customers";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }
}
