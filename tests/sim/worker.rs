//! A simulated worker: the real loop over a simulated queue and a simulated server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use keylane::core::batch::{BatchLimits, Item};
use keylane::core::entity::Entities;
use keylane::core::failure::{Failure, Verdict};
use keylane::core::message::Message;
use keylane::core::parking::ParkLimits;
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Settled};
use keylane::core::roll::Source;
use keylane::store::Store;
use keylane::worker::status::Doing;
use keylane::worker::turn::{Lane, Shell};
use tokio::time::sleep;

use super::broker::{Broker, Subscription};
use super::database::Database;
use super::process::Process;
use super::routing::queues;
use super::store::MemoryStore;

/// How long a copy is waited for.
const COPIES_MAX: Duration = Duration::from_secs(20);

/// What all workers of a run share.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) broker: Arc<Mutex<Broker>>,
    pub(crate) database: Arc<Mutex<Database>>,
    pub(crate) entities: Arc<Entities>,
    /// What each settled delivery was told, by the number that its sender gave it.
    pub(crate) answers: Arc<Mutex<Vec<(usize, Settled)>>>,
    pub(crate) prefetch: usize,
    pub(crate) limits: BatchLimits,
    pub(crate) park_limits: ParkLimits,
}

impl World {
    /// Publishes a message, with as many copies as its routing makes.
    pub(crate) fn publish(&self, message: &Message) {
        let copies = self.broker.lock().expect("nobody panics with the broker").publish(message);
        let mut database = self.database.lock().expect("nobody panics with the database");
        database.copied(message, copies - 1);
    }

    /// The queues that are to be served.
    fn consumed(&self) -> Vec<PartitionId> {
        let database = self.database.lock().expect("nobody panics with the database");
        let line = &database.line;
        let rings = (1..).zip(&line.generations);
        let rings = rings.filter(|(number, _)| line.is_consumed(Source::Ring(*number)));
        let queues = rings.flat_map(|(number, ring)| queues(number, ring.partitions));
        std::iter::once(PartitionId::HELD).chain(queues).collect()
    }
}

/// One incarnation of a worker.
pub(crate) struct Worker {
    pub(crate) world: World,
    pub(crate) process: Process,
}

impl Worker {
    /// Serves what is to be served, and looks after the ring, until it is asked to stop.
    pub(crate) async fn run(&self) {
        futures_util::future::join(self.serve_all(), self.roll()).await;
    }

    /// As `worker::subscriptions` does.
    async fn serve_all(&self) {
        let (mut lanes, mut known) = (FuturesUnordered::new(), BTreeSet::new());
        while !self.process.stop.is_cancelled() {
            for id in self.world.consumed() {
                if known.insert(id) {
                    lanes.push(self.serve(id));
                }
            }
            tokio::select! {
                biased;
                () = self.process.stop.cancelled() => {}
                Some(()) = lanes.next() => {}
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        while lanes.next().await.is_some() {}
    }

    /// As `worker::partition` does.
    async fn serve(&self, partition: PartitionId) {
        let mut store = MemoryStore::new(Arc::clone(&self.world.database), self.process.clone());
        while !self.process.stop.is_cancelled() {
            self.process.step("subscribe").await;
            if !self.world.broker.lock().expect("nobody panics with the broker").has(partition) {
                return;
            }
            let mut subscription = Subscription::open(&self.world, &self.process, partition);
            self.process.step("subscribed").await;
            let (limits, stop) = (self.world.limits, self.process.stop.clone());
            let ended =
                Lane::new(partition, &mut store, self, limits, stop).serve(&mut subscription).await;
            self.process.roll(|dice| dice.note(&format!("{} {ended:?}", self.process.id)));
            store.release();
            self.process.step("released").await;
            subscription.close();
            sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Shell for Worker {
    fn entities(&self) -> Arc<Entities> {
        Arc::clone(&self.world.entities)
    }

    async fn refresh(&self) -> Result<Arc<Entities>, Failure> {
        self.process.step("refresh").await;
        match self.process.failure() {
            Some(failure) => Err(Failure::Unavailable(failure.to_string())),
            None => Ok(self.entities()),
        }
    }

    fn park_limits(&self) -> ParkLimits {
        self.world.park_limits
    }

    fn copies_max(&self) -> Duration {
        COPIES_MAX
    }

    fn held(&self, _: PartitionId, _: u64) {}

    fn rests(&self, _partition: PartitionId) {}

    fn took(&self, _partition: PartitionId, _deliveries: usize) {}

    fn settled(&self, _partition: PartitionId, items: &[Item], plan: &CommitPlan, _took: Duration) {
        let mut answers = self.world.answers.lock().expect("nobody panics with the answers");
        for (item, settled) in items.iter().zip(&plan.settled) {
            if item.is_letter() && settled.outcome.label() == "parked" {
                continue;
            }
            let number = item.message.properties.correlation_id.as_deref();
            let number = number.and_then(|number| number.parse().ok());
            answers.push((number.expect("each message has a number"), settled.clone()));
        }
    }

    fn failed(&self, _: PartitionId, failure: &Failure, verdict: &Verdict) {
        self.process.roll(|dice| {
            dice.note(&format!("{} {failure} {verdict:?}", self.process.id));
        });
    }

    fn does(&self, _partition: PartitionId, _doing: Doing) -> bool {
        false
    }
}
