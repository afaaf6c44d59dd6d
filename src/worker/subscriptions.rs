//! Which queues this worker serves: held and dead always, the ring whose turn it is, and those
//! whose turn is over, for what comes late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::core::partition::PartitionId;
use crate::core::rendezvous::leaves_to_others;
use crate::postgres::turns::{self, Consumed};
use crate::rabbit::connection::Connection;

use super::partition::Partition;
use super::process::Process;

/// How often it is looked whether another ring has its turn.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The queues of one life of the connection.
pub(super) struct Subscriptions {
    process: Arc<Process>,
    connection: Arc<Connection>,
    stop: CancellationToken,
    lanes: JoinSet<()>,
    /// Every queue that was ever served; one that is no more does not come back.
    known: HashSet<PartitionId>,
}

impl Subscriptions {
    pub(super) fn new(
        process: &Arc<Process>,
        connection: &Arc<Connection>,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            process: Arc::clone(process),
            connection: Arc::clone(connection),
            stop: stop.clone(),
            lanes: JoinSet::new(),
            known: HashSet::new(),
        }
    }

    /// Begins to serve what is to be served and is not yet.
    pub(super) async fn look(&mut self) -> Result<(), sqlx::Error> {
        let rings = turns::consumed(&self.process.pool).await?;
        let before = self.known.len();
        for id in [PartitionId::HELD, PartitionId::DEAD] {
            self.serve(id, Duration::ZERO);
        }
        for Consumed { generation, partitions, since_ms } in rings {
            let most = Duration::from_millis(self.process.settings.generations.spread_ms.into());
            let since = Duration::from_millis(since_ms.try_into().unwrap_or(0));
            for partition in 0..partitions {
                let id = PartitionId { generation, partition };
                let wait = leaves_to_others(self.process.score(id), most);
                self.serve(id, wait.saturating_sub(since));
            }
        }
        if self.known.len() > before {
            info!(partitions = self.known.len(), "Subscribed");
        }
        Ok(())
    }

    fn serve(&mut self, id: PartitionId, wait: Duration) {
        if is_ours(&self.process, id) && self.known.insert(id) {
            let (process, connection) = (Arc::clone(&self.process), Arc::clone(&self.connection));
            let partition = Partition { id, process, connection, stop: self.stop.clone() };
            self.lanes.spawn(partition.run(wait));
        }
    }

    /// Goes on so until it is told to stop, and every queue is given back.
    ///
    /// A panic in a lane goes on here, so that the process drains.
    pub(super) async fn run(&mut self) {
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(LOOK_EVERY) => {
                    if let Err(error) = self.look().await {
                        debug!(%error, "failed to look whose turn it is");
                    }
                }
                Some(ended) = self.lanes.join_next() => go_on_panicking(ended),
            }
        }
        self.ended().await;
    }

    /// Waits for every lane.
    pub(super) async fn ended(&mut self) {
        while let Some(ended) = self.lanes.join_next().await {
            go_on_panicking(ended);
        }
    }
}

fn go_on_panicking(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended
        && panic.is_panic()
    {
        std::panic::resume_unwind(panic.into_panic());
    }
}

/// Whether `worker.partitions` leaves this queue to us.
fn is_ours(process: &Process, id: PartitionId) -> bool {
    let chosen = &process.settings.worker.partitions;
    id.generation == 0
        || chosen.is_empty()
        || chosen.iter().any(|partition| i32::from(*partition) == id.partition)
}
