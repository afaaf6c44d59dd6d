//! One partition's transactions: fence, load, commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row as _};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::core::batch::{Item, Wanted};
use crate::core::entity::Entity;
use crate::core::failure::Failure;
use crate::core::partition::{Epoch, PartitionId};
use crate::core::plan::{CommitPlan, Loaded};
use crate::store::Store;

use super::error::{Blame, failure};
use super::rows::Statements;
use super::{claim, dead_letters, ledger};

/// What a call may take beyond the server's own statement timeout before the connection counts as
/// lost: the server may be the one that is stopped.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// [`Store`] on PostgreSQL: a pooled connection for as long as the partition is busy.
pub struct PgStore {
    pool: PgPool,
    owner: String,
    answer_max: Duration,
    statements: HashMap<String, Statements>,
    session: Option<Session>,
}

/// A connection and the claim that was made on it; they live and die together.
struct Session {
    connection: PoolConnection<Postgres>,
    epoch: Epoch,
    part: i32,
}

impl PgStore {
    /// A store that claims as `owner`.
    pub fn new(pool: PgPool, owner: String, statement_timeout: Duration) -> Self {
        Self {
            pool,
            owner,
            answer_max: statement_timeout + ANSWER_MARGIN,
            statements: HashMap::new(),
            session: None,
        }
    }

    /// Gives the connection, and the claim with it, back to the pool. Between batches only.
    pub fn release(&mut self) {
        self.session = None;
    }

    /// Whether another partition of this process waits for a connection.
    pub fn is_scarce(&self) -> bool {
        self.pool.size() >= self.pool.options().get_max_connections() && self.pool.num_idle() == 0
    }

    /// The epoch of the claim, while there is one.
    pub fn epoch(&self) -> Option<Epoch> {
        self.session.as_ref().map(|session| session.epoch)
    }

    fn prepare(&mut self, entity: &Arc<Entity>) {
        if !self.statements.get(&entity.name).is_some_and(|made| made.are_of(entity)) {
            self.statements.insert(entity.name.clone(), Statements::new(Arc::clone(entity)));
        }
    }

    /// Ends the transaction after `failure`. A connection that does not answer is closed, and
    /// after a lost one or a fence the claim is gone.
    async fn fail(&mut self, mut session: Session, failure: Failure) -> Failure {
        let lost = matches!(failure, Failure::ConnectionLost(_));
        let clean = !lost && {
            let rollback = sqlx::raw_sql("rollback").execute(&mut *session.connection);
            matches!(timeout(self.answer_max, rollback).await, Ok(Ok(_)))
        };
        if !clean {
            session.connection.close_on_drop();
        } else if failure != Failure::Superseded {
            self.session = Some(session);
        }
        failure
    }

    async fn try_load(
        &self,
        session: &mut Session,
        partition: PartitionId,
        wanted: &Wanted,
    ) -> Result<Loaded, Failure> {
        let ours = |error: sqlx::Error| failure(&error, Blame::Nobody);
        let now = begin(session, partition).await?;
        let connection = &mut *session.connection;
        let mut rows = HashMap::with_capacity(wanted.rows.len());
        for (name, wanted) in &wanted.rows {
            let Some(statements) = self.statements.get(name) else { continue };
            rows.insert(name.clone(), statements.load(connection, wanted).await.map_err(ours)?);
        }
        // After the rows are locked, in a statement of its own: a lane of another generation may
        // have committed the same write id while we waited for its row.
        let known = match wanted.ids.as_slice() {
            [] => HashMap::new(),
            ids => ledger::load(connection, ids).await.map_err(ours)?,
        };
        Ok(Loaded { now, known, rows })
    }

    async fn try_commit(
        &self,
        session: &mut Session,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let ours = |error: sqlx::Error| failure(&error, Blame::Nobody);
        let theirs = |error: sqlx::Error| failure(&error, Blame::AWrite);
        let part = session.part;
        let connection = &mut *session.connection;
        self.write_rows(connection, plan).await?;
        if !plan.ledger.is_empty() {
            let taken = ledger::insert(connection, part, items, plan).await.map_err(ours)?;
            if usize::try_from(taken) != Ok(plan.ledger.len()) {
                return Err(Failure::LedgerDiffers);
            }
        }
        if !plan.dead_letters.is_empty() {
            dead_letters::insert(connection, partition, items, plan).await.map_err(ours)?;
        }
        match sqlx::raw_sql("commit").execute(connection).await {
            Ok(_) => Ok(()),
            Err(error @ sqlx::Error::Database(_)) => Err(theirs(error)),
            Err(error) => {
                Err(Failure::ConnectionLost(format!("the end of COMMIT is unknown: {error}")))
            }
        }
    }

