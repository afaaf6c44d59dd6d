//! A partition's turn: one batch at a time, from the broker to the database and back.
//!
//! Owns: the order of the steps (`Lane::commit`), and carrying out the core's verdicts.
//! Never: decides about a write, or settles what is not committed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::core::batch::{BatchLimits, Item, Wanted};
use crate::core::entity::Entities;
use crate::core::failure::{Failure, Verdict};
use crate::core::message::Message;
use crate::core::outcome::Rejection;
use crate::core::partition::PartitionId;
use crate::core::plan::{CommitPlan, plan};
use crate::deliveries::{Deliveries, Gone};
use crate::store::Store;

use super::status::Doing;

/// How long a batch may wait in hand for the database. Then the subscription is given back, long
/// before the broker's own consumer timeout (30 minutes by default) would take it.
pub const PATIENCE_MAX: Duration = Duration::from_mins(5);

/// Claims that a batch may cost before there is a pause in front of the next.
const RECLAIMS_AT_ONCE: u32 = 2;
/// That pause.
const RECLAIM_AFTER: Duration = Duration::from_millis(200);

/// What a lane needs of its process.
pub trait Shell: Send + Sync {
    /// The entities as they were last read.
    fn entities(&self) -> Arc<Entities>;
    /// Reads the catalogue again.
    fn refresh(&self) -> impl Future<Output = Result<Arc<Entities>, Failure>> + Send;
    /// A batch of so many deliveries is in hand.
    fn took(&self, partition: PartitionId, deliveries: usize);
    /// A batch is committed and settled.
    fn settled(&self, partition: PartitionId, items: &[Item], plan: &CommitPlan, took: Duration);
    /// Something went wrong and this is done about it.
    fn failed(&self, failure: &Failure, verdict: &Verdict);
    /// The lane does something else now; returns whether that is news.
    fn does(&self, partition: PartitionId, doing: Doing) -> bool;
}

/// How often a batch failed, by cause: a database that was away for long says nothing about the
/// race that a write loses afterwards.
type Attempts = HashMap<&'static str, u32>;

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
    pub partition: PartitionId,
    pub store: &'a mut S,
    pub shell: &'a H,
    pub limits: BatchLimits,
    /// Cancelled: finish the batch in hand, take nothing new.
    pub stop: CancellationToken,
}

