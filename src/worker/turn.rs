//! A partition's turn: one batch at a time, from the broker to the database and back.
//!
//! Owns: the order of the steps (`Lane::commit` and `Lane::decide`), and carrying out the core's
//! verdicts. What rests in the table has its turn in `look`; between two tries it is `patience`.
//! Never: decides about a write, or settles what is not committed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info};
use uuid::Uuid;

use crate::core::batch::{BatchLimits, Item, Source};
use crate::core::entity::Entities;
use crate::core::failure::{Failure, Verdict};
use crate::core::message::Message;
use crate::core::parking::{KeyThen, ParkLimits};
use crate::core::partition::PartitionId;
use crate::core::plan::{CommitPlan, plan};
use crate::deliveries::{Deliveries, Gone};
use crate::store::{Opening, Store};
use crate::telemetry::traces;

use super::patience::PATIENCE_MAX;
use super::status::Doing;
use super::stranded::Stranded;

/// Quiet time after which a partition gives its database connection back.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// What a lane needs of its process.
pub trait Shell: Send + Sync {
    /// The entities as they were last read.
    fn entities(&self) -> Arc<Entities>;
    /// Reads the catalogue again.
    fn refresh(&self) -> impl Future<Output = Result<Arc<Entities>, Failure>> + Send;
    /// What may rest now.
    fn park_limits(&self) -> ParkLimits;
    /// How long a write in a queue whose turn is over waits for its copy to be applied.
    fn copies_max(&self) -> Duration;
    /// A batch of so many deliveries is in hand.
    fn took(&self, partition: PartitionId, deliveries: usize);
    /// A batch is committed and settled.
    fn settled(&self, partition: PartitionId, items: &[Item], plan: &CommitPlan, took: Duration);
    /// A write was put into held, where it gets a turn; the `nth` of this claim.
    fn held(&self, partition: PartitionId, nth: u64);
    /// Nothing is in hand.
    fn rests(&self, partition: PartitionId);
    /// Something went wrong and this is done about it.
    fn failed(&self, partition: PartitionId, failure: &Failure, verdict: &Verdict);
    /// The lane does something else now; returns whether that is news.
    fn does(&self, partition: PartitionId, doing: Doing) -> bool;
}

/// How often a batch failed, by cause: a database that was away for long says nothing about the
/// race that a write loses afterwards.
pub(super) type Attempts = HashMap<&'static str, u32>;

/// Why a lane stopped serving a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process stops, or its connection is gone.
    Stopped,
    /// The subscription has ended.
    Gone,
    /// The database is away for longer than a batch may wait.
    DatabaseAway,
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// One partition's loop over a subscription.
pub struct Lane<'a, S, H> {
    pub(super) partition: PartitionId,
    pub(super) store: &'a mut S,
    pub(super) shell: &'a H,
    pub(super) limits: BatchLimits,
    /// Cancelled: finish the batch in hand, take nothing new.
    pub(super) stop: CancellationToken,
    /// Keys that control messages named since the last look.
    pub(super) asked: Vec<String>,
    /// When the lane looks at what rests.
    pub(super) look_at: Option<Instant>,
    /// How long the last batch took: a look may take as long.
    pub(super) batch_took: Duration,
    /// A key of the partition waits for a row that somebody holds.
    pub(super) locked: bool,
    /// Rows that somebody holds are waited for: only as long as nobody is known to hold one.
    patient: bool,
    /// Writes that nobody has applied were here after the turn.
    pub(super) stranded: Option<Stranded>,
}

/// Deliveries that are committed together, and the marker behind them.
pub struct Batch {
    items: Vec<Item>,
    /// The newest delivery, a control message or a write.
    newest: Option<u64>,
    marker: Option<Marker>,
}

/// A marker at the head of the lane.
pub(super) struct Marker {
    pub(super) tag: u64,
    pub(super) number: Uuid,
}

