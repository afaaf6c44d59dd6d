//! What all partitions of a worker share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock;
use crate::core::batch::{BatchLimits, Item};
use crate::core::entity::Entities;
use crate::core::failure::{Failure, Verdict};
use crate::core::hot::Hot;
use crate::core::moment::parse_rfc3339_micros;
use crate::core::outcome::Outcome;
use crate::core::parking::{KeyThen, ParkLimits, Waiting};
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;
use crate::core::rendezvous::score;
use crate::postgres::catalogue::current::Catalogue;
use crate::rabbit::connection::Connection;
use crate::rabbit::outcomes::Leaving;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::rolls::Rolls;

use super::reply;
use super::status::{Board, Doing};
use super::turn::Shell;

/// Keys that a worker tells of.
const BUSIEST_SHOWN: usize = 20;

/// Of these, how many the metrics tell the share of.
const HOT_RANKS: usize = 5;

/// One worker process.
pub struct Process {
    pub settings: Settings,
    /// This worker's name: owner of claims, half of every rendezvous score.
    pub worker: String,
    pub pool: PgPool,
    pub catalogue: Arc<Catalogue>,
    pub board: Board,
    pub metrics: Metrics,
    pub rolls: Rolls,
    /// Bounded; what does not fit is dropped, as WIRE.md allows.
    pub leaving: mpsc::Sender<Leaving>,
    /// Writes that rest in all, as last counted.
    pub resting: AtomicUsize,
    /// The busiest keys.
    pub hot: Mutex<Hot>,
    pub started: Instant,
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

    /// This worker's score for a queue.
    pub fn score(&self, id: PartitionId) -> i32 {
        score(&self.worker, &id.queue(&self.settings.amqp.prefix))
    }

    /// The broker that a connection leads to, as the database knows it: virtual host and prefix.
    pub fn broker(&self, connection: &Connection) -> String {
        format!("{}/{}", connection.vhost(), self.settings.amqp.prefix)
    }

    fn count_keys(&self, items: &[Item]) {
        let now = self.started.elapsed();
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        for name in items.iter().filter(|item| !item.is_letter()).filter_map(Item::identity) {
            hot.count(&name.entity, &name.key, 1, now);
        }
    }

    /// Which share of the last minutes' writes the busiest keys had.
    pub fn hot_shares(&self) -> [f64; HOT_RANKS] {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        hot.shares(self.started.elapsed())
    }

    /// The busiest keys of the last minutes: entity, key and writes.
    pub fn busiest(&self) -> Vec<(String, String, u64)> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        hot.top(BUSIEST_SHOWN, self.started.elapsed())
    }

    fn observe_lag(&self, items: &[Item]) {
        let now = clock::now();
        for item in items.iter().filter(|item| !item.is_letter()) {
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

/// A key that begins to wait is worth a line in the log, with what it waits for; each further try
/// is not.
fn log_waits(plan: &CommitPlan) {
    for change in &plan.keys {
        let KeyThen::Waits(waiting) = &change.then else { continue };
        if waiting.tries == 1 {
            let Waiting { waits_for, why, .. } = waiting;
            warn!(
                entity = change.entity,
                waits_for = waits_for.label(),
                why,
                "A key waits; its writes rest in order, other keys go on"
            );
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

    fn park_limits(&self) -> ParkLimits {
        let park = &self.settings.park;
        ParkLimits {
            key_max: park.key_max.get(),
            room: park.total_max.get().saturating_sub(self.resting.load(Ordering::Relaxed)),
            wait_max: time::Duration::seconds(park.wait_max_s.get().into()),
        }
    }

    fn copies_max(&self) -> Duration {
        Duration::from_secs(self.settings.generations.copies_max_s.get().into())
    }

    fn held(&self, partition: PartitionId, nth: u64) {
        self.rolls.late();
        // Thousands may come at once: the log says how it goes on, the metric how many there are.
        if nth.is_power_of_two() {
            warn!(
                %partition,
                nth,
                "A write came after the turn of its queue, without a copy elsewhere: it gets one \
                 in held; later writes of its key may have been applied before it"
            );
        }
    }

    fn took(&self, partition: PartitionId, deliveries: usize) {
        self.metrics.received(deliveries);
        self.board.took(partition);
    }

    fn settled(&self, _: PartitionId, items: &[Item], plan: &CommitPlan, took: Duration) {
        self.metrics.committed(items, plan, took);
        log_waits(plan);
        let came: i64 = plan.keys.iter().map(|key| key.rested).sum();
        // Counted anew every two seconds; until then by what this worker saw.
        self.resting.fetch_add(usize::try_from(came).unwrap_or(0), Ordering::Relaxed);
        self.observe_lag(items);
        self.count_keys(items);
        for (item, settled) in items.iter().zip(&plan.settled) {
            if item.is_letter() && matches!(settled.outcome, Outcome::Parked(_)) {
                continue;
            }
            let Some(reply) = reply::reply(item, settled, &self.settings.amqp) else { continue };
            if self.leaving.try_send(reply).is_err() {
                self.metrics.reply_dropped();
            }
        }
    }

    fn rests(&self, partition: PartitionId) {
        self.board.settled(partition);
    }

    fn failed(&self, partition: PartitionId, failure: &Failure, verdict: &Verdict) {
        if matches!(failure, Failure::NotOurTurn(_)) {
            self.board.waits_for_its_turn(partition);
        }
        match verdict {
            Verdict::Bisect => self.metrics.bisected(),
            Verdict::Retry { .. } | Verdict::Hold { .. } => self.metrics.retried(failure.cause()),
            Verdict::Reclaim | Verdict::Reject(_) | Verdict::Rest(_) => {}
        }
        if *failure == Failure::Superseded {
            self.metrics.fenced();
            self.board.fenced(partition);
        }
    }

    fn does(&self, partition: PartitionId, doing: Doing) -> bool {
        self.board.does(partition, doing)
    }
}
