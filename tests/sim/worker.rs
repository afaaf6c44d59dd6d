//! A simulated worker: the real loop over a simulated queue and a simulated server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keylane::core::batch::{BatchLimits, Item};
use keylane::core::entity::Entities;
use keylane::core::failure::{Failure, Verdict};
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Settled};
use keylane::deliveries::Deliveries;
use keylane::worker::status::Doing;
use keylane::worker::turn::{Ended, Lane, Shell};
use tokio::time::{sleep, timeout};

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
            self.consume(queue, &mut subscription, &mut store).await;
            store.release();
            self.process.step("released").await;
            subscription.close();
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn consume(
        &self,
        queue: usize,
        subscription: &mut Subscription,
        store: &mut MemoryStore,
    ) -> Ended {
        let partition = i32::try_from(queue).expect("there are few partitions");
        loop {
            let first = tokio::select! {
                biased;
                () = self.process.stop.cancelled() => return Ended::Stopped,
                first = timeout(Duration::from_secs(30), subscription.next()) => first,
            };
            self.process.step("delivered").await;
            let first = match first {
                Ok(Some(first)) => first,
                Ok(None) => return Ended::Gone,
                Err(_idle) => {
                    store.release();
                    continue;
                }
            };
            let mut lane = Lane {
                partition: PartitionId { generation: 1, partition },
                store: &mut *store,
                shell: self,
                limits: self.world.limits,
                stop: self.process.stop.clone(),
            };
            let items = lane.collect(subscription, first);
            if let Err(ended) = lane.finish(subscription, items).await {
                return ended;
            }
            if self.process.roll(|dice| dice.below(8)) == 0 {
                store.release();
            }
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

    fn took(&self, _partition: PartitionId, _deliveries: usize) {}

    fn settled(&self, _partition: PartitionId, items: &[Item], plan: &CommitPlan, _took: Duration) {
        let mut answers = self.world.answers.lock().expect("nobody panics with the answers");
        for (item, settled) in items.iter().zip(&plan.settled) {
            let number = item.message.properties.correlation_id.as_deref();
            let number = number.and_then(|number| number.parse().ok());
            answers.push((number.expect("each message has a number"), settled.clone()));
        }
    }

    fn failed(&self, failure: &Failure, verdict: &Verdict) {
        self.process.roll(|dice| {
            dice.note(&format!("{} {failure} {verdict:?}", self.process.id));
        });
    }

    fn does(&self, _partition: PartitionId, _doing: Doing) -> bool {
        false
    }
}
