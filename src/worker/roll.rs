//! Sees to it that a ring stands: carries out the handovers that `core::roll` finds due.
//!
//! Owns: the roller's task, and the leases that keep workers from doing the same twice. Nothing
//! that counts depends on a lease: every step is safe beside another worker's.
//! Never: decides what is due, or asks the broker anything inside a transaction.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::core::partition::PartitionId;
use crate::core::roll::{Cause, Handover, Next, Ring, Source, Step, Turn, View};
use crate::postgres::turns::Line;
use crate::postgres::{generations, turns};
use crate::rabbit::connection::Connection;
use crate::rabbit::markers;
use crate::rabbit::topology::Topology;

use super::process::Process;
use super::tidy;

/// How often the line of turns is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether the ring is still there, besides after every connect.
const RING_EVERY: Duration = Duration::from_secs(30);
/// How often what is left of old rings is looked at.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How long another worker leaves a roll to one that says nothing.
const LEASE: Duration = Duration::from_secs(10);
/// How often a lease is renewed.
const LEASE_AGAIN: Duration = Duration::from_secs(2);
/// How often a handover tries other markers where some were not confirmed in time.
const MARK_TRIES_MAX: u32 = 10;
/// Pause after a handover that failed, and for each time that its markers did.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The part of a worker that looks after the ring, for one life of its connection.
pub(super) struct Roller {
    pub process: Arc<Process>,
    /// For publishing: markers must not hold up acknowledgements.
    pub connection: Arc<Connection>,
    pub stop: CancellationToken,
}

/// What was last seen of a ring on this connection.
struct Seen {
    generation: i32,
    ring: Ring,
    at: Instant,
}

/// What the roller remembers of earlier looks, on this connection.
#[derive(Default)]
struct Memory {
    looked: bool,
    seen: Option<Seen>,
}

/// What a handover has come to so far.
struct Progress {
    next: Source,
    marker: Uuid,
    /// Queues of the last turn that are not there any more.
    gone: Vec<PartitionId>,
}

impl Roller {
    /// Looks after the ring until it is told to stop.
    pub(super) async fn run(self) {
        let (mut memory, mut tidied) = (Memory::default(), Instant::now());
        while !self.stop.is_cancelled() {
            match self.look(&mut memory).await {
                Ok(Some(handover)) => {
                    if self.roll(&handover, &mut memory).await {
                        continue;
                    }
                }
                Ok(None) if tidied.elapsed() > TIDY_EVERY => {
                    tidied = Instant::now();
                    self.tidy().await;
                }
                Ok(None) => {}
                Err(error) => debug!("failed to look after the ring: {error:#}"),
            }
            self.pause(LOOK_EVERY).await;
        }
    }

    /// The handover that is due.
    async fn look(&self, memory: &mut Memory) -> anyhow::Result<Option<Handover>> {
        let line = turns::line(&self.process.pool).await.context("read the line of turns")?;
        self.process.rolls.line(line.newest, line.open);
        self.process.board.turns(line.open);
        let strays = self.process.board.strays(self.settle() * 2);
        let ring = self.ring(&line, strays, memory).await?;
        memory.looked = true;
        let Line { last, open, partitions, wanted, abandoned, .. } = line;
        let view = View { last, steady: open <= 1, ring, partitions, wanted, strays, abandoned };
        self.process.board.unknown_ring((ring == Ring::Unknown).then_some(line.newest));
        Ok(view.due())
    }

    async fn ring(&self, line: &Line, strays: bool, memory: &mut Memory) -> anyhow::Result<Ring> {
        let Some(Turn { source: Source::Ring(generation), .. }) = line.last else {
            return Ok(Ring::Gone);
        };
        if let Some(seen) = &memory.seen
            && (seen.generation, seen.ring) == (generation, Ring::Whole)
            && seen.at.elapsed() < RING_EVERY
            && !strays
        {
            return Ok(Ring::Whole);
        }
        let ring = self.topology().ring(generation, line.partitions).await;
        let mut ring = ring.context("look at the ring")?;
        let was = memory.seen.as_ref().filter(|seen| seen.generation == generation);
        let was_gone = was.is_some_and(|seen| seen.ring == Ring::Gone);
        if ring == Ring::Gone && memory.looked && !was_gone {
            // This connection is older than the loss: no restart took the ring, somebody did.
            ring = Ring::Broken;
        }
        memory.seen = Some(Seen { generation, ring, at: Instant::now() });
        Ok(ring)
    }

    /// Carries a handover out, unless another worker is at it; whether it is done.
    async fn roll(&self, handover: &Handover, memory: &mut Memory) -> bool {
        let (pool, worker) = (&self.process.pool, &self.process.worker);
        if !matches!(generations::lease(pool, worker, LEASE).await, Ok(true)) {
            return false;
        }
        // Somebody may have done it between the look and the lease.
        if self.look(memory).await.ok().flatten() != Some(*handover) {
            drop(generations::give_back(pool, worker).await);
            return false;
        }
        say(handover);
        let rolled = tokio::select! {
            rolled = self.carry_out(handover) => rolled,
            () = self.keep_lease() => Err(anyhow::anyhow!("another worker took it over")),
            () = self.stop.cancelled() => Err(anyhow::anyhow!("this worker stops")),
        };
        drop(generations::give_back(pool, worker).await);
        match &rolled {
            Ok(next) => {
                self.process.rolls.rolled(handover.cause);
                info!(cause = handover.cause.label(), to = next.generation(), "Handed over");
            }
            Err(error) => {
                warn!(cause = handover.cause.label(), "A roll begins anew: {error:#}");
                self.pause(AGAIN_AFTER).await;
            }
        }
        rolled.is_ok()
    }