impl<'a, S: Store, H: Shell> Lane<'a, S, H> {
    /// A lane that has nothing in hand.
    pub fn new(
        partition: PartitionId,
        store: &'a mut S,
        shell: &'a H,
        limits: BatchLimits,
        stop: CancellationToken,
    ) -> Self {
        Self {
            partition,
            store,
            shell,
            limits,
            stop,
            asked: Vec::new(),
            look_at: None,
            batch_took: Duration::ZERO,
            locked: false,
            patient: true,
            stranded: None,
        }
    }

    /// Serves the subscription: a batch of what arrived, then a look at what rests, if it is time.
    pub async fn serve(&mut self, deliveries: &mut impl Deliveries) -> Ended {
        loop {
            let quiet =
                self.look_at.map_or(IDLE_MAX, |at| at.saturating_duration_since(Instant::now()));
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Stopped,
                first = timeout(quiet, deliveries.next()) => first,
            };
            let turn = match first {
                Ok(Some(first)) => {
                    let Batch { items, newest, marker } = self.collect(deliveries, first);
                    let span = traces::batch(self.partition, &items);
                    let finished = self.finish(deliveries, items, newest);
                    match (traces::within(&span, finished).await, marker) {
                        (Ok(()), Some(marker)) => self.stand_before(deliveries, &marker).await,
                        (finished, _) => finished,
                    }
                }
                Ok(None) => return Ended::Gone,
                Err(_quiet) if self.look_at.is_some() => Ok(()),
                Err(_quiet) => {
                    self.store.release();
                    continue;
                }
            };
            let turn = match turn {
                Ok(()) if self.is_time_to_look() => {
                    let asked = !self.asked.is_empty();
                    self.look(deliveries, asked).await
                }
                turn => turn,
            };
            if let Err(ended) = turn {
                return ended;
            }
            self.shell.rests(self.partition);
            if self.store.is_scarce() {
                self.store.release();
            }
        }
    }

    /// Collects what has arrived, in queue order, behind `first`, up to the limits. There is no
    /// timer: while one batch commits the next one gathers.
    fn collect(&mut self, deliveries: &mut impl Deliveries, first: (u64, Message)) -> Batch {
        let entities = self.shell.entities();
        let mut batch = Batch { items: Vec::new(), newest: None, marker: None };
        let (mut taken, mut bytes, mut next) = (0, 0_usize, Some(first));
        while let Some((tag, message)) = next {
            if let Some(number) = message.marker() {
                batch.marker = Some(Marker { tag, number });
                break;
            }
            taken += 1;
            batch.newest = Some(tag);
            bytes = bytes.saturating_add(message.body.len());
            if message.is_look() {
                self.asked.push(message.routing_key);
            } else {
                batch.items.push(Item::new(tag, message, &entities, self.limits));
            }
            let full = taken >= self.limits.writes_max || bytes >= self.limits.bytes_max;
            next = if full { None } else { deliveries.arrived() };
        }
        if self.partition == PartitionId::DEAD {
            batch.items.iter_mut().for_each(Item::give_up);
        }
        self.shell.took(self.partition, taken);
        batch
    }

    /// Commits and settles a batch, whatever it takes.
    async fn finish(
        &mut self,
        deliveries: &impl Deliveries,
        items: Vec<Item>,
        newest: Option<u64>,
    ) -> Result<(), Ended> {
        let started = Instant::now();
        self.patient = !self.locked;
        let unsettled = newest.filter(|_| last_tag(&items) != newest);
        let mut waiting: VecDeque<Vec<Item>> =
            if items.is_empty() { VecDeque::new() } else { VecDeque::from([items]) };
        let (mut attempts, mut reclaims) = (Attempts::default(), 0);
        let patience = started + PATIENCE_MAX;
        while let Some(items) = waiting.front_mut() {
            let Err(failure) = self.step(deliveries, items).await? else {
                waiting.pop_front();
                attempts.clear();
                continue;
            };
            let attempt = attempts.entry(failure.cause()).or_default();
            *attempt += 1;
            let verdict = failure.verdict(*attempt, items.len());
            self.shell.failed(self.partition, &failure, &verdict);
            match verdict {
                Verdict::Reclaim => {
                    self.reclaim(deliveries, &failure, &mut reclaims, patience).await?;
                }
                Verdict::Retry { after, halt } => {
                    if halt {
                        // The user may have changed the table since it was read.
                        self.decode_again(items).await;
                    }
                    self.wait(&failure, after, halt, patience).await?;
                    if matches!(failure, Failure::ParkFull(_)) {
                        // Whoever frees a key must be served, or there would never be room.
                        self.look(deliveries, true).await?;
                    }
                }
                Verdict::Hold { after } => {
                    if self.hold(deliveries, items).await? {
                        waiting.pop_front();
                        attempts.clear();
                    } else {
                        self.wait(&failure, after, false, patience).await?;
                    }
                }
                Verdict::Bisect => {
                    bisect(&mut waiting);
                    // Who holds a row still does: there is no need to find out again.
                    attempts.retain(|cause, _| *cause == Failure::LOCKED);
                }
                Verdict::Reject(_) | Verdict::Rest(_) => {
                    for item in items {
                        item.judge(&verdict);
                    }
                    attempts.clear();
                }
            }
        }
        if let Some(control_message) = unsettled {
            deliveries.settle_through(control_message).await?;
        }
        self.batch_took = started.elapsed();
        if self.shell.does(self.partition, Doing::Active) {
            info!(partition = %self.partition, "Committing");
        }
        Ok(())
    }

    /// One try, and the settlement of what it committed.
    async fn step(
        &mut self,
        deliveries: &impl Deliveries,
        items: &mut [Item],
    ) -> Result<Result<(), Failure>, Ended> {
        let started = Instant::now();
        let plan = match self.commit(items).await {
            Ok(plan) => plan,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(tag) = last_tag(items) {
            let settling = deliveries.settle_through(tag);
            settling.instrument(traces::settle(self.partition)).await?;
        }
        self.shell.settled(self.partition, items, &plan, started.elapsed());
        Ok(Ok(()))
    }

    /// A batch of deliveries in a transaction that an older epoch cannot commit.
    async fn commit(&mut self, items: &mut [Item]) -> Result<CommitPlan, Failure> {
        self.refresh(items).await?;
        let opening = Opening { patient: self.patient, look: None };
        let opened = traces::step("open", self.store.open(self.partition, &opening)).await?;
        self.locked = opened.locked;
        self.look_at = opened.due.map(|due| Instant::now() + due);
        let decided = self.decide(items).await;
        if matches!(decided, Err(Failure::Locked(_))) {
            self.patient = false;
        }
        decided
    }

    /// The whole promise in three lines: what is known and locked, what is decided, what is stored;
    /// all in the transaction that is open. Only then is anything settled.
    pub(super) async fn decide(&mut self, items: &[Item]) -> Result<CommitPlan, Failure> {
        let loaded = traces::step("load", self.store.load(items)).await?;
        let plan = match plan(items, loaded, self.shell.park_limits()) {
            Ok(plan) => plan,
            Err(failure) => {
                self.store.roll_back().await;
                return Err(failure);
            }
        };
        traces::step("commit", self.store.commit(self.partition, items, &plan)).await?;
        if let Some(pause) = first_pause(&plan) {
            let at = Instant::now() + pause;
            self.look_at = Some(self.look_at.map_or(at, |look_at| look_at.min(at)));
        }
        Ok(plan)
    }
}

pub(super) fn last_tag(items: &[Item]) -> Option<u64> {
    match items.last()?.source {
        Source::Delivery(tag) => Some(tag),
        Source::Letter { .. } => None,
    }
}

fn bisect(waiting: &mut VecDeque<Vec<Item>>) {
    if let Some(mut first) = waiting.pop_front() {
        let second = first.split_off(first.len() / 2);
        waiting.push_front(second);
        waiting.push_front(first);
    }
}

/// Until the first key is due that the plan lets wait.
fn first_pause(plan: &CommitPlan) -> Option<Duration> {
    let pauses = plan.keys.iter().filter_map(|key| match &key.then {
        KeyThen::Waits(waiting) => Some(waiting.delay().unsigned_abs()),
        KeyThen::AsBefore | KeyThen::Stopped | KeyThen::GoesOn => None,
    });
    pauses.min()
}
