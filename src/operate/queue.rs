//! Moves messages from a queue of somebody else's through the front door: what a former consumer
//! dead-lettered there, for example.
//!
//! Owns: that a message is settled only after keylane's queue has confirmed it. One that was
//! moved and not settled, by a kill, is moved again and is a repeat by its write id.
//! Never: invents a write id unless told to, or drops a message.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::actions::{self, Action};
use super::actor::Actor;
use super::pace::Pace;
use super::wake::{Wake, unconfirmed};
use crate::core::message::NOT_TEXT;
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::publisher::Confirmed;
use crate::rabbit::source::{Source, Taken};
use crate::settings::Settings;

/// Messages that are held back for the end at most: those that are not meant.
const HELD_MAX: u64 = 10_000;
/// A queue is empty when nothing came for so long.
const EMPTY_AFTER: Duration = Duration::from_secs(2);
/// How often an empty queue is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often somebody is told where it stands.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Which messages are moved, and how.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Order {
    pub queue: String,
    /// Only those with this routing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only those with this text in their body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Make a write id of routing key, type and body where there is none.
    pub derive_ids: bool,
    #[serde(skip)]
    pub rate: Option<NonZeroU32>,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Confirmed, and settled.
    pub moved: u64,
    /// Put back: not meant.
    pub filtered: u64,
    /// Put back: no write id, or a routing key that is no text.
    pub refused: u64,
    /// Put back: not confirmed.
    pub failed: u64,
}

/// Why it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveEnd {
    /// The queue is empty, but for what was put back.
    Empty,
    /// As many as were asked for.
    Limit,
    /// Too many are held back that are not meant.
    Held,
    Interrupted,
    /// The broker did not confirm a message, or a connection was lost.
    Failed(String),
}

/// Whether a queue is one of keylane's own, whose messages its workers take.
pub fn is_own(queue: &str, prefix: &str) -> bool {
    let Some(name) = queue.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name == "held"
        || name == "dead"
        || name.split_once('.').is_some_and(|(generation, partition)| {
            number(generation) && number(partition) && partition.len() >= 3
        })
}

/// A queue and the way out of it, both open.
pub struct Moving<'a> {
    order: &'a Order,
    source: Source,
    wake: Wake,
    /// Messages that were ready at the start.
    pub ready: u32,
}

impl<'a> Moving<'a> {
    /// Opens both ends; nothing is changed yet.
    pub async fn open(settings: &Settings, order: &'a Order) -> anyhow::Result<Self> {
        let (queue, prefix) = (&order.queue, &settings.amqp.prefix);
        if is_own(queue, prefix) {
            bail!("queue {queue} is keylane's own: its workers take what is in it");
        }
        let wake = Wake::open(settings).await.context("nothing was changed")?;
        let timeout = Duration::from_millis(settings.amqp.timeout_ms.get().into());
        let connection = Connection::open(&settings.amqp, "keylane move", timeout)
            .await
            .context("connect to the broker")?;
        match Source::open(connection, queue).await {
            Ok((source, ready)) => Ok(Self { order, source, wake, ready }),
            Err(BrokerError::Missing { .. }) => bail!("there is no queue {queue} on the broker"),
            Err(error) => Err(anyhow!(error).context(format!("open queue {queue}"))),
        }
    }

    /// Moves messages until the queue is empty, the limit is reached, or `stop`.
    pub async fn run(
        self,
        tell: &mut (dyn FnMut(&Moved) + Send),
        stop: &CancellationToken,
    ) -> anyhow::Result<(MoveEnd, Moved)> {
        let Self { order, source, wake, .. } = self;
        let mut run = Run {
            order,
            source: &source,
            wake: &wake,
            unconfirmed: FuturesUnordered::new(),
            count: Moved::default(),
            pace: order.rate.map(|rate| Pace::new(rate, Instant::now())),
            failed: None,
        };
        let mut end = run.take_all(tell, stop).await;
        if let Err(error) = run.confirm_all().await {
            run.failed.get_or_insert(error);
        }
        tell(&run.count);
        let (count, failed) = (run.count, run.failed);
        drop(run.unconfirmed);
        if let Some(why) = failed {
            end = MoveEnd::Failed(why);
        }
        // What was not settled goes back by itself where the connection is gone.
        if let Err(error) = source.put_back().await {
            tracing::debug!(%error, "The queue's connection ended by itself");
        }
        wake.close().await;
        Ok((end, count))
    }
}

type Waiting = Pin<Box<dyn Future<Output = (u64, Confirmed)> + Send>>;

struct Run<'a> {
    order: &'a Order,
    source: &'a Source,
    wake: &'a Wake,
    unconfirmed: FuturesUnordered<Waiting>,
    count: Moved,
    pace: Option<Pace>,
    failed: Option<String>,
}