impl<S: Store, H: Shell> Lane<'_, S, H> {
    /// Collects what has arrived, in queue order, behind `first`, up to the limits. There is no
    /// timer: while one batch commits the next one gathers.
    pub fn collect(&self, deliveries: &mut impl Deliveries, first: (u64, Message)) -> Vec<Item> {
        let entities = self.shell.entities();
        let mut bytes = first.1.body.len();
        let mut items = vec![Item::new(first.0, first.1, &entities, self.limits)];
        while items.len() < self.limits.writes_max && bytes < self.limits.bytes_max {
            let Some((tag, message)) = deliveries.arrived() else { break };
            bytes = bytes.saturating_add(message.body.len());
            items.push(Item::new(tag, message, &entities, self.limits));
        }
        if self.partition == PartitionId::DEAD {
            items.iter_mut().for_each(Item::give_up);
        }
        self.shell.took(self.partition, items.len());
        items
    }

    /// Commits and settles `items`, whatever it takes.
    pub async fn finish(
        &mut self,
        deliveries: &impl Deliveries,
        items: Vec<Item>,
    ) -> Result<(), Ended> {
        let mut waiting = VecDeque::from([items]);
        let (mut attempts, mut reclaims) = (Attempts::default(), 0);
        let patience = Instant::now() + PATIENCE_MAX;
        while let Some(items) = waiting.front_mut() {
            let Err(failure) = self.step(deliveries, items).await? else {
                waiting.pop_front();
                attempts.clear();
                continue;
            };
            let attempt = attempts.entry(failure.cause()).or_default();
            *attempt += 1;
            let verdict = failure.verdict(*attempt, items.len());
            self.shell.failed(&failure, &verdict);
            match verdict {
                Verdict::Reclaim => {
                    // A claim is no failure of the batch; but two owners must not take turns.
                    reclaims += 1;
                    if reclaims > RECLAIMS_AT_ONCE {
                        self.wait(&failure, RECLAIM_AFTER, false, patience).await?;
                    }
                    self.claim(deliveries, patience).await?;
                }
                Verdict::Retry { after, halt } => {
                    if halt {
                        // The user may have changed the table since it was read.
                        self.decode_again(items).await;
                    }
                    self.wait(&failure, after, halt, patience).await?;
                }
                Verdict::Bisect => {
                    bisect(&mut waiting);
                    attempts.clear();
                }
                Verdict::Reject(rejection) => {
                    reject(items, &rejection);
                    attempts.clear();
                }
            }
        }
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
        if items.iter().any(Item::stale)
            && let Err(failure) = self.refresh(items).await
        {
            return Ok(Err(failure));
        }
        let plan = match self.commit(items).await {
            Ok(plan) => plan,
            Err(failure) => return Ok(Err(failure)),
        };
        let last = items.last().map_or(0, |item| item.tag);
        deliveries.settle_through(last).await?;
        self.shell.settled(self.partition, items, &plan, started.elapsed());
        Ok(Ok(()))
    }

    /// The whole promise in three lines: what is known and locked, what is decided, what is stored;
    /// all in one transaction that an older epoch cannot commit. Only then is anything settled.
    async fn commit(&mut self, items: &[Item]) -> Result<CommitPlan, Failure> {
        let loaded = self.store.load(self.partition, &Wanted::of(items)).await?;
        let plan = plan(items, loaded);
        self.store.commit(self.partition, items, &plan).await?;
        Ok(plan)
    }

    /// Claims, and then proves that the subscription still lives: if it did not, another consumer
    /// claims later than we did, and everything in hand must be dropped.
    async fn claim(
        &mut self,
        deliveries: &impl Deliveries,
        patience: Instant,
    ) -> Result<(), Ended> {
        let mut attempt = 0;
        while let Err(failure) = self.store.claim(self.partition).await {
            attempt += 1;
            let verdict = failure.verdict(attempt, 1);
            self.shell.failed(&failure, &verdict);
            let (after, halt) = match verdict {
                Verdict::Retry { after, halt } => (after, halt),
                Verdict::Reclaim | Verdict::Bisect | Verdict::Reject(_) => (Duration::ZERO, false),
            };
            self.wait(&failure, after, halt, patience).await?;
        }
        Ok(deliveries.prove_alive().await?)
    }

    async fn wait(
        &self,
        failure: &Failure,
        after: Duration,
        halt: bool,
        patience: Instant,
    ) -> Result<(), Ended> {
        let doing = if halt {
            Doing::Halted(failure.to_string())
        } else {
            Doing::Waiting(failure.to_string())
        };
        if self.shell.does(self.partition, doing) {
            if halt {
                error!(partition = %self.partition, error = %failure, "Stopped until somebody mends it");
            } else {
                warn!(partition = %self.partition, error = %failure, "Waiting; nothing is lost");
            }
        }
        if Instant::now() > patience {
            return Err(Ended::DatabaseAway);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = sleep(after) => Ok(()),
        }
    }

    /// Decodes those refusals again that a fresh catalogue may lift.
    async fn refresh(&self, items: &mut [Item]) -> Result<(), Failure> {
        let entities = self.shell.refresh().await?;
        for item in items.iter_mut().filter(|item| item.stale()) {
            item.decode_again(&entities, self.limits);
        }
        Ok(())
    }

    async fn decode_again(&self, items: &mut [Item]) {
        if let Ok(entities) = self.shell.refresh().await {
            for item in items.iter_mut().filter(|item| item.decoded.is_ok()) {
                item.decode_again(&entities, self.limits);
            }
        }
    }
}

fn bisect(waiting: &mut VecDeque<Vec<Item>>) {
    if let Some(mut first) = waiting.pop_front() {
        let second = first.split_off(first.len() / 2);
        waiting.push_front(second);
        waiting.push_front(first);
    }
}

fn reject(items: &mut [Item], rejection: &Rejection) {
    for item in items {
        item.reject(rejection.clone());
    }
}
