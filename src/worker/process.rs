//! What all partitions of a worker share.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::clock;
use crate::core::batch::{BatchLimits, Item};
use crate::core::entity::Entities;
use crate::core::failure::{Failure, Verdict};
use crate::core::moment::parse_rfc3339_micros;
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;
use crate::rabbit::outcomes::Reply;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

use super::catalogue::Catalogue;
use super::reply;
use super::status::{Board, Doing};
use super::turn::Shell;

/// One worker process.
pub struct Process {
    pub settings: Settings,
    /// This worker's name: owner of claims, half of every rendezvous score.
    pub worker: String,
    pub pool: PgPool,
    pub catalogue: Catalogue,
    pub board: Board,
    pub metrics: Metrics,
    /// Bounded; what does not fit is dropped, as WIRE.md allows.
    pub replies: mpsc::Sender<Reply>,
}

impl Process {
    /// What a batch may hold.
    pub fn limits(&self) -> BatchLimits {
        let batch = &self.settings.batch;
        BatchLimits {
            writes_max: batch.writes_max.get(),
            bytes_max: batch.bytes_max.get(),
            body_bytes_max: batch.body_bytes_max.get(),
        }
    }

    fn observe_lag(&self, items: &[Item]) {
        let now = clock::now();
        for item in items {
            let properties = &item.message.properties;
            let published = match properties.header("published-at") {
                Some(text) => parse_rfc3339_micros(&text).ok(),
                None => properties
                    .timestamp
                    .and_then(|seconds| i64::try_from(seconds).ok())
                    .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok()),
            };
            if let Some(published) = published {
                self.metrics.lagged((now - published).as_seconds_f64().max(0.0));
            }
        }
    }
}

impl Shell for Process {
    fn entities(&self) -> Arc<Entities> {
        self.catalogue.entities()
    }

    async fn refresh(&self) -> Result<Arc<Entities>, Failure> {
        self.catalogue.refresh().await
    }

    fn took(&self, partition: PartitionId, deliveries: usize) {
        self.metrics.received(deliveries);
        self.board.took(partition);
    }

    fn settled(&self, _: PartitionId, items: &[Item], plan: &CommitPlan, took: Duration) {
        self.metrics.committed(plan, took);
        self.observe_lag(items);
        for (item, settled) in items.iter().zip(&plan.settled) {
            let Some(reply) = reply::reply(item, settled, &self.settings.amqp) else { continue };
            if self.replies.try_send(reply).is_err() {
                self.metrics.reply_dropped();
            }
        }
    }

    fn failed(&self, failure: &Failure, verdict: &Verdict) {
        match verdict {
            Verdict::Bisect => self.metrics.bisected(),
            Verdict::Retry { .. } => self.metrics.retried(failure.cause()),
            Verdict::Reclaim | Verdict::Reject(_) => {}
        }
        if *failure == Failure::Superseded {
            self.metrics.fenced();
        }
    }

    fn does(&self, partition: PartitionId, doing: Doing) -> bool {
        self.board.does(partition, doing)
    }
}
