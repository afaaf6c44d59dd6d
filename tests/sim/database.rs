//! The simulated database server: sessions, the fence, locks, and commits whose client is gone.
//!
//! Owns: what PostgreSQL promises and what it does not: a transaction of a lost client goes on
//! holding its locks until the server notices, and may still commit.

use std::collections::BTreeMap;
use std::time::Duration;

use keylane::core::batch::Item;
use keylane::core::failure::Failure;
use keylane::core::message::Message;
use keylane::core::partition::{Epoch, PartitionId};
use keylane::core::plan::CommitPlan;
use keylane::core::roll::Source;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::time::Instant;
use uuid::Uuid;

use super::parking::Name;
use super::tables::{Tables, id};
use super::turns::Line;

/// The database's clock at the start of a run.
pub(crate) const STARTED_AT: OffsetDateTime = datetime!(2026-06-01 00:00 UTC);

/// What a transaction can hold against others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lock {
    /// A row, or a key that is being inserted.
    Row(String, String),
    /// A ledger line that is being inserted.
    Line(Uuid, String),
    /// A key that stands still.
    Key(String, String),
}

/// The name of a session.
pub(crate) type SessionId = u64;

#[derive(Debug)]
struct Session {
    /// The process that opened it.
    process: u64,
    /// The fence that its open transaction shares.
    open: Option<PartitionId>,
    /// When the server ends it, and what it commits before that.
    ends: Option<(Instant, Option<Work>)>,
}

/// A transaction that was told to commit.
pub(crate) type Work = (Vec<Item>, CommitPlan);

/// One commit, as a witness saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witnessed {
    pub(crate) partition: PartitionId,
    /// The claim under which it was made.
    pub(crate) ours: Epoch,
    /// The newest claim at that time.
    pub(crate) newest: Epoch,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) tables: Tables,
    pub(crate) line: Line,
    /// Partitions that the next ring is to have.
    pub(crate) wanted: i32,
    pub(crate) commits: Vec<Witnessed>,
    /// Commits whose end their client never learned.
    pub(crate) doubts: u64,
    /// How many messages with a write id are not settled yet, sent or not.
    awaited: BTreeMap<Uuid, usize>,
    started: Instant,
    fences: BTreeMap<PartitionId, Epoch>,
    epochs: BTreeMap<SessionId, Epoch>,
    sessions: BTreeMap<SessionId, Session>,
    locks: BTreeMap<Lock, SessionId>,
    sessions_made: SessionId,
}

impl Database {
    /// A server that will see these messages.
    pub(crate) fn new(messages: &[Message], wanted: i32) -> Self {
        let mut awaited = BTreeMap::new();
        for id in messages.iter().filter_map(id) {
            *awaited.entry(id).or_default() += 1;
        }
        Self {
            awaited,
            tables: Tables::default(),
            line: Line::default(),
            wanted,
            commits: Vec::new(),
            doubts: 0,
            started: Instant::now(),
            fences: BTreeMap::new(),
            epochs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            locks: BTreeMap::new(),
            sessions_made: 0,
        }
    }

    /// A message goes to more than one queue.
    pub(crate) fn copied(&mut self, message: &Message, more: usize) {
        if let Some(id) = id(message) {
            *self.awaited.entry(id).or_default() += more;
        }
    }

    /// Forgets at once what may be forgotten: what is settled must never come again.
    pub(crate) fn settled(&mut self, messages: &[Message]) {
        for id in messages.iter().filter_map(id) {
            let awaited = self.awaited.get_mut(&id).expect("only what was sent is settled");
            *awaited -= 1;
            if *awaited == 0 {
                self.tables.forget(id);
            }
        }
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        STARTED_AT + self.started.elapsed()
    }

