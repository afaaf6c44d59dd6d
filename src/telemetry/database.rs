//! Whether the database answers: asked now and then, shown on the page.

use std::time::Duration;

use metrics::gauge;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often it is asked.
pub const ASK_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for its answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Asks it, and shows whether it answers; returns why not.
pub async fn missing(pool: &PgPool) -> Option<String> {
    let why = match timeout(ANSWER_MAX, sqlx::query("select 1").execute(pool)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_elapsed) => Some(format!("no answer within {ANSWER_MAX:?}")),
    };
    shown(why.is_none());
    why
}

/// Asks until it is told to stop: for a process in which nobody else does.
pub async fn watch(pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asking = async {
        loop {
            tick.tick().await;
            missing(&pool).await;
        }
    };
    stop.run_until_cancelled(asking).await;
    Ok(())
}

/// What the page shows from now on.
pub(super) fn shown(connected: bool) {
    gauge!("keylane_database_connected").set(if connected { 1.0 } else { 0.0 });
}
