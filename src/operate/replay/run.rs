//! Carries a replay through: requests, waits, counts, and says why it ends.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::canary::{Canary, Stages};
use super::front::Front;
pub use super::results::Stuck;
use super::results::{asked_keys, collect, highest_asked, reasons, stuck};
use super::{Counts, Frozen, counts, request::request};
use crate::operate::actions::{self, Action};
use crate::operate::actor::Actor;
use crate::operate::pace::Pace;
use crate::operate::wake::Wake;
use crate::settings::Settings;

/// Letters that are requested in one transaction at most.
const PORTION_MAX: u64 = 500;
/// Letters that have no result yet at most: their lanes take them in portions of their own.
const IN_FLIGHT_MAX: u64 = 1000;
/// How often results are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the whole set is counted at most, and the share of the time that it may take.
const COUNT_EVERY: Duration = Duration::from_secs(2);
const COUNT_COST_MAX: u32 = 20;
/// Without any result for so long, what is left waits for somebody.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a replay goes on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// At most so many requests a second.
    pub rate: Option<NonZeroU32>,
    pub canary: Canary,
}

/// Why a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Each letter has its result.
    Done,
    /// A canary died of this, and no other letter of the set had.
    NewReason(String),
    /// No result came for a long while; what is left, and what it waits for.
    NoProgress(Vec<Stuck>),
    /// Somebody asked for the end.
    Interrupted,
}

/// Who watches a replay.
pub trait Watch: Send {
    /// It stands there now.
    fn progress(&mut self, counts: &Counts);
    /// Something that is worth a line.
    fn say(&mut self, text: &str);
}

/// Runs a replay until nothing is left to wait for, or until `stop`.
pub async fn run(
    connection: &mut PgConnection,
    settings: &Settings,
    (frozen, actor): (Frozen, &Actor),
    (wake, options): (Wake, &Options),
    (watch, stop): (&mut dyn Watch, &CancellationToken),
) -> anyhow::Result<(End, Counts)> {
    let replay = frozen.replay;
    let expected = reasons(connection, replay).await.context("read the set")?;
    let mut running = Running {
        connection,
        settings,
        replay,
        actor: actor.name(),
        wake: Some(wake),
        stages: Stages::new(&options.canary, expected),
        pace: options.rate.map(|rate| Pace::new(rate, Instant::now())),
        watch,
        counts: Counts::default(),
        counted_at: Instant::now(),
        count_every: COUNT_EVERY,
        highest: 0,
    };
    running.wake_asked().await?;
    let end = running.until_the_end(stop).await?;
    let counts = running.end(&end).await?;
    if let Some(wake) = running.wake {
        wake.close().await;
    }
    Ok((end, counts))
}

struct Running<'run> {
    connection: &'run mut PgConnection,
    settings: &'run Settings,
    replay: i64,
    actor: &'run str,
    /// `None`: it was lost.
    wake: Option<Wake>,
    stages: Stages,
    pace: Option<Pace>,
    watch: &'run mut dyn Watch,
    counts: Counts,
    counted_at: Instant,
    count_every: Duration,
    /// No letter above it is asked for.
    highest: i64,
}

