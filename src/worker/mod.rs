//! Consumes: the shell around the core.

mod catalogue;
mod generations;
mod housekeeping;
mod look;
mod partition;
mod patience;
mod process;
pub mod reply;
mod serve;
pub mod status;
pub mod turn;

use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use crate::core::hot::Hot;
use crate::http;
use crate::lifecycle::Lifecycle;
use crate::postgres::{connect, migrate};
use crate::settings::Settings;
use crate::telemetry::metrics::{self, Metrics};

use catalogue::Catalogue;
pub use process::Process;
use status::Board;

/// Messages that may wait for their way out; beyond it they are dropped, and counted.
const LEAVING_MAX: usize = 10_000;

/// Counters of busy keys; a key with more than one write in so many is among them.
const HOT_KEYS_MAX: usize = 512;

/// Runs a worker until a signal, or until it cannot go on.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let drain_max = Duration::from_millis(settings.worker.drain_max_ms.get().into());
    let mut lifecycle = Lifecycle::new(drain_max).context("listen for signals")?;
    let page = metrics::install()?;
    let listen = settings.http.listen.clone();
    let retention_hours = settings.ledger.retention_hours.get();

    let pool = connect::pool(&settings.database).context("read database.url")?;
    let mut connection = pool.acquire().await.context("connect to the database")?;
    if migrate::pending(&mut connection).await.context("look at the migrations")? {
        bail!("the database has not all tables of this version: run `keylane migrate`");
    }
    drop(connection);
    let catalogue = Catalogue::load(pool.clone(), settings.entities.clone())
        .await
        .context("check the entities against the database")?;

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
        leaving: exit,
        resting: AtomicUsize::new(0),
        hot: Mutex::new(Hot::new(HOT_KEYS_MAX)),
        started: Instant::now(),
    });

    let drain = lifecycle.drain();
    let drained = CancellationToken::new();
    let listener = http::bind(&listen).await?;
    lifecycle.spawn("http", http::serve(listener, page, Arc::clone(&process), drained.clone()));
    lifecycle.spawn(
        "housekeeping",
        housekeeping::run(Arc::clone(&process), retention_hours, drain.clone()),
    );
    let drained = drained.drop_guard();
    lifecycle.spawn("worker", async move {
        let _probes_until_then = drained;
        serve::run(process, leaving, drain).await
    });
    Ok(lifecycle.run().await)
}

/// Host name and a random part: two workers never share one.
fn default_id() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}", random.get(..8).unwrap_or_default())
}
