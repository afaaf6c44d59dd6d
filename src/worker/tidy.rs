//! Takes away what is left of rings whose turn is over.
//!
//! Owns: that unbinding comes first, then a long wait, then a marker that shows each queue to be
//! empty, and only then the end of it. Never a message count: a broker answers 0 when it is slow.

use std::time::Duration;

use anyhow::Context;
use tracing::info;
use uuid::Uuid;

use crate::core::partition::PartitionId;
use crate::core::roll::Source;
use crate::postgres::generations::Leaving;
use crate::postgres::{generations, turns};
use crate::rabbit::connection::Connection;
use crate::rabbit::markers;
use crate::rabbit::topology::Topology;

use super::process::Process;

/// Old turns of held whose binding is taken away again, should somebody have woken up late and
/// made it after all.
const TURNS_UNBOUND: i64 = 3;

/// A ring that was planned before that and has no turn yet never gets one.
const PLANNED_MAX: Duration = Duration::from_hours(1);

/// One round.
pub(super) async fn tidy(
    process: &Process,
    topology: &Topology<'_>,
    connection: &Connection,
    prefix: &str,
    keep: Duration,
) -> anyhow::Result<()> {
    let pool = &process.pool;
    let line = turns::line(pool).await.context("read the line of turns")?;
    let Some(last) = line.last else { return Ok(()) };
    for turn in (last.number - TURNS_UNBOUND).max(1)..last.number {
        topology.unbind(Source::Held, turn).await.context("unbind held")?;
    }
    generations::give_up(pool, PLANNED_MAX).await.context("give up old plans")?;
    for (generation, _) in generations::unbound(pool).await? {
        topology.unbind(Source::Ring(generation), 0).await.context("unbind an old ring")?;
    }
    let Some(leaving) = generations::leaving(pool, keep, Uuid::new_v4()).await? else {
        return Ok(());
    };
    let Leaving { generation, partitions, farewell, emptied } = leaving;
    let queues: Vec<_> =
        (0..partitions).map(|partition| PartitionId { generation, partition }).collect();
    let answer_max = connection.answer_max();
    if !emptied {
        let gone = markers::put(connection, prefix, &queues, farewell, answer_max).await?;
        if gone.len() < queues.len() {
            return Ok(());
        }
    }
    topology.delete(generation, partitions).await.context("delete an old generation")?;
    generations::deleted(pool, generation).await?;
    info!(generation, "Deleted a generation: it was empty, and nothing came any more");
    Ok(())
}
