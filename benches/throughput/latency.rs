//! Latency under an open loop: messages are sent when they are due, whatever became of the last.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::broker::{PREFIX, connect};
use crate::sample::{Samples, Shape};

/// Messages a second.
pub(crate) const OFFERED: u32 = 2_000;
/// How long they are offered.
const OFFERED_FOR: Duration = Duration::from_secs(15);
/// The first ones are not counted: connections and caches are cold.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest wait for an outcome.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The broker's name for an answer to this very channel.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// From the time at which a message was due to its outcome.
pub(crate) struct Latencies {
    pub(crate) sorted: Vec<Duration>,
}

impl Latencies {
    /// The latency below which `share` (in thousandths) of the messages stayed, in milliseconds.
    pub(crate) fn at(&self, share: usize) -> f64 {
        let position = (self.sorted.len() * share / 1000).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(position).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

/// Offers messages, and measures each from the time at which it was due to its outcome.
pub(crate) async fn measure(url: &str) -> anyhow::Result<Latencies> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consuming =
        channel.basic_consume(REPLY_TO.into(), "bench".into(), options, FieldTable::default());
    let answers = consuming.await?;
    let count = OFFERED_FOR.as_secs() * u64::from(OFFERED);
    let every = Duration::from_secs(1) / OFFERED;
    let started = Instant::now();
    let (offered, arrived) = tokio::join!(offer(&channel, count, every), collect(answers, count));
    offered?;
    let arrived = arrived?;
    let first = u64::from(OFFERED) * WARM_UP.as_secs();
    let mut sorted = Vec::with_capacity(arrived.len());
    for (index, at) in arrived.into_iter().filter(|(index, _)| *index >= first) {
        sorted.push(at - (started + every * u32::try_from(index)?));
    }
    sorted.sort_unstable();
    connection.close(200, "done".into()).await?;
    Ok(Latencies { sorted })
}

async fn offer(channel: &Channel, count: u64, every: Duration) -> anyhow::Result<()> {
    let mut samples = Samples::new(Shape::Uniform);
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut sent = 0;
    while sent < count {
        tick.tick().await;
        let due = u64::try_from(started.elapsed().as_nanos() / every.as_nanos())?.min(count);
        while sent < due {
            let sample = samples.next();
            let properties = sample
                .properties
                .with_reply_to(REPLY_TO.into())
                .with_correlation_id(sent.to_string().into());
            let publishing = channel.basic_publish(
                format!("{PREFIX}.writes").into(),
                sample.key.into(),
                BasicPublishOptions::default(),
                &sample.body,
                properties,
            );
            publishing.await?.await?;
            sent += 1;
        }
    }
    Ok(())
}

async fn collect(mut answers: Consumer, count: u64) -> anyhow::Result<Vec<(u64, Instant)>> {
    let mut arrived = Vec::with_capacity(usize::try_from(count)?);
    while u64::try_from(arrived.len())? < count {
        let Ok(Some(answer)) = timeout(ANSWER_MAX, answers.next()).await else { break };
        let answer = answer?;
        let correlation_id = answer.properties.correlation_id().as_ref();
        let index = correlation_id.context("read an answer")?.as_str().parse()?;
        arrived.push((index, Instant::now()));
    }
    ensure!(
        u64::try_from(arrived.len())? == count,
        "{} of {count} outcomes came back",
        arrived.len()
    );
    Ok(arrived)
}
