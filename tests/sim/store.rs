//! [`Store`] in memory: what `postgres::store` does, with a simulated server and its misfortunes.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use keylane::core::batch::{Item, Wanted};
use keylane::core::failure::Failure;
use keylane::core::partition::{Epoch, PartitionId};
use keylane::core::plan::{CommitPlan, Loaded};
use keylane::core::row::RowChange;
use keylane::store::Store;
use tokio::time::{Instant, sleep};

use super::database::{Database, Lock, SessionId};
use super::process::{Doubt, Process};

/// How long a claim waits for an older owner's transaction before it ends that backend.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(5);
/// PostgreSQL's `lock_timeout`.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// A trigger that kept rows back three times in a row would be to blame; a race is not.
const ROWS_DIFFER_MAX: u32 = 2;

pub(crate) struct MemoryStore {
    pub(crate) database: Arc<Mutex<Database>>,
    pub(crate) process: Process,
    session: Option<(SessionId, Epoch)>,
    rows_differed: u32,
}

impl MemoryStore {
    pub(crate) fn new(database: Arc<Mutex<Database>>, process: Process) -> Self {
        Self { database, process, session: None, rows_differed: 0 }
    }

    fn server(&self) -> MutexGuard<'_, Database> {
        let mut server = self.database.lock().expect("nobody panics with the database");
        server.tick();
        server
    }

    /// Gives the connection back, between batches.
    pub(crate) fn release(&mut self) {
        if let Some((session, _)) = self.session.take() {
            self.server().close(session);
        }
    }

    fn misfortune(&mut self) -> Result<(), Failure> {
        match self.process.failure() {
            Some(Failure::RowsDiffer(_)) if self.rows_differed >= ROWS_DIFFER_MAX => Ok(()),
            Some(failure) => {
                self.rows_differed += u32::from(matches!(failure, Failure::RowsDiffer(_)));
                Err(failure)
            }
            None => Ok(()),
        }
    }

    fn fail(&mut self, session: (SessionId, Epoch), failure: Failure) -> Failure {
        let notices_after = self.process.roll(|dice| dice.milliseconds(8_000));
        let mut server = self.server();
        match failure {
            Failure::ConnectionLost(_) => server.abandon(session.0, notices_after, None),
            Failure::Superseded => server.close(session.0),
            _ => {
                server.rollback(session.0);
                drop(server);
                self.session = Some(session);
            }
        }
        failure
    }

    async fn lock(&self, session: SessionId, lock: Lock) -> Result<(), Failure> {
        let since = Instant::now();
        while !self.server().lock(session, &lock)? {
            if since.elapsed() > LOCK_WAIT_MAX {
                return Err(Failure::Locked(format!("{lock:?}")));
            }
            sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    async fn try_load(
        &mut self,
        session: (SessionId, Epoch),
        partition: PartitionId,
        wanted: &Wanted,
    ) -> Result<Loaded, Failure> {
        self.process.step("load").await;
        self.server().begin(session.0, partition, session.1)?;
        self.process.step("fence held").await;
        self.misfortune()?;
        for (entity, rows) in &wanted.rows {
            for key in &rows.keys {
                let name = (entity.clone(), key.as_str().to_owned());
                // What is not there cannot be locked.
                if self.server().tables.rows.contains_key(&name) {
                    self.lock(session.0, Lock::Row(name.0, name.1)).await?;
                }
            }
        }
        self.process.step("rows locked").await;
        self.server().check(session.0)?;
        let server = self.server();
        Ok(server.tables.load(wanted, server.now()))
    }

    async fn try_commit(
        &mut self,
        session: SessionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        self.process.step("commit").await;
        self.misfortune()?;
        for round in &plan.rounds {
            for (key, change) in &round.changes {
                if matches!(change, RowChange::Insert(_) | RowChange::Recreate(_)) {
                    let lock = Lock::Row(round.entity.name.clone(), key.as_str().to_owned());
                    self.lock(session, lock).await?;
                }
            }
        }
        for identity in plan.ledger.iter().filter_map(|at| items.get(*at)?.identity()) {
            self.lock(session, Lock::Line(identity.id, identity.key.clone())).await?;
        }
        self.process.step("rows written").await;
        self.server().check(session)?;
        if let Some(doubt) = self.process.doubt() {
            self.leave_in_doubt(session, doubt, items, plan)?;
            return Err(Failure::ConnectionLost("the end of COMMIT is unknown".to_owned()));
        }
        self.server().commit(session, items, plan)?;
        self.process.step("committed").await;
        self.rows_differed = 0;
        Ok(())
    }

    fn leave_in_doubt(
        &self,
        session: SessionId,
        doubt: Doubt,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let mut server = self.server();
        server.tables.clone().commit(items, plan)?;
        server.doubts += 1;
        match doubt {
            Doubt::Aborted => server.close(session),
            Doubt::Committed => server.commit(session, items, plan)?,
            Doubt::CommittedAfter(after) => {
                server.abandon(session, after, Some((items.to_vec(), plan.clone())));
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    async fn claim(&mut self, partition: PartitionId) -> Result<Epoch, Failure> {
        self.release();
        self.process.step("claim").await;
        if let Err(failure) = self.misfortune() {
            return Err(Failure::Unavailable(failure.to_string()));
        }
        let since = Instant::now();
        while self.server().fence_is_shared(partition) {
            if since.elapsed() > CLAIM_WAIT_MAX {
                self.server().evict(partition);
            }
            sleep(Duration::from_millis(50)).await;
        }
        let (session, epoch) = self.server().claim(self.process.id, partition);
        self.process.step("claimed").await;
        if self.misfortune().is_err() {
            self.server().close(session);
            return Err(Failure::ConnectionLost("a claim got no answer".to_owned()));
        }
        self.session = Some((session, epoch));
        Ok(epoch)
    }

    async fn load(&mut self, partition: PartitionId, wanted: &Wanted) -> Result<Loaded, Failure> {
        let Some(session) = self.session.take() else { return Err(Failure::Unclaimed) };
        match self.try_load(session, partition, wanted).await {
            Ok(loaded) => {
                self.session = Some(session);
                Ok(loaded)
            }
            Err(failure) => Err(self.fail(session, failure)),
        }
    }

    async fn commit(
        &mut self,
        _partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let Some(session) = self.session.take() else { return Err(Failure::Unclaimed) };
        match self.try_commit(session.0, items, plan).await {
            Ok(()) => {
                self.session = Some(session);
                Ok(())
            }
            Err(failure) => Err(self.fail(session, failure)),
        }
    }
}
