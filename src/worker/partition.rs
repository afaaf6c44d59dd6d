//! Keeps one queue subscribed, and serves it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::core::partition::PartitionId;
use crate::postgres::store::PgStore;
use crate::rabbit::connection::Connection;
use crate::rabbit::consumer::{Queue, Subscription};
use crate::rabbit::error::BrokerError;
use crate::store::Store;

use super::process::Process;
use super::turn::{Ended, Lane};

/// Pause before a queue is subscribed again.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(1);

/// One queue of this worker.
pub(super) struct Partition {
    pub id: PartitionId,
    pub process: Arc<Process>,
    pub connection: Arc<Connection>,
    /// Cancelled when the process drains or the connection is lost.
    pub stop: CancellationToken,
}

impl Partition {
    /// Serves the queue, a while from now, until it is told to stop or the queue is no more.
    pub(super) async fn run(self, wait: Duration) {
        self.pause(wait).await;
        let settings = &self.process.settings;
        let timeout = Duration::from_millis(settings.database.statement_timeout_ms.get().into());
        let pool = self.process.pool.clone();
        let mut store = PgStore::new(pool, self.process.worker.clone(), timeout);
        while !self.stop.is_cancelled() {
            match self.subscribe().await {
                Ok(mut subscription) => {
                    self.process.board.subscribed(self.id);
                    let limits = self.process.limits();
                    let shell = &*self.process;
                    let stop = self.stop.clone();
                    let mut lane = Lane::new(self.id, &mut store, shell, limits, stop);
                    let ended = lane.serve(&mut subscription).await;
                    // The claim goes first, and the channel is closed, not cancelled.
                    store.release();
                    subscription.close().await;
                    self.process.board.ended(self.id);
                    debug!(partition = %self.id, ?ended, "Gave the subscription back");
                    if ended == Ended::DatabaseAway {
                        self.wait_for_database().await;
                    }
                }
                Err(BrokerError::Missing { .. }) => {
                    return info!(partition = %self.id, "The queue is no more");
                }
                Err(error) => warn!(partition = %self.id, %error, "failed to subscribe"),
            }
            self.pause(RESUBSCRIBE_AFTER).await;
        }
    }

    async fn subscribe(&self) -> Result<Subscription, BrokerError> {
        let amqp = &self.process.settings.amqp;
        let name = self.id.queue(&amqp.prefix);
        let queue = Queue {
            held: &format!("{}.held", amqp.prefix),
            tag: &format!("{}/{}", self.process.worker, self.id),
            prefetch: amqp.prefetch.get(),
            priority: self.process.score(self.id),
            name: &name,
        };
        Subscription::open(&self.connection, &queue).await
    }

    async fn wait_for_database(&self) {
        while !self.stop.is_cancelled() && self.process.pool.acquire().await.is_err() {
            self.pause(RESUBSCRIBE_AFTER).await;
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
