//! What has to be done now and then: look at the database, forget old write ids, show the board.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::postgres::{dead_letters, hot_keys, ledger_parts, parking};
use crate::rabbit::outcomes::Leaving;
use crate::telemetry::database;

use super::process::Process;

/// A key that has been due for so long is not looked at by anybody.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);
/// Most keys that are reminded of at once.
const REMINDERS_MAX: i64 = 200;
/// Holders of rows that the metrics count the keys of.
const BLOCKERS_SHOWN: i64 = 5;
/// Looks between two reports of the busiest keys.
const LOOKS_A_REPORT: u32 = 5;
/// Looks between two rounds of the ledger's parts.
const LOOKS_A_ROUND: u32 = 30;

/// Runs until `drain`.
pub(super) async fn run(
    process: Arc<Process>,
    retention_hours: u32,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut tick = interval(database::ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = drain.cancelled() => {
                process.board.drains();
                return Ok(());
            }
        }
        let (held, ages) = process.board.ages();
        process.metrics.board(held, process.board.full(), &ages);
        process.metrics.hot(&process.hot_shares());
        look_at_database(&process).await;
        if !process.board.database_missing()
            && let Err(error) = look_after_keys(&process).await
        {
            warn!(%error, "failed to look after the keys that stand still; trying again");
        }
        if looks.is_multiple_of(LOOKS_A_REPORT)
            && let Err(error) =
                hot_keys::store(&process.pool, &process.worker, &process.busiest()).await
        {
            debug!(%error, "failed to tell of the busiest keys");
        }
        if looks.is_multiple_of(LOOKS_A_ROUND)
            && let Err(error) = round(&process, retention_hours).await
        {
            warn!(%error, "failed to keep the ledger's parts; trying again in a minute");
        }
        looks = looks.wrapping_add(1);
    }
}

async fn look_at_database(process: &Process) {
    let missing = database::missing(&process.pool).await;
    let was_missing = process.board.database_missing();
    match (&missing, was_missing) {
        (Some(why), false) => warn!("Waiting for the database: {why}"),
        (None, true) => info!("The database is back"),
        (Some(_), true) | (None, false) => {}
    }
    process.board.database(missing);
}

async fn round(process: &Process, retention_hours: u32) -> Result<(), sqlx::Error> {
    let settled = process.board.settled_partitions();
    ledger_parts::note_settled(&process.pool, &process.worker, &settled).await?;
    ledger_parts::turn(&process.pool, retention_hours).await?;
    process.metrics.dead_letters(&dead_letters::tally(&process.pool).await?);
    Ok(())
}

/// Counts what stands still, and reminds the lanes of keys that have been due for long: after a
/// restart, a lost control message or a killed command nobody else would.
async fn look_after_keys(process: &Process) -> Result<(), sqlx::Error> {
    let census = parking::census(&process.pool).await?;
    process.resting.store(usize::try_from(census.resting).unwrap_or(0), Ordering::Relaxed);
    let blockers = match census.for_locks {
        0 => Vec::new(),
        _ => parking::blockers(&process.pool, BLOCKERS_SHOWN).await?,
    };
    process.metrics.census(&census, &blockers);
    if census.keys == 0 {
        return Ok(());
    }
    let exchange = format!("{}.writes", process.settings.amqp.prefix);
    for key in parking::overdue(&process.pool, OVERDUE_AFTER, REMINDERS_MAX).await? {
        let look = Leaving::Look { exchange: exchange.clone(), key };
        if process.leaving.try_send(look).is_err() {
            process.metrics.reply_dropped();
        }
    }
    Ok(())
}