    /// Lets happen what was due: it is called before anything else is done.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        loop {
            let due = self.sessions.iter().filter_map(|(id, session)| {
                let (at, _) = session.ends.as_ref()?;
                (*at <= now).then_some((*at, *id))
            });
            let Some((_, id)) = due.min() else { return };
            let work = self.sessions.get_mut(&id).and_then(|session| session.ends.take());
            if let Some((_, Some((items, plan)))) = work {
                self.commit(id, &items, &plan).expect("its locks kept others away");
            }
            self.close(id);
        }
    }

    /// Ends a session at once; what it had open is rolled back.
    pub(crate) fn close(&mut self, session: SessionId) {
        self.locks.retain(|_, holder| *holder != session);
        self.sessions.remove(&session);
    }

    /// The client is gone; the server notices `after` a while, and may first commit.
    pub(crate) fn abandon(&mut self, session: SessionId, after: Duration, work: Option<Work>) {
        if let Some(session) = self.sessions.get_mut(&session) {
            // What was told to commit does so, whatever is said about its connection later.
            session.ends.get_or_insert_with(|| (Instant::now() + after, work));
        }
    }

    /// Every session of a process that was killed, but for those abandoned before.
    pub(crate) fn abandon_process(&mut self, process: u64, mut after: impl FnMut() -> Duration) {
        let now = Instant::now();
        let of_process = |session: &&mut Session| session.process == process;
        for session in self.sessions.values_mut().filter(of_process) {
            session.ends.get_or_insert_with(|| (now + after(), None));
        }
    }

    /// Ends a session from outside, as an administrator does.
    pub(crate) fn terminate_any(&mut self, choice: u64) {
        let open = u64::try_from(self.sessions.len()).unwrap_or(0).max(1);
        let chosen = usize::try_from(choice % open).unwrap_or(0);
        if let Some(id) = self.sessions.keys().nth(chosen).copied() {
            self.close(id);
        }
    }

    /// Whether somebody's open transaction keeps a claim waiting.
    pub(crate) fn fence_is_shared(&self, partition: PartitionId) -> bool {
        self.sessions.values().any(|session| session.open == Some(partition))
    }

    /// Ends the backends that do not give way to a claim.
    pub(crate) fn evict(&mut self, partition: PartitionId) {
        let stay = |session: &Session| session.open == Some(partition);
        let ids = self.sessions.iter().filter(|(_, session)| stay(session)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// A new session with a claim of its own.
    pub(crate) fn claim(&mut self, process: u64, partition: PartitionId) -> (SessionId, Epoch) {
        let epoch = self.fences.entry(partition).or_insert(Epoch(0));
        epoch.0 += 1;
        let epoch = *epoch;
        self.sessions_made += 1;
        let session = Session { process, open: None, ends: None };
        self.sessions.insert(self.sessions_made, session);
        self.epochs.insert(self.sessions_made, epoch);
        (self.sessions_made, epoch)
    }

    fn living(&mut self, id: SessionId) -> Result<&mut Session, Failure> {
        let lost = || Failure::ConnectionLost("the server has ended it".to_owned());
        self.sessions.get_mut(&id).filter(|session| session.ends.is_none()).ok_or_else(lost)
    }

    /// Opens a transaction and checks the fence.
    pub(crate) fn begin(
        &mut self,
        id: SessionId,
        partition: PartitionId,
        epoch: Epoch,
    ) -> Result<(), Failure> {
        let newest = self.fences.get(&partition).copied();
        let session = self.living(id)?;
        assert_eq!(session.open, None, "a session has one transaction at a time");
        if newest != Some(epoch) {
            return Err(Failure::Superseded);
        }
        session.open = Some(partition);
        Ok(())
    }

    pub(crate) fn rollback(&mut self, id: SessionId) {
        self.locks.retain(|_, holder| *holder != id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.open = None;
        }
    }

    /// Takes a lock; false while somebody else has it.
    pub(crate) fn lock(&mut self, id: SessionId, lock: &Lock) -> Result<bool, Failure> {
        self.living(id)?;
        let holder = self.locks.entry(lock.clone()).or_insert(id);
        Ok(*holder == id)
    }

    /// Whether somebody holds a lock.
    pub(crate) fn is_locked(&self, lock: &Lock) -> bool {
        self.locks.contains_key(lock)
    }

    /// Whether any lane is in the middle of a batch.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.sessions.values().any(|session| session.open.is_some())
    }

    /// Locks the keys of a look, without waiting for any.
    pub(crate) fn due_keys(
        &mut self,
        id: SessionId,
        lane: PartitionId,
        asked: &[String],
    ) -> Vec<Name> {
        let now = self.now();
        let Self { tables, locks, .. } = self;
        tables.due_keys(lane, asked, now, |name| {
            let lock = Lock::Key(name.0.clone(), name.1.clone());
            *locks.entry(lock).or_insert(id) == id
        })
    }

    /// Whether a session is there and can do something in its open transaction.
    pub(crate) fn check(&mut self, id: SessionId) -> Result<(), Failure> {
        let open = self.living(id)?.open;
        assert!(open.is_some(), "nothing is done outside of a transaction");
        Ok(())
    }

    /// Writes and commits.
    pub(crate) fn commit(
        &mut self,
        id: SessionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> Result<(), Failure> {
        let partition = self.sessions.get(&id).and_then(|session| session.open);
        let partition = partition.expect("nothing is committed outside of a transaction");
        let ours = Source::of(partition) == self.line.first();
        assert!(ours || plan.ledger.is_empty(), "{partition} applies while it is another's turn");
        self.tables.commit(partition, items, plan)?;
        self.commits.push(Witnessed {
            partition,
            ours: self.epochs.get(&id).copied().unwrap_or(Epoch(0)),
            newest: self.fences.get(&partition).copied().unwrap_or(Epoch(0)),
        });
        self.rollback(id);
        Ok(())
    }
}
