//! Supervises the connections: connect, serve every queue, look after the ring, and start again
//! when a connection is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::postgres::generations;
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::outcomes::{Exit, Leaving};
use crate::rabbit::topology::Topology;

use super::process::Process;
use super::roll::Roller;
use super::subscriptions::Subscriptions;

/// Pause before the broker is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether an alarm stops publishing.
const ALARMS_EVERY: Duration = Duration::from_millis(500);
/// Pause before a fault is tried again that a person must mend.
const MENDED_AFTER: Duration = Duration::from_secs(15);

/// Serves until `drain`.
pub(super) async fn run(
    process: Arc<Process>,
    mut leaving: mpsc::Receiver<Leaving>,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut said = None;
    while !drain.is_cancelled() {
        let Err(failure) = serve(&process, &mut leaving, &drain, &mut said).await else { continue };
        process.metrics.connected(false);
        let passes = failure.downcast_ref().is_none_or(BrokerError::passes);
        let why = format!("{failure:#}");
        process.board.broker(Some(why.clone()));
        // Once for each kind of trouble, not once for each try.
        if said.as_deref() != Some(why.as_str()) {
            if passes {
                warn!("Waiting for the broker: {why}");
            } else {
                error!("Stopped until somebody mends it: {why}");
            }
            said = Some(why);
        }
        tokio::select! {
            () = sleep(if passes { RECONNECT_AFTER } else { MENDED_AFTER }) => {}
            () = drain.cancelled() => {}
        }
    }
    process.board.drains();
    Ok(())
}

/// One life of the connections. Publishing has its own: a blocked one must not hold up
/// acknowledgements.
async fn serve(
    process: &Arc<Process>,
    leaving: &mut mpsc::Receiver<Leaving>,
    drain: &CancellationToken,
    said: &mut Option<String>,
) -> anyhow::Result<()> {
    let amqp = &process.settings.amqp;
    let answer_max = Duration::from_millis(amqp.timeout_ms.get().into());
    let name = |role| format!("keylane {} {role}", process.worker);
    let consuming = Connection::open(amqp, &name("consume"), answer_max).await;
    let consuming = Arc::new(consuming.context("connect to the broker")?);
    let publishing = Connection::open(amqp, &name("publish"), answer_max).await;
    let publishing = publishing.context("connect to the broker")?;
    let exit = Exit::open(&publishing).await.context("open a channel for outcomes")?;

    stand(process, &consuming).await?;
    let stop = drain.child_token();
    let mut subscriptions = Subscriptions::new(process, &consuming, &stop);
    subscriptions.look().await.context("read whose turn it is")?;
    let publishing = Arc::new(publishing);
    let roller = Roller {
        process: Arc::clone(process),
        connection: Arc::clone(&publishing),
        stop: stop.clone(),
    };
    process.board.broker(None);
    process.metrics.connected(true);
    if said.take().is_some() {
        info!("The broker is back");
    }

    let (watch_consuming, watch_publishing) =
        (consuming.watch(stop.clone()), publishing.watch(stop.clone()));
    tokio::select! {
        () = watch_consuming => {}
        () = watch_publishing => {}
        () = forward(process, &exit, leaving) => {}
        () = look_for_alarms(process, &publishing) => {}
        () = subscriptions.run() => {}
        () = Box::pin(roller.run()) => {}
    }
    stop.cancel();
    process.board.blocked(false);
    subscriptions.ended().await;
    while let Ok(message) = leaving.try_recv() {
        if exit.send(message).await.is_err() {
            process.metrics.reply_dropped();
        }
    }
    consuming.close().await;
    publishing.close().await;
    if drain.is_cancelled() { Ok(()) } else { anyhow::bail!("the connection was lost") }
}

/// Makes sure of what stands for ever, and that this is the broker that the database is for.
async fn stand(process: &Process, connection: &Connection) -> anyhow::Result<()> {
    let amqp = &process.settings.amqp;
    let broker = process.broker(connection);
    let partitions = i32::from(amqp.partitions.get());
    let settled = generations::settle_on(&process.pool, &broker, partitions).await;
    let settled = settled.context("read what the database is for")?;
    anyhow::ensure!(
        settled == broker,
        "this database belongs to `{settled}` (virtual host and prefix), not to `{broker}`: two \
         brokers would take the writes from each other; give each a database of its own"
    );
    let topology = Topology::new(connection, &amqp.prefix);
    topology.declare_frame().await.context("declare the exchanges and queues that always stand")
}

/// Shows whether the broker takes outcomes and markers; runs for as long as the connection.
async fn look_for_alarms(process: &Process, publishing: &Connection) {
    loop {
        process.board.blocked(publishing.blocked());
        sleep(ALARMS_EVERY).await;
    }
}

async fn forward(process: &Process, exit: &Exit, leaving: &mut mpsc::Receiver<Leaving>) {
    while let Some(message) = leaving.recv().await {
        if exit.send(message).await.is_err() {
            process.metrics.reply_dropped();
        }
    }
}
