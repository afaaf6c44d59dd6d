//! A long-running process: a worker, an ingress, or both.
//!
//! Owns: what is started in which order, and in which order it ends: readiness off, requests
//! answered, lanes drained, and only then the page for probes. It answers probes from the first
//! moment, whoever else is away.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::http::probes::Check;
use crate::ingress::auth::Tokens;
use crate::ingress::{self, Ingress};
use crate::lifecycle::Lifecycle;
use crate::postgres::catalogue::current::Catalogue;
use crate::postgres::connect;
use crate::rabbit::tls;
use crate::reload::Reload;
use crate::settings::Settings;
use crate::telemetry::{database, metrics, upkeep};
use crate::worker;

/// Connections that an ingress takes of `database.connections_max`.
const INGRESS_CONNECTIONS: u32 = 4;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    pub worker: bool,
    pub ingress: bool,
}

type Checks = Box<dyn Fn() -> Vec<Check> + Send + Sync>;

/// Runs until a signal, or until it cannot go on.
pub async fn run(settings: Settings, roles: Roles, reload: Reload) -> anyhow::Result<ExitCode> {
    let drain_max = Duration::from_millis(settings.worker.drain_max_ms.get().into());
    tls::check(&settings.amqp).context("read the certificates for the broker")?;
    let mut lifecycle = Lifecycle::new(drain_max).context("listen for signals")?;
    let page = metrics::install()?;
    let drain = lifecycle.drain();
    let listener = http::bind(&settings.http.listen).await?;
    let catalogue = catalogue(&mut lifecycle, &settings, roles)?;
    lifecycle.spawn("reload", reload.run(drain.clone()));
    lifecycle.spawn("metrics", upkeep::keep_small(page.clone(), drain.clone()));

    // Each ends when the one before it has: requests, then lanes, then probes.
    let (answered, drained) = (CancellationToken::new(), CancellationToken::new());
    let entities = Arc::clone(&catalogue);
    let unread = move || vec![Check::of("entities", entities.missing())];
    let mut checks: Vec<Checks> = vec![Box::new(unread)];
    let mut router = axum::Router::new();
    if roles.ingress {
        let pool = connect::pool_of(&settings.database, connect::INGRESS, INGRESS_CONNECTIONS);
        let pool = pool.context("read database.url")?;
        let tokens = Tokens::load(settings.http.tokens_file.as_deref())?;
        if !roles.worker {
            lifecycle.spawn("database", database::watch(pool.clone(), drain.clone()));
        }
        let (ingress, answers) =
            Ingress::new(settings.clone(), pool, Arc::clone(&catalogue), tokens);
        let probe = Arc::clone(&ingress);
        checks.push(Box::new(move || probe.checks()));
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
        checks.push(Box::new(move || process.board.checks()));
    } else {
        let drained = drained.clone();
        lifecycle.spawn("requests", async move {
            answered.cancelled().await;
            drained.cancel();
            Ok(())
        });
    }
    let checks = move || checks.iter().flat_map(|of| of()).collect();
    let router = router.merge(http::probes::router(page, Arc::new(checks)));
    lifecycle.spawn("http", http::serve(listener, router, &settings.http, drained)?);
    Ok(lifecycle.run().await)
}

/// The entities: read as soon as the database is there, by a task that ends the process where
/// waiting would not help.
fn catalogue(
    lifecycle: &mut Lifecycle,
    settings: &Settings,
    roles: Roles,
) -> anyhow::Result<Arc<Catalogue>> {
    let name = if roles.worker { connect::WORKER } else { connect::INGRESS };
    let pool = connect::pool_of(&settings.database, name, 1).context("read database.url")?;
    let catalogue = Arc::new(Catalogue::unread(pool, settings.entities.clone()));
    let (read, drain) = (Arc::clone(&catalogue), lifecycle.drain());
    lifecycle.spawn("catalogue", async move {
        tokio::select! {
            read = read.read_first() => read?,
            () = drain.cancelled() => return Ok(()),
        }
        drain.cancelled().await;
        Ok(())
    });
    Ok(catalogue)
}
