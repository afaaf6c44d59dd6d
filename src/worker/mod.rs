//! Consumes: the shell around the core.

mod housekeeping;
mod look;
mod marker;
mod partition;
mod patience;
mod process;
pub mod reply;
mod roll;
mod serve;
pub mod status;
mod stranded;
mod subscriptions;
mod tidy;
pub mod turn;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use crate::core::hot::Hot;
use crate::lifecycle::Lifecycle;
use crate::postgres::catalogue::current::Catalogue;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::rolls::Rolls;

pub use process::Process;
use status::Board;

/// Messages that may wait for their way out; beyond it they are dropped, and counted.
const LEAVING_MAX: usize = 10_000;

/// Counters of busy keys; a key with more than one write in so many is among them.
const HOT_KEYS_MAX: usize = 512;

/// When a worker ends, and who is told.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Finish what is in hand, take nothing new.
    pub drain: CancellationToken,
    /// Cancelled when nothing is in hand any more.
    pub drained: CancellationToken,
}

/// Starts a worker's tasks.
pub fn start(
    lifecycle: &mut Lifecycle,
    settings: Settings,
    pool: PgPool,
    catalogue: Arc<Catalogue>,
    ends: &Ends,
) -> Arc<Process> {
    let Ends { drain, drained } = ends;
    let retention_hours = settings.ledger.retention_hours.get();
    let (exit, leaving) = mpsc::channel(LEAVING_MAX);
    let worker = settings.worker.id.clone().unwrap_or_else(default_id);
    info!(worker, entities = settings.entities.len(), "Starting");
    let process = Arc::new(Process {
        settings,
        worker,
        pool,
        catalogue,
        board: Board::default(),
        metrics: Metrics::new(),
        rolls: Rolls::new(),
        leaving: exit,
        resting: AtomicUsize::new(0),
        hot: Mutex::new(Hot::new(HOT_KEYS_MAX)),
        started: Instant::now(),
    });
    let housekeeping = housekeeping::run(Arc::clone(&process), retention_hours, drain.clone());
    lifecycle.spawn("housekeeping", once_known(&process, drain, housekeeping));
    let drained = drained.clone().drop_guard();
    let serving = serve::run(Arc::clone(&process), leaving, drain.clone());
    let serving = once_known(&process, drain, serving);
    lifecycle.spawn("worker", async move {
        let _probes_until_then = drained;
        serving.await
    });
    process
}

/// Begins when the entities are known; does nothing if `drain` comes first.
fn once_known<Fut>(
    process: &Arc<Process>,
    drain: &CancellationToken,
    work: Fut,
) -> impl Future<Output = anyhow::Result<()>> + Send + use<Fut>
where
    Fut: Future<Output = anyhow::Result<()>> + Send,
{
    let (catalogue, drain) = (Arc::clone(&process.catalogue), drain.clone());
    async move {
        if catalogue.known_before(&drain).await {
            work.await?;
        }
        Ok(())
    }
}

/// Host name and a random part: two workers never share one.
fn default_id() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}", random.get(..8).unwrap_or_default())
}