impl Run<'_> {
    async fn take_all(
        &mut self,
        tell: &mut (dyn FnMut(&Moved) + Send),
        stop: &CancellationToken,
    ) -> MoveEnd {
        let mut empty_since: Option<Instant> = None;
        let mut told_at = Instant::now();
        loop {
            if told_at.elapsed() > TELL_EVERY {
                told_at = Instant::now();
                tell(&self.count);
            }
            if let Err(error) = self.confirm_answered().await {
                self.failed.get_or_insert(error);
            }
            if let Some(why) = &self.failed {
                return MoveEnd::Failed(why.clone());
            }
            if let Some(end) = self.over(stop) {
                return end;
            }
            if self.pace.as_mut().is_some_and(|pace| pace.allowed(Instant::now()) == 0) {
                wait_a_moment(stop).await;
                continue;
            }
            match self.source.take().await {
                Ok(Some(taken)) => {
                    empty_since = None;
                    self.one(taken).await;
                }
                Ok(None)
                    if empty_since.get_or_insert_with(Instant::now).elapsed() > EMPTY_AFTER =>
                {
                    return MoveEnd::Empty;
                }
                Ok(None) => wait_a_moment(stop).await,
                Err(error) => return MoveEnd::Failed(super::chain(&error)),
            }
        }
    }

    fn over(&self, stop: &CancellationToken) -> Option<MoveEnd> {
        let under_way = u64::try_from(self.unconfirmed.len()).unwrap_or(u64::MAX);
        if stop.is_cancelled() {
            Some(MoveEnd::Interrupted)
        } else if self.order.limit.is_some_and(|limit| self.count.moved + under_way >= limit) {
            Some(MoveEnd::Limit)
        } else if self.count.filtered + self.count.refused >= HELD_MAX {
            Some(MoveEnd::Held)
        } else {
            None
        }
    }

    /// Sends one on, or leaves it unsettled until the end.
    async fn one(&mut self, mut taken: Taken) {
        if !self.order.means(&taken) {
            self.count.filtered += 1;
            return;
        }
        if taken.message_id.as_ref().is_none_or(String::is_empty) && self.order.derive_ids {
            taken.message_id = Some(derived_id(&taken));
        }
        let no_text = |text: &String| text.is_empty() || text.starts_with(NOT_TEXT);
        if taken.message_id.as_ref().is_none_or(no_text) || taken.key.starts_with(NOT_TEXT) {
            self.count.refused += 1;
            return;
        }
        let tag = taken.tag;
        let Some(slot) = self.wake.publisher().reserve().await else {
            self.failed = Some("the connection to the broker ended".into());
            return;
        };
        match slot.forward(self.wake.exchange(), taken) {
            Ok(confirm) => {
                self.unconfirmed.push(Box::pin(async move { (tag, confirm.wait().await) }));
                if let Some(pace) = &mut self.pace {
                    pace.took(1);
                }
            }
            Err(error) => self.failed = Some(super::chain(&error)),
        }
    }

    /// Settles what is confirmed by now, without waiting for more.
    async fn confirm_answered(&mut self) -> Result<(), String> {
        while let Some(Some(answer)) = self.unconfirmed.next().now_or_never() {
            self.settle(answer).await?;
        }
        Ok(())
    }

    async fn confirm_all(&mut self) -> Result<(), String> {
        let mut first = Ok(());
        while let Some(answer) = self.unconfirmed.next().await {
            first = first.and(self.settle(answer).await);
        }
        first
    }

    async fn settle(&mut self, (tag, confirmed): (u64, Confirmed)) -> Result<(), String> {
        if let Some(why) = unconfirmed(&confirmed) {
            self.count.failed += 1;
            return Err(why);
        }
        match self.source.settle(tag).await {
            Ok(()) => self.count.moved += 1,
            Err(error) => return Err(super::chain(&error)),
        }
        Ok(())
    }
}

async fn wait_a_moment(stop: &CancellationToken) {
    tokio::select! {
        () = sleep(ASK_EVERY) => {}
        () = stop.cancelled() => {}
    }
}

impl Order {
    fn means(&self, taken: &Taken) -> bool {
        let holds = |text: &String| {
            taken.body.windows(text.len().max(1)).any(|window| window == text.as_bytes())
        };
        self.key.as_ref().is_none_or(|key| *key == taken.key)
            && self.text.as_ref().is_none_or(holds)
    }
}

/// The same message gets the same id, whoever moves it and however often.
fn derived_id(taken: &Taken) -> String {
    let mut hash = Sha256::new();
    let kind = taken.kind.as_deref().unwrap_or_default();
    for part in [taken.key.as_bytes(), kind.as_bytes(), &taken.body] {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part);
    }
    let digits: Vec<String> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("derived-{}", digits.concat())
}

/// Notes what is moved; `count` is `None` before it begins.
pub async fn note(
    connection: &mut PgConnection,
    order: &Order,
    (actor, because): (&Actor, Option<&str>),
    moved: Option<&Moved>,
) -> anyhow::Result<()> {
    let Moved { moved: count, filtered, refused, failed } = moved.copied().unwrap_or_default();
    let ended = format!("{count} moved, {filtered} not meant, {refused} refused, {failed} failed");
    let action = Action {
        actor: actor.name(),
        action: "move queue",
        target: &format!("queue {}", order.queue),
        reason: because,
        filter: Some(serde_json::to_value(order).context("keep the order")?),
        count: i64::try_from(count).unwrap_or(i64::MAX),
        result: if moved.is_some() { &ended } else { "started" },
    };
    actions::note(connection, &action).await.context("note the action")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_workers_take_from_are_known() {
        for queue in ["kl.held", "kl.dead", "kl.1.000", "kl.12.1000"] {
            assert!(is_own(queue, "kl"), "{queue}");
        }
        for queue in
            ["kl", "kl.x", "kl.1.00", "kl.1", "kl.a.000", "other.held", "klx.held", "orders"]
        {
            assert!(!is_own(queue, "kl"), "{queue}");
        }
    }
}
