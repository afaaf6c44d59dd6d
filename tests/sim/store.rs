//! [`Store`] in memory: what `postgres::store` does, with a simulated server and its misfortunes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use keylane::core::batch::{Item, Wanted};
use keylane::core::failure::Failure;
use keylane::core::parking::{ByKey, Gate};
use keylane::core::partition::{Epoch, PartitionId};
use keylane::core::plan::{CommitPlan, Loaded};
use keylane::core::roll::{Passing, Standing};
use keylane::core::row::RowChange;
use keylane::store::{Opened, Opening, Store};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::database::{Database, Lock, SessionId};
use super::parking::Name;
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
    /// Of the open transaction: some key stood still when it began.
    stands_still: bool,
    /// Of the open transaction: the keys that it looks at.
    looked_at: Vec<Name>,
    /// Of the open transaction: what it has read of its turn.
    standing: Standing,
}

impl MemoryStore {
    pub(crate) fn new(database: Arc<Mutex<Database>>, process: Process) -> Self {
        Self {
            database,
            process,
            session: None,
            rows_differed: 0,
            stands_still: false,
            looked_at: Vec::new(),
            standing: Standing::NotYet,
        }
    }

    fn server(&self) -> MutexGuard<'_, Database> {
        let mut server = self.database.lock().expect("nobody panics with the database");
        server.tick();
        server
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

    async fn try_open(
        &mut self,
        session: (SessionId, Epoch),
        partition: PartitionId,
        opening: &Opening,
    ) -> Result<Opened, Failure> {
        self.process.step("open").await;
        self.server().begin(session.0, partition, session.1)?;
        let now = self.server().now();
        let standing = self.server().line.standing(partition);
        self.standing = standing;
        let mine = self.standing == Standing::Mine;
        let due = self.server().tables.due(partition).filter(|_| mine);
        let due = due.map(|at| (at - now).try_into().unwrap_or_default());
        let quiet = self.server().tables.is_quiet();
        self.stands_still = !quiet;
        self.looked_at.clear();
        let mut opened = Opened { due, ..Opened::default() };
        self.process.step("fence held").await;
        if let Some(look) = opening.look.as_ref().filter(|_| self.stands_still && mine) {
            self.server().check(session.0)?;
            let names = self.server().due_keys(session.0, partition, &look.keys);
            opened.letters = self.server().tables.take(&names, look.letters_max);
            opened.more = opened.letters.len() >= look.letters_max;
            opened.keys = names.len();
            self.looked_at = names;
            self.process.step("keys held").await;
        }
        Ok(opened)
    }

    async fn try_load(&mut self, session: SessionId, items: &[Item]) -> Result<Loaded, Failure> {
        self.process.step("load").await;
        self.server().check(session)?;
        self.misfortune()?;
        let gates = self.gates(session, items).await?;
        let mut wanted = Wanted::of(items);
        if self.standing != Standing::Mine {
            wanted.rows.clear();
        }
        for (entity, rows) in &wanted.rows {
            for key in &rows.keys {
                let name = (entity.clone(), key.as_str().to_owned());
                // What is not there cannot be locked.
                if self.server().tables.rows.contains_key(&name) {
                    self.lock(session, Lock::Row(name.0, name.1)).await?;
                }
            }
        }
        self.process.step("rows locked").await;
        self.server().check(session)?;
        // Somebody from outside may hold one of the rows that are there.
        let rows = wanted.rows.iter().flat_map(|(entity, rows)| {
            rows.keys.iter().map(move |key| (entity.clone(), key.as_str().to_owned()))
        });
        let held: Vec<Name> = rows
            .filter(|name| self.server().tables.rows.contains_key(name))
            .filter(|_| self.process.failure().is_some())
            .collect();
        let server = self.server();
        let mut loaded = server.tables.load(&wanted, server.now());
        for (entity, key) in held {
            loaded.locked.insert(&entity, &key, "pid 0: simulated".to_owned());
        }
        for (id, resting) in server.tables.resting(items, &gates) {
            loaded.known.entry(id).or_default().push(resting);
        }
        loaded.gates = gates;
        loaded.standing = self.standing;
        Ok(loaded)
    }

