//! A long-running process: a worker, an ingress, or both.
//!
//! Owns: what is started in which order, and in which order it ends: readiness off, requests
//! answered, lanes drained, and only then the page for probes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http;
use crate::ingress::auth::Tokens;
use crate::ingress::{self, Ingress};
use crate::lifecycle::Lifecycle;
use crate::postgres::catalogue::CatalogueError;
use crate::postgres::catalogue::current::Catalogue;
use crate::postgres::{connect, migrate};
use crate::settings::Settings;
use crate::telemetry::metrics;
use crate::worker;

/// Connections that an ingress takes of `database.connections_max`.
const INGRESS_CONNECTIONS: u32 = 4;
/// Pause before a database is tried again that is away at the start.
const DATABASE_AFTER: Duration = Duration::from_secs(1);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    pub worker: bool,
    pub ingress: bool,
}

/// Runs until a signal, or until it cannot go on.
pub async fn run(settings: Settings, roles: Roles) -> anyhow::Result<ExitCode> {
    let drain_max = Duration::from_millis(settings.worker.drain_max_ms.get().into());
    let mut lifecycle = Lifecycle::new(drain_max).context("listen for signals")?;
    let page = metrics::install()?;
    let drain = lifecycle.drain();
    let catalogue = tokio::select! {
        catalogue = catalogue(&settings, roles) => catalogue?,
        // The database may stay away for long.
        () = lifecycle.signalled() => return Ok(ExitCode::SUCCESS),
    };
    let listener = http::bind(&settings.http.listen).await?;

    // Each ends when the one before it has: requests, then lanes, then probes.
    let (answered, drained) = (CancellationToken::new(), CancellationToken::new());
    let mut missing: Vec<Missing> = Vec::new();
    let mut router = axum::Router::new();
    if roles.ingress {
        let pool = connect::pool_of(&settings.database, connect::INGRESS, INGRESS_CONNECTIONS);
        let pool = pool.context("read database.url")?;
        let tokens = Tokens::load(settings.http.tokens_file.as_deref())?;
        let (ingress, answers) =
            Ingress::new(settings.clone(), pool, Arc::clone(&catalogue), tokens);
        let probe = Arc::clone(&ingress);
        missing.push(Box::new(move || probe.missing()));
        router = router.merge(ingress::router(Arc::clone(&ingress)));
        let (drain, answered) = (drain.clone(), answered.clone());
        lifecycle.spawn("ingress", ingress.run(answers, drain, answered));
    } else {
        let (drain, answered) = (drain.clone(), answered.clone());
        lifecycle.spawn("signals", async move {
            drain.cancelled().await;
            answered.cancel();
            Ok(())
        });
    }
    if roles.worker {
        let taken = if roles.ingress { INGRESS_CONNECTIONS } else { 0 };
        let most = settings.database.connections_max.get().saturating_sub(taken).max(1);
        let pool = connect::pool_of(&settings.database, connect::WORKER, most);
        let pool = pool.context("read database.url")?;
        let ends = worker::Ends { drain: answered, drained: drained.clone() };
        let process = worker::start(&mut lifecycle, settings.clone(), pool, catalogue, &ends);
        missing.push(Box::new(move || process.board.missing()));
    } else {
        let drained = drained.clone();
        lifecycle.spawn("requests", async move {
            answered.cancelled().await;
            drained.cancel();
            Ok(())
        });
    }
    let missing = move || missing.iter().flat_map(|of| of()).collect();
    let router = router.merge(http::probes::router(page, Arc::new(missing)));
    lifecycle.spawn("http", http::serve(listener, router, &settings.http, drained)?);
    Ok(lifecycle.run().await)
}

type Missing = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Reads the entities. A worker that cannot is of no use and ends; an ingress needs the database
/// for this alone, and waits for it.
async fn catalogue(settings: &Settings, roles: Roles) -> anyhow::Result<Arc<Catalogue>> {
    let name = if roles.worker { connect::WORKER } else { connect::INGRESS };
    let pool = connect::pool_of(&settings.database, name, 1).context("read database.url")?;
    let mut said = false;
    loop {
        match read(settings, pool.clone()).await {
            Ok(catalogue) => return Ok(Arc::new(catalogue)),
            Err(failure) => {
                let away = failure
                    .downcast_ref()
                    .is_some_and(|error| matches!(error, CatalogueError::Database(_)));
                if roles.worker || !away {
                    return Err(failure);
                }
                if !std::mem::replace(&mut said, true) {
                    warn!("Waiting for the database: {failure:#}");
                }
                sleep(DATABASE_AFTER).await;
            }
        }
    }
}

async fn read(settings: &Settings, pool: sqlx::PgPool) -> anyhow::Result<Catalogue> {
    let mut connection = pool.acquire().await.map_err(CatalogueError::Database)?;
    let pending = migrate::pending(&mut connection).await.context("look at the migrations")?;
    if pending {
        bail!("the database has not all tables of this version: run `keylane migrate`");
    }
    drop(connection);
    let catalogue = Catalogue::load(pool, settings.entities.clone()).await?;
    info!(entities = settings.entities.len(), "Entities read");
    Ok(catalogue)
}
