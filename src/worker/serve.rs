//! Supervises the connections: connect, make sure of a ring, serve every partition, and start
//! again when a connection is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::core::partition::PartitionId;
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::outcomes::{Exit, Leaving};

use super::generations;
use super::partition::Partition;
use super::process::Process;

/// Pause before the broker is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Pause before a fault is tried again that a person must mend.
const MENDED_AFTER: Duration = Duration::from_secs(15);
/// Pause before another worker's generation is looked at again.
const OPENED_AFTER: Duration = Duration::from_millis(300);

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
    let consuming = Connection::open(&amqp.url, &name("consume"), answer_max).await;
    let consuming = Arc::new(consuming.context("connect to the broker")?);
    let publishing = Connection::open(&amqp.url, &name("publish"), answer_max).await;
    let publishing = publishing.context("connect to the broker")?;
    let exit = Exit::open(&publishing).await.context("open a channel for outcomes")?;

    let Some(queues) = opened(process, &consuming, drain).await? else { return Ok(()) };
    let stop = drain.child_token();
    let mut partitions = JoinSet::new();
    for id in queues.into_iter().filter(|id| is_ours(process, *id)) {
        let connection = Arc::clone(&consuming);
        let partition =
            Partition { id, process: Arc::clone(process), connection, stop: stop.clone() };
        partitions.spawn(partition.run());
    }
    process.board.broker(None);
    process.metrics.connected(true);
    if said.take().is_some() {
        info!("The broker is back");
    }
    info!(partitions = partitions.len(), "Subscribed");

    let (watch_consuming, watch_publishing) =
        (consuming.watch(stop.clone()), publishing.watch(stop.clone()));
    tokio::select! {
        () = watch_consuming => {}
        () = watch_publishing => {}
        () = forward(process, &exit, leaving) => {}
        () = all_ended(&mut partitions) => {}
    }
    stop.cancel();
    all_ended(&mut partitions).await;
    while let Ok(message) = leaving.try_recv() {
        if exit.send(message).await.is_err() {
            process.metrics.reply_dropped();
        }
    }
    consuming.close().await;
    publishing.close().await;
    if drain.is_cancelled() { Ok(()) } else { anyhow::bail!("the connection was lost") }
}

/// Waits until a ring stands; `None` when the process drains first.
async fn opened(
    process: &Process,
    connection: &Connection,
    drain: &CancellationToken,
) -> anyhow::Result<Option<Vec<PartitionId>>> {
    while !drain.is_cancelled() {
        if let Some(queues) = generations::ensure(process, connection).await? {
            return Ok(Some(queues));
        }
        tokio::select! {
            () = sleep(OPENED_AFTER) => {}
            () = drain.cancelled() => {}
        }
    }
    Ok(None)
}

/// Whether `worker.partitions` leaves this queue to us.
fn is_ours(process: &Process, id: PartitionId) -> bool {
    let chosen = &process.settings.worker.partitions;
    id.generation == 0
        || chosen.is_empty()
        || chosen.iter().any(|partition| i32::from(*partition) == id.partition)
}

async fn forward(process: &Process, exit: &Exit, leaving: &mut mpsc::Receiver<Leaving>) {
    while let Some(message) = leaving.recv().await {
        if exit.send(message).await.is_err() {
            process.metrics.reply_dropped();
        }
    }
}

/// Waits for every partition; a panic in one goes on here, so that the process drains.
async fn all_ended(partitions: &mut JoinSet<()>) {
    while let Some(ended) = partitions.join_next().await {
        if let Err(panic) = ended
            && panic.is_panic()
        {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}
