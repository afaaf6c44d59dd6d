//! A simulated worker: the real loop over a simulated queue and a simulated server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keylane::core::batch::{BatchLimits, Item};
use keylane::core::entity::Entities;
use keylane::core::failure::{Failure, Verdict};
use keylane::core::parking::ParkLimits;
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Settled};
use keylane::store::Store;
use keylane::worker::status::Doing;
use keylane::worker::turn::{Lane, Shell};
use tokio::time::sleep;

use super::broker::{Broker, Subscription};
use super::database::Database;
use super::process::Process;
use super::store::MemoryStore;

/// What all workers of a run share.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) broker: Arc<Mutex<Broker>>,
    pub(crate) database: Arc<Mutex<Database>>,
    pub(crate) entities: Arc<Entities>,
    /// What each settled delivery was told, by the number that its sender gave it.
    pub(crate) answers: Arc<Mutex<Vec<(usize, Settled)>>>,
    pub(crate) partitions: usize,
    pub(crate) prefetch: usize,
    pub(crate) limits: BatchLimits,
    pub(crate) park_limits: ParkLimits,
}

/// One incarnation of a worker.
pub(crate) struct Worker {
    pub(crate) world: World,
    pub(crate) process: Process,
}

impl Worker {
    /// Serves every partition until it is asked to stop.
    pub(crate) async fn run(&self) {
        let lanes = (0..self.world.partitions).map(|partition| self.serve(partition));
        futures_util::future::join_all(lanes).await;
    }

    /// As `worker::partition` does.
    async fn serve(&self, queue: usize) {
        let mut store = MemoryStore::new(Arc::clone(&self.world.database), self.process.clone());
        while !self.process.stop.is_cancelled() {
            self.process.step("subscribe").await;
            let mut subscription = Subscription::open(&self.world, &self.process, queue);
            self.process.step("subscribed").await;
            let partition = i32::try_from(queue).expect("there are few partitions");
            let partition = PartitionId { generation: 1, partition };
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