    async fn write_rows(
        &self,
        connection: &mut PgConnection,
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        for round in &plan.rounds {
            let Some(statements) = self.statements.get(&round.entity.name) else { continue };
            if round.entity.user_triggers {
                let usual = "set local enable_seqscan = on; set local enable_hashjoin = on; \
                             set local enable_mergejoin = on";
                let set = sqlx::raw_sql(usual).execute(&mut *connection).await;
                set.map_err(|error| failure(&error, Blame::Nobody))?;
            }
            let (written, planned) = statements
                .write(connection, round.changes.iter())
                .await
                .map_err(|error| failure(&error, Blame::AWrite))?;
            if written != planned {
                return Err(Failure::RowsDiffer(format!(
                    "{written} of {planned} rows of {} were written; a trigger may keep rows back",
                    round.entity.table
                )));
            }
        }
        Ok(())
    }
}

/// Opens the transaction and checks the fence, in one round trip and before any row is locked: a
/// superseded epoch must fail before it holds locks that the new owner waits for. What is loaded
/// comes in later statements, whose snapshots see all that the old owner committed.
async fn begin(session: &mut Session, partition: PartitionId) -> Result<OffsetDateTime, Failure> {
    let sql = format!(
        "begin isolation level read committed; set constraints all immediate; \
         select epoch, closed_at is not null, clock_timestamp(), \
                (select max(part) from keylane.ledger_parts) \
           from keylane.partitions where generation = {} and partition = {} for share",
        partition.generation, partition.partition
    );
    let fence = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_optional(&mut *session.connection)
        .await
        .and_then(|fence| fence.ok_or(sqlx::Error::RowNotFound))
        .map_err(|error| failure(&error, Blame::Nobody))?;
    let unreadable = |error: sqlx::Error| failure(&error, Blame::Nobody);
    let epoch = Epoch(fence.try_get(0).map_err(unreadable)?);
    if epoch != session.epoch {
        warn!(%partition, ours = %session.epoch, theirs = %epoch, "Another claim superseded ours");
        return Err(Failure::Superseded);
    }
    if fence.try_get(1).map_err(unreadable)? {
        return Err(Failure::Unforeseen(format!("partition {partition} is closed")));
    }
    session.part = fence.try_get::<Option<i32>, _>(3).map_err(unreadable)?.unwrap_or(0);
    fence.try_get(2).map_err(unreadable)
}

impl Store for PgStore {
    async fn claim(&mut self, partition: PartitionId) -> Result<Epoch, Failure> {
        self.session = None;
        let mut connection =
            self.pool.acquire().await.map_err(|error| failure(&error, Blame::Nobody))?;
        // A claim may wait for an older owner several times.
        let claimed = claim::claim(&mut connection, partition, &self.owner);
        match timeout(self.answer_max * 2, claimed).await {
            Ok(Ok(epoch)) => {
                debug!(%partition, %epoch, "Claimed");
                self.session = Some(Session { connection, epoch, part: 0 });
                Ok(epoch)
            }
            Ok(Err(failure)) => {
                connection.close_on_drop();
                Err(failure)
            }
            Err(_elapsed) => {
                connection.close_on_drop();
                Err(Failure::ConnectionLost("a claim got no answer in time".into()))
            }
        }
    }

    async fn load(&mut self, partition: PartitionId, wanted: &Wanted) -> Result<Loaded, Failure> {
        for rows in wanted.rows.values() {
            self.prepare(&rows.entity);
        }
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let answer_max = self.answer_max;
        match timeout(answer_max, self.try_load(&mut session, partition, wanted)).await {
            Ok(Ok(loaded)) => {
                self.session = Some(session);
                Ok(loaded)
            }
            Ok(Err(failure)) => Err(self.fail(session, failure).await),
            Err(_elapsed) => Err(self.fail(session, no_answer()).await),
        }
    }

    async fn commit(
        &mut self,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let answer_max = self.answer_max;
        match timeout(answer_max, self.try_commit(&mut session, partition, items, plan)).await {
            Ok(Ok(())) => {
                self.session = Some(session);
                Ok(())
            }
            Ok(Err(failure)) => Err(self.fail(session, failure).await),
            Err(_elapsed) => Err(self.fail(session, no_answer()).await),
        }
    }
}

fn no_answer() -> Failure {
    Failure::ConnectionLost("the database gave no answer in time".into())
}
