//! One partition's transactions: fence, load, commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use crate::core::batch::{Item, Wanted};
use crate::core::entity::Entity;
use crate::core::failure::Failure;
use crate::core::partition::{Epoch, PartitionId};
use crate::core::plan::{CommitPlan, Loaded};
use crate::core::roll::{Passing, Standing};
use crate::store::{Opened, Opening, Store};

use super::error::{Blame, failure, of_the_ledger, ours};
use super::fence::{self, Transaction};
use super::rows::Statements;
use super::{claim, dead_letters, ledger, parking, turns};

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
    transaction: Transaction,
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

    /// The epoch of the claim, while there is one.
    pub fn epoch(&self) -> Option<Epoch> {
        self.session.as_ref().map(|session| session.epoch)
    }

    fn prepare(&mut self, entity: &Arc<Entity>) {
        if !self.statements.get(&entity.name).is_some_and(|made| made.are_of(entity)) {
            self.statements.insert(entity.name.clone(), Statements::new(Arc::clone(entity)));
        }
    }

    /// Keeps the session after a step that succeeded; ends its transaction after one that did not.
    async fn keep<T>(
        &mut self,
        session: Session,
        step: Result<Result<T, Failure>, Elapsed>,
    ) -> Result<T, Failure> {
        match step {
            Ok(Ok(done)) => {
                self.session = Some(session);
                Ok(done)
            }
            Ok(Err(failure)) => Err(self.fail(session, failure).await),
            Err(_elapsed) => Err(self.fail(session, no_answer()).await),
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

    async fn try_open(
        session: &mut Session,
        partition: PartitionId,
        opening: &Opening,
    ) -> Result<Opened, Failure> {
        let begun = fence::begin(&mut session.connection, session.epoch, partition, opening);
        let (transaction, mut opened) = begun.await?;
        session.transaction = transaction;
        let Transaction { stands_still, standing, .. } = session.transaction;
        let looks = stands_still && standing == Standing::Mine;
        let looks = looks.then_some(opening.look.as_ref()).flatten();
        if let Some(look) = looks {
            let connection = &mut *session.connection;
            let taken = parking::take(connection, partition, look).await;
            let taken = taken.map_err(|error| ours(&error))?;
            session.transaction.gates = taken.gates;
            opened.letters = taken.letters;
            opened.keys = taken.keys;
            opened.more = taken.more;
        }
        Ok(opened)
    }

    async fn try_load(
        &self,
        session: &mut Session,
        items: &[Item],
        wanted: &Wanted,
    ) -> Result<Loaded, Failure> {
        let Transaction { now, patient, stands_still, standing, .. } = session.transaction;
        let connection = &mut *session.connection;
        let mut loaded = Loaded { standing, ..Loaded::nothing(now) };
        let mut resting = HashMap::new();
        loaded.gates = std::mem::take(&mut session.transaction.gates);
        if stands_still && loaded.gates.is_empty() {
            let found = parking::gates(connection, items).await.map_err(|error| ours(&error))?;
            (loaded.gates, resting) = found;
        }
        // Rows are for those whose turn it is.
        let rows = wanted.rows.iter().filter(|_| standing == Standing::Mine);
        for (name, wanted) in rows {
            let Some(statements) = self.statements.get(name) else { continue };
            let theirs = |error: sqlx::Error| match failure(&error, Blame::Nobody) {
                // Nobody waits for a row here: it is the table that somebody holds.
                Failure::Locked(why) if !patient => Failure::Unavailable(why),
                other => other,
            };
            let rows = statements.load(connection, wanted, patient).await.map_err(theirs)?;
            if !patient {
                let holders = statements.holders(connection, wanted, &rows).await;
                for (key, holder) in holders.map_err(theirs)? {
                    loaded.locked.insert(name, &key, holder);
                }
            }
            loaded.rows.insert(name.clone(), rows);
        }
        // After the rows are locked, in a statement of its own: a lane of another generation may
        // have committed the same write id while we waited for its row.
        if !wanted.ids.is_empty() {
            loaded.known =
                ledger::load(connection, &wanted.ids).await.map_err(|error| ours(&error))?;
        }
        for (id, mut rests) in resting {
            loaded.known.entry(id).or_default().append(&mut rests);
        }
        Ok(loaded)
    }

    async fn try_commit(
        &self,
        session: &mut Session,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let ours = |error: sqlx::Error| ours(&error);
        let part = session.transaction.part;
        let connection = &mut *session.connection;
        self.write_rows(connection, plan).await?;
        if !plan.ledger.is_empty() {
            ledger::replace(connection, items, plan).await.map_err(ours)?;
            let taken = ledger::insert(connection, part, items, plan).await;
            let taken = taken.map_err(|error| of_the_ledger(&error))?;
            if usize::try_from(taken) != Ok(plan.ledger.len()) {
                return Err(Failure::LedgerDiffers);
            }
        }
        if !plan.dead_letters.is_empty() {
            let rest = dead_letters::insert(connection, partition, items, plan).await;
            if rest.map_err(ours)? != plan.resting() {
                return Err(Failure::Unforeseen(
                    "a write that must rest has an open dead letter already".to_owned(),
                ));
            }
        }
        if !plan.letters.is_empty() {
            parking::decide(connection, items, plan).await.map_err(ours)?;
        }
        if !plan.keys.is_empty() {
            parking::go_on(connection, partition, items, plan).await.map_err(ours)?;
        }
        end(connection, Blame::AWrite).await
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
                             set local enable_mergejoin = on; set local plan_cache_mode = auto";
                let set = sqlx::raw_sql(usual).execute(&mut *connection).await;
                set.map_err(|error| ours(&error))?;
            }
            let (written, planned) = statements.write(connection, round.changes.iter()).await?;
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

async fn try_pass(
    session: &mut Session,
    partition: PartitionId,
    marker: Uuid,
    waited: Duration,
) -> Result<Passing, Failure> {
    let opening = Opening { patient: true, look: None };
    let begun = fence::begin(&mut session.connection, session.epoch, partition, &opening).await?;
    let standing = begun.0.standing;
    let connection = &mut *session.connection;
    let passing = turns::pass_marker(connection, partition, marker, standing, waited).await;
    let passing = passing.map_err(|error| ours(&error))?;
    end(connection, Blame::Nobody).await?;
    Ok(passing)
}

async fn end(connection: &mut PgConnection, blame: Blame) -> Result<(), Failure> {
    match sqlx::raw_sql("commit").execute(connection).await {
        Ok(_) => Ok(()),
        Err(error @ sqlx::Error::Database(_)) => Err(failure(&error, blame)),
        Err(error) => {
            Err(Failure::ConnectionLost(format!("the end of COMMIT is unknown: {error}")))
        }
    }
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
                let transaction = Transaction::none();
                self.session = Some(Session { connection, epoch, transaction });
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

    async fn open(&mut self, partition: PartitionId, opening: &Opening) -> Result<Opened, Failure> {
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let opened = Self::try_open(&mut session, partition, opening);
        let opened = timeout(self.answer_max, opened).await;
        self.keep(session, opened).await
    }

    async fn load(&mut self, items: &[Item]) -> Result<Loaded, Failure> {
        let wanted = Wanted::of(items);
        for rows in wanted.rows.values() {
            self.prepare(&rows.entity);
        }
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let loaded = self.try_load(&mut session, items, &wanted);
        let loaded = timeout(self.answer_max, loaded).await;
        self.keep(session, loaded).await
    }

    async fn commit(
        &mut self,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let committed = self.try_commit(&mut session, partition, items, plan);
        let committed = timeout(self.answer_max, committed).await;
        self.keep(session, committed).await
    }

    async fn pass(
        &mut self,
        partition: PartitionId,
        marker: Uuid,
        waited: Duration,
    ) -> Result<Passing, Failure> {
        let Some(mut session) = self.session.take() else { return Err(Failure::Unclaimed) };
        let passed = try_pass(&mut session, partition, marker, waited);
        let passed = timeout(self.answer_max, passed).await;
        self.keep(session, passed).await
    }

    async fn roll_back(&mut self) {
        if let Some(session) = self.session.take() {
            // There is no failure: it only says why the transaction ends.
            let given_up = Failure::Unavailable("given up".to_owned());
            drop(self.fail(session, given_up).await);
        }
    }

    fn release(&mut self) {
        self.session = None;
    }

    fn is_scarce(&self) -> bool {
        self.pool.size() >= self.pool.options().get_max_connections() && self.pool.num_idle() == 0
    }
}

fn no_answer() -> Failure {
    Failure::ConnectionLost("the database gave no answer in time".into())
}