impl Running<'_> {
    async fn until_the_end(&mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        self.count().await?;
        let mut progress_at = Instant::now();
        loop {
            self.watch.progress(&self.counts);
            if stop.is_cancelled() {
                return Ok(End::Interrupted);
            }
            let asked = self.ask().await?;
            let decided = self.collect().await?;
            if asked > 0 || decided > 0 {
                progress_at = Instant::now();
            }
            // Another command may be going on with the same replay.
            let seems_over = self.counts.requested == 0 && self.counts.waiting == 0;
            if seems_over || self.counted_at.elapsed() > self.count_every {
                self.count().await?;
            }
            if let Some(end) = self.over(progress_at).await? {
                self.watch.progress(&self.counts);
                return Ok(end);
            }
            if asked < PORTION_MAX {
                tokio::select! {
                    () = sleep(LOOK_EVERY) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Why there is nothing to wait for any more.
    async fn over(&mut self, progress_at: Instant) -> anyhow::Result<Option<End>> {
        if self.counts.requested > 0 {
            if progress_at.elapsed() <= PATIENCE {
                return Ok(None);
            }
            let left = stuck(self.connection, self.replay).await;
            return Ok(Some(End::NoProgress(left.context("look at what is left")?)));
        }
        if let Some(reason) = self.stages.new_reason() {
            return Ok(Some(End::NewReason(reason.to_owned())));
        }
        Ok((self.counts.waiting == 0).then_some(End::Done))
    }

    /// Requests as many as may be; returns how many of the waiting ones it dealt with.
    async fn ask(&mut self) -> anyhow::Result<u64> {
        let in_flight = u64::try_from(self.counts.requested).unwrap_or_default();
        let room = IN_FLIGHT_MAX.saturating_sub(in_flight).min(PORTION_MAX);
        let now = Instant::now();
        let paced = self.pace.as_mut().map_or(u64::MAX, |pace| pace.allowed(now));
        let most = room.min(paced).min(self.stages.allowed(in_flight));
        if most == 0 || self.counts.waiting == 0 {
            return Ok(0);
        }
        self.reopen().await?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let portion = request(self.connection, self.replay, limit, self.actor)
            .await
            .context("request dead letters")?;
        self.highest = self.highest.max(portion.highest);
        self.tell(portion.keys).await;
        let (sent, passed_over) = self.send(&portion.front).await?;
        let (requested, skipped) = (portion.requested + sent, portion.skipped + passed_over);
        self.stages.requested(requested);
        if let Some(pace) = &mut self.pace {
            pace.took(requested);
        }
        self.counts.took(portion.requested, sent, skipped);
        Ok(requested + skipped)
    }

    async fn send(&mut self, front: &[i64]) -> anyhow::Result<(u64, u64)> {
        let Self { settings, replay, actor, .. } = *self;
        match &self.wake {
            Some(wake) if !front.is_empty() => {
                Front { replay, actor, settings, wake }.send(self.connection, front).await
            }
            Some(_) | None => Ok((0, 0)),
        }
    }

    /// Requests are made: a lane that is not woken looks a little later by itself.
    async fn tell(&mut self, keys: Vec<String>) {
        let Some(wake) = &self.wake else { return };
        if let Err(error) = wake.look(keys).await {
            self.watch.say(&format!("a lane was not woken ({error:#}); a worker sees to it"));
            self.wake = None;
        }
    }

    /// A broker that is away ends the replay before the next request.
    async fn reopen(&mut self) -> anyhow::Result<()> {
        if self.wake.is_none() {
            self.wake = Some(Wake::open(self.settings).await?);
        }
        Ok(())
    }

    /// Whoever was killed between a request and its control messages left lanes asleep.
    async fn wake_asked(&mut self) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            let keys = asked_keys(self.connection, self.replay, &after).await;
            let keys = keys.context("read the keys that are asked for")?;
            let Some(last) = keys.last() else { return Ok(()) };
            after.clone_from(last);
            self.tell(keys).await;
        }
    }

    async fn collect(&mut self) -> anyhow::Result<usize> {
        if self.counts.requested == 0 {
            return Ok(0);
        }
        let decided = collect(self.connection, self.replay, self.highest).await;
        let decided = decided.context("look for results")?;
        for letter in &decided {
            self.counts.decided(letter.dead);
            if letter.dead {
                self.stages.died(letter.reason.as_deref().unwrap_or("gone"));
            }
        }
        Ok(decided.len())
    }

    /// Counts for sure; in between it is only added up, for a set may be large.
    async fn count(&mut self) -> anyhow::Result<()> {
        let started_at = Instant::now();
        self.counts = counts(self.connection, self.replay).await.context("count results")?;
        let highest = highest_asked(self.connection, self.replay).await;
        self.highest = self.highest.max(highest.context("look for what is asked for")?);
        self.counted_at = Instant::now();
        self.count_every = COUNT_EVERY.max(started_at.elapsed() * COUNT_COST_MAX);
        Ok(())
    }

    /// Writes down how it ended.
    async fn end(&mut self, end: &End) -> anyhow::Result<Counts> {
        const SQL: &str = "
            update keylane.replays set state = $2, note = $3, ended_at = clock_timestamp()
             where id = $1";
        self.count().await?;
        let counts = self.counts;
        let (state, note) = match end {
            End::Done => ("done", None),
            End::NewReason(reason) => ("stopped", Some(format!("a canary died of {reason}"))),
            End::NoProgress(_) => ("stopped", Some(format!("no result within {PATIENCE:?}"))),
            End::Interrupted => ("stopped", Some("interrupted".to_owned())),
        };
        let result = match &note {
            Some(note) => format!("{note}: {}", counts.summary()),
            None => counts.summary(),
        };
        let mut tx = self.connection.begin().await.context("open a transaction")?;
        let ended = sqlx::query(SQL).bind(self.replay).bind(state).bind(note);
        ended.execute(&mut *tx).await.context("end the replay")?;
        let target = format!("replay {}", self.replay);
        let (actor, count) = (self.actor, counts.resolved);
        let (action, reason, filter) = ("end replay", None, None);
        let noted =
            Action { actor, action, target: &target, reason, filter, count, result: &result };
        actions::note(&mut tx, &noted).await.context("note the action")?;
        tx.commit().await.context("commit")?;
        Ok(counts)
    }
}
