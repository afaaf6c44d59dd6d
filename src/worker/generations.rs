//! Makes sure that a ring stands, and says which queues are to be consumed.
//!
//! Owns: when a new generation is needed. A ring that is missing, incomplete or was never opened
//! means a new number, never a repair: a second declaration would order its buckets anew.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::core::partition::PartitionId;
use crate::postgres::generations::{Generation, State, list, plan_next, set_state};
use crate::rabbit::connection::Connection;
use crate::rabbit::topology::Topology;

use super::process::Process;

/// How long another worker may take from planning a generation to opening it.
const OPENING_MAX_S: i64 = 15;

/// Pause between the declaration of a ring's queues and the first write to them. A broker that is
/// killed within a second after it declared quorum queues may come back with the youngest never
/// answering again (seen on 3.10.8 and 4.0.5), and what it confirmed would be out of reach.
const QUEUES_REST: Duration = Duration::from_secs(2);

/// Declares what is missing; returns every queue to subscribe to, or `None` while another worker
/// is opening the newest generation.
pub(super) async fn ensure(
    process: &Process,
    connection: &Connection,
) -> anyhow::Result<Option<Vec<PartitionId>>> {
    let amqp = &process.settings.amqp;
    let topology = Topology::new(connection, &amqp.prefix);
    topology.declare_frame().await.context("declare the exchanges and queues that always stand")?;

    let broker = format!("{}/{}", connection.vhost(), amqp.prefix);
    let known = list(&process.pool, &broker).await.context("read the generations")?;
    let newest = known.last();
    if let Some(newest) = newest {
        let stands = topology.stands(newest.generation, newest.partitions).await;
        let stands = stands.context("look at the newest ring")?;
        match newest.state {
            State::Open if stands => return queues(&topology, known).await.map(Some),
            State::Planned | State::Bound if newest.age_s < OPENING_MAX_S => return Ok(None),
            State::Planned | State::Bound | State::Open | State::Closed => {}
        }
        warn!(
            generation = newest.generation,
            "The ring is gone or was never opened: making a new one"
        );
    }
    let partitions = newest.map_or(i32::from(amqp.partitions.get()), |newest| newest.partitions);
    let number = newest.map(|newest| newest.generation);
    let planned = plan_next(&process.pool, number, partitions, &broker, &process.worker).await?;
    let Some(generation) = planned else { return Ok(None) };
    open(process, &topology, generation, partitions).await?;
    for old in &known {
        topology.unbind_ring(old.generation).await.context("unbind an older ring")?;
    }
    info!(generation, partitions, "Opened a generation");
    let known = list(&process.pool, &broker).await.context("read the generations")?;
    queues(&topology, known).await.map(Some)
}

async fn open(
    process: &Process,
    topology: &Topology<'_>,
    generation: i32,
    partitions: i32,
) -> anyhow::Result<()> {
    topology.declare_ring(generation, partitions).await.context("declare a ring")?;
    sleep(QUEUES_REST).await;
    set_state(&process.pool, generation, State::Bound).await?;
    topology.bind_ring(generation).await.context("bind a ring")?;
    set_state(&process.pool, generation, State::Open).await?;
    Ok(())
}

/// The partitions of every generation whose queues are there, held, and dead.
async fn queues(
    topology: &Topology<'_>,
    known: Vec<Generation>,
) -> anyhow::Result<Vec<PartitionId>> {
    let mut queues = vec![PartitionId::HELD, PartitionId::DEAD];
    for Generation { generation, partitions, .. } in known {
        if topology.queues(generation, partitions).await? > 0 {
            queues.extend((0..partitions).map(|partition| PartitionId { generation, partition }));
        }
    }
    Ok(queues)
}