    /// The keys that stand still: of a look those that it holds, else those of the deliveries.
    async fn gates(&self, session: SessionId, items: &[Item]) -> Result<ByKey<Gate>, Failure> {
        let mut gates = ByKey::default();
        if !self.stands_still {
            return Ok(gates);
        }
        for name in &self.looked_at {
            let gate = self.server().tables.gate(name).expect("it is held");
            gates.insert(&name.0, &name.1, Gate { looked_at: true, ..gate });
        }
        if self.looked_at.is_empty() {
            let names = items.iter().filter_map(Item::identity);
            let names: BTreeSet<Name> =
                names.map(|it| (it.entity.clone(), it.key.clone())).collect();
            for name in names {
                if self.server().tables.gate(&name).is_none() {
                    continue;
                }
                self.lock(session, Lock::Key(name.0.clone(), name.1.clone())).await?;
                // It may have become free while we waited.
                let gate = self.server().tables.gate(&name);
                if let Some(gate) = gate {
                    gates.insert(&name.0, &name.1, gate);
                }
            }
        }
        Ok(gates)
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
        for change in &plan.keys {
            self.lock(session, Lock::Key(change.entity.clone(), change.key.clone())).await?;
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

    async fn try_pass(
        &mut self,
        session: (SessionId, Epoch),
        partition: PartitionId,
        marker: Uuid,
        waited: Duration,
    ) -> Result<Passing, Failure> {
        self.try_open(session, partition, &Opening { patient: true, look: None }).await?;
        self.misfortune()?;
        self.process.step("pass").await;
        let (doubt, standing) = (self.process.doubt(), self.standing);
        let mut server = self.server();
        server.check(session.0)?;
        if doubt == Some(Doubt::Aborted) {
            return Err(Failure::ConnectionLost("the end of COMMIT is unknown".to_owned()));
        }
        let passing = server.line.pass(partition, marker, standing, waited);
        server.rollback(session.0);
        match doubt {
            Some(_) => Err(Failure::ConnectionLost("the end of COMMIT is unknown".to_owned())),
            None => Ok(passing),
        }
    }

    fn leave_in_doubt(
        &self,
        session: SessionId,
        doubt: Doubt,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let mut server = self.server();
        // Which lane it is decides nothing about whether it can be committed.
        server.tables.clone().commit(PartitionId::HELD, items, plan)?;
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

    async fn open(&mut self, partition: PartitionId, opening: &Opening) -> Result<Opened, Failure> {
        let Some(session) = self.session.take() else { return Err(Failure::Unclaimed) };
        match self.try_open(session, partition, opening).await {
            Ok(opened) => {
                self.session = Some(session);
                Ok(opened)
            }
            Err(failure) => Err(self.fail(session, failure)),
        }
    }

    async fn load(&mut self, items: &[Item]) -> Result<Loaded, Failure> {
        let Some(session) = self.session.take() else { return Err(Failure::Unclaimed) };
        match self.try_load(session.0, items).await {
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

    async fn pass(
        &mut self,
        partition: PartitionId,
        marker: Uuid,
        waited: Duration,
    ) -> Result<Passing, Failure> {
        let Some(session) = self.session.take() else { return Err(Failure::Unclaimed) };
        match self.try_pass(session, partition, marker, waited).await {
            Ok(passing) => {
                self.session = Some(session);
                Ok(passing)
            }
            Err(failure) => Err(self.fail(session, failure)),
        }
    }

    async fn roll_back(&mut self) {
        if let Some((session, _)) = self.session {
            self.server().rollback(session);
        }
    }

    fn release(&mut self) {
        if let Some((session, _)) = self.session.take() {
            self.server().close(session);
        }
    }

    fn is_scarce(&self) -> bool {
        self.process.roll(|dice| dice.below(8)) == 0
    }
}