    async fn carry_out(&self, handover: &Handover) -> anyhow::Result<Source> {
        let mut progress =
            Progress { next: Source::Held, marker: Uuid::new_v4(), gone: Vec::new() };
        let (mut at, mut tries) = (0, 0);
        while let Some(step) = handover.steps().get(at) {
            debug!(?step, "A roll goes on");
            match self.step(*step, handover, &mut progress).await {
                Ok(()) => at += 1,
                Err(error) if *step == Step::Mark && tries < MARK_TRIES_MAX => {
                    warn!("Markers were not confirmed in time, trying others: {error:#}");
                    tries += 1;
                    at = handover.again();
                    progress.marker = Uuid::new_v4();
                    sleep(AGAIN_AFTER * tries).await;
                }
                Err(error) => return Err(error.context(format!("{step:?}"))),
            }
        }
        Ok(progress.next)
    }

    /// One step; where the database says that somebody else was faster, it fails.
    async fn step(
        &self,
        step: Step,
        handover: &Handover,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let (process, topology) = (&self.process, self.topology());
        let pool = &process.pool;
        let number = handover.from.map_or(1, |from| from.number + 1);
        let done = match (step, handover.next, progress.next, handover.from) {
            (Step::Plan, Next::Ring(partitions), ..) => {
                let broker = process.broker(&self.connection);
                let planned = generations::plan(pool, partitions, &broker, &process.worker);
                progress.next = Source::Ring(planned.await?);
                true
            }
            (Step::Declare, Next::Ring(partitions), Source::Ring(generation), _) => {
                topology.declare_ring(generation, partitions).await?;
                true
            }
            (Step::Declared, _, Source::Ring(generation), _) => {
                generations::declared(pool, generation).await?
            }
            // A broker that is killed within a second after it declared quorum queues may come back
            // with the youngest never answering again (seen on 3.10.8 and 4.0.5), and what it
            // confirmed would be out of reach.
            (Step::Rest, ..) => {
                let rest = process.settings.generations.rest_ms.get();
                sleep(Duration::from_millis(rest.into())).await;
                true
            }
            (Step::Bind, _, next, _) => {
                topology.bind(next, number).await?;
                true
            }
            (Step::Settle, ..) => {
                sleep(self.settle()).await;
                true
            }
            (Step::Intend, _, _, Some(from)) => {
                turns::intend(pool, from.number, progress.marker).await?
            }
            (Step::Mark, _, _, Some(from)) => {
                progress.gone = self.mark(from.source, progress.marker).await?;
                true
            }
            (Step::End, _, _, None) => turns::begin(pool).await?,
            (Step::End, _, next, Some(from)) => {
                turns::end(pool, &from, progress.marker, next, &progress.gone).await?
            }
            (Step::Unbind, _, _, Some(from)) => {
                topology.unbind(from.source, from.number).await?;
                true
            }
            (step, next, ..) => anyhow::bail!("{step:?} is no step towards {next:?}"),
        };
        anyhow::ensure!(done, "another worker was faster, or a marker was taken back");
        Ok(())
    }

    /// Puts markers into every queue of a source.
    async fn mark(&self, source: Source, marker: Uuid) -> anyhow::Result<Vec<PartitionId>> {
        let queues = match source {
            Source::Held => vec![PartitionId::HELD],
            Source::Ring(generation) => {
                let partitions = turns::line(&self.process.pool).await?.partitions;
                (0..partitions).map(|partition| PartitionId { generation, partition }).collect()
            }
        };
        let prefix = &self.process.settings.amqp.prefix;
        let gone = markers::put(&self.connection, prefix, &queues, marker, self.settle()).await?;
        if !gone.is_empty() {
            tracing::error!(
                ?gone,
                "Queues of a generation are not there any more, nor what was in them"
            );
        }
        Ok(gone)
    }

    async fn keep_lease(&self) {
        let (pool, worker) = (&self.process.pool, &self.process.worker);
        loop {
            sleep(LEASE_AGAIN).await;
            if matches!(generations::lease(pool, worker, LEASE).await, Ok(false)) {
                return;
            }
        }
    }

    async fn tidy(&self) {
        let keep = self.process.settings.generations.keep_minutes.get();
        let keep = Duration::from_mins(1) * keep;
        let topology = self.topology();
        let prefix = &self.process.settings.amqp.prefix;
        let tidied = tidy::tidy(&self.process, &topology, &self.connection, prefix, keep);
        if let Err(error) = tidied.await {
            debug!("failed to tidy up old generations: {error:#}");
        }
    }

    fn topology(&self) -> Topology<'_> {
        Topology::new(&self.connection, &self.process.settings.amqp.prefix)
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(self.process.settings.generations.settle_ms.get().into())
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

fn say(handover: &Handover) {
    let from = handover.from.map_or(0, |from| from.source.generation());
    let why = match handover.cause {
        Cause::FirstStart => "There is no ring yet: writes flow through held until one stands",
        Cause::RingLost => {
            "The broker has forgotten the ring, as it does at a restart without Khepri: writes \
             flow through held until a new ring stands, and every key keeps its order"
        }
        Cause::Strays => "Writes go past the ring: they flow through held until a new one stands",
        Cause::Held => "Making a ring to take over from held",
        Cause::Resize => {
            "Another number of partitions is wanted: writes flow through held until the new ring stands"
        }
    };
    info!(cause = handover.cause.label(), from, next = ?handover.next, "{why}");
}
