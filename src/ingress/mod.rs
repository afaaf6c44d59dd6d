//! Writes over HTTP: published confirmed, waited for, answered with their outcome.
//!
//! Owns: what a request holds while it is in hand, and that the number of those is bounded.
//! Never: writes a row, or decides about a write: it asks the same code as the worker, and the
//! worker has the last word.

pub mod answer;
pub mod auth;
mod broker;
pub mod code;
pub mod headers;
mod lookups;
pub mod openapi;
mod pages;
mod places;
pub mod problem;
mod refreshes;
mod routes;
mod submit;
mod target;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::http::probes::Check;
use crate::postgres::catalogue::current::Catalogue;
use crate::settings::Settings;
use crate::telemetry::metrics::Ingress as Metrics;

use auth::Tokens;
use broker::Broker;
use lookups::{Answers, Lookups};
use places::Places;
use refreshes::{Reads, Refreshes};
use waiters::Waiters;

pub use routes::router;

/// How often entries are swept for which nobody waits any more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether everything in hand is answered.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(50);

/// What must run beside: it asks the database on behalf of many requests at once.
pub struct Helpers {
    answers: Answers,
    reads: Reads,
}

/// One ingress process.
pub struct Ingress {
    settings: Settings,
    /// Where writes are published.
    exchange: String,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
    broker: Broker,
    waiters: Waiters,
    lookups: Lookups,
    refreshes: Refreshes,
    tokens: Tokens,
    places: Places,
    draining: AtomicBool,
    metrics: Metrics,
    openapi: openapi::Page,
}

impl Ingress {
    /// An ingress that is not connected yet; [`Ingress::run`] must run with the second value.
    pub fn new(
        settings: Settings,
        pool: PgPool,
        catalogue: Arc<Catalogue>,
        tokens: Tokens,
    ) -> (Arc<Self>, Helpers) {
        let (lookups, answers) = Lookups::new(pool.clone());
        let (refreshes, reads) = Refreshes::new(Arc::clone(&catalogue));
        let ingress = Self {
            exchange: format!("{}.writes", settings.amqp.prefix),
            places: Places::new(settings.http.requests_max.get()),
            waiters: Waiters::new(settings.http.waiting_max.get()),
            broker: Broker::default(),
            draining: AtomicBool::new(false),
            metrics: Metrics::new(),
            openapi: openapi::Page::default(),
            settings,
            pool,
            catalogue,
            lookups,
            refreshes,
            tokens,
        };
        (Arc::new(ingress), Helpers { answers, reads })
    }

    /// Serves until `drain`, and then until everything in hand is answered; cancels `answered`
    /// then, and keeps the line to the broker until `closed`.
    pub async fn run(
        self: Arc<Self>,
        helpers: Helpers,
        drain: CancellationToken,
        answered: CancellationToken,
    ) -> anyhow::Result<()> {
        let closed = CancellationToken::new();
        let draining = async {
            drain.cancelled().await;
            self.draining.store(true, Ordering::Relaxed);
            info!(in_hand = self.places.in_hand(), "Answering what is in hand");
            while self.places.in_hand() > 0 {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
            answered.cancel();
            closed.cancel();
        };
        let ((), watched, (), ()) = tokio::join!(
            draining,
            self.tokens.watch(closed.clone()),
            self.broker.run(&self.settings, &self.waiters, closed.clone()),
            async {
                tokio::select! {
                    () = helpers.answers.run() => {}
                    () = helpers.reads.run() => {}
                    () = self.look_after() => {}
                    () = closed.cancelled() => {}
                }
            },
        );
        watched
    }

    /// What readiness looks at.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::from(self.broker.checks());
        if self.draining.load(Ordering::Relaxed) {
            checks.push(Check::draining());
        }
        checks
    }

    /// The largest body of one write: both the ingress's bound and the worker's hold.
    fn body_bytes_max(&self) -> usize {
        self.settings.http.body_bytes_max.min(self.settings.batch.body_bytes_max).get()
    }

    async fn look_after(&self) {
        let mut tick = interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.waiters.sweep();
            self.metrics.gauges(self.places.in_hand(), self.waiters.len());
        }
    }
}
