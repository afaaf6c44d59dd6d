//! The broker's side: fills the partition queues, and drains them without doing anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::task::JoinSet;

use crate::sample::{Samples, Shape};

/// Everything below this name belongs to the bench.
pub(crate) const PREFIX: &str = "bench";
/// Unsettled deliveries a partition, as many as keylane takes by default.
pub(crate) const PREFETCH: u16 = 2000;
/// Published messages that wait for their confirm.
const WINDOW: usize = 2000;
/// Most deliveries that the null consumer acknowledges at once.
const ACK_MAX: usize = 1000;
/// Silence after which a drained queue is taken for empty.
const SILENCE: Duration = Duration::from_secs(5);

/// Connects.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await.context("connect to AMQP_URL")
}

/// The queue of a partition.
pub(crate) fn queue(generation: i32, partition: i32) -> String {
    format!("{PREFIX}.{generation}.{partition:03}")
}

/// Publishes `messages` through the exchange that senders use; returns the rate.
pub(crate) async fn fill(url: &str, shape: Shape, messages: u64) -> anyhow::Result<f64> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut samples = Samples::new(shape);
    let mut waiting = VecDeque::with_capacity(WINDOW);
    let started = Instant::now();
    for _ in 0..messages {
        let sample = samples.next();
        let publishing = channel.basic_publish(
            format!("{PREFIX}.writes").into(),
            sample.key.into(),
            BasicPublishOptions::default(),
            &sample.body,
            sample.properties,
        );
        waiting.push_back(publishing.await?);
        if waiting.len() == WINDOW
            && let Some(confirm) = waiting.pop_front()
        {
            ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "a message was refused");
        }
    }
    for confirm in waiting {
        ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "a message was refused");
    }
    let rate = per_second(messages, started.elapsed());
    connection.close(200, "done".into()).await?;
    Ok(rate)
}

/// Empties the queues.
pub(crate) async fn purge(url: &str, generation: i32, partitions: i32) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    for partition in 0..partitions {
        let name = queue(generation, partition);
        channel.queue_purge(name.into(), QueuePurgeOptions::default()).await?;
    }
    Ok(connection.close(200, "done".into()).await?)
}

/// A consumer on a channel of its own.
pub(crate) async fn consume(
    connection: &Connection,
    queue: String,
) -> anyhow::Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consuming =
        channel.basic_consume(queue.into(), "bench".into(), options, FieldTable::default());
    let consumer = consuming.await?;
    Ok((channel, consumer))
}

/// The null consumer: takes everything and acknowledges it; returns the rate.
pub(crate) async fn drain(url: &str, generation: i32, partitions: i32) -> anyhow::Result<f64> {
    let connection = connect(url).await?;
    let mut draining = JoinSet::new();
    for partition in 0..partitions {
        let (channel, consumer) = consume(&connection, queue(generation, partition)).await?;
        draining.spawn(drain_one(channel, consumer));
    }
    let (mut taken, mut first, mut last) = (0, None, None);
    while let Some(drained) = draining.join_next().await {
        let Some(drained) = drained?? else { continue };
        taken += drained.taken;
        first = first.into_iter().chain([drained.first]).min();
        last = last.into_iter().chain([drained.last]).max();
    }
    connection.close(200, "done".into()).await?;
    let took = first.zip(last).map(|(first, last): (Instant, Instant)| last - first);
    Ok(per_second(taken, took.context("drain the queues")?))
}

struct Drained {
    taken: u64,
    first: Instant,
    last: Instant,
}

async fn drain_one(channel: Channel, mut consumer: Consumer) -> anyhow::Result<Option<Drained>> {
    let mut drained: Option<Drained> = None;
    while let Ok(Some(delivery)) = tokio::time::timeout(SILENCE, consumer.next()).await {
        let arrived = Instant::now();
        let mut tag = delivery?.delivery_tag;
        let mut taken = 1;
        while taken < ACK_MAX
            && let Some(Some(delivery)) = consumer.next().now_or_never()
        {
            tag = delivery?.delivery_tag;
            taken += 1;
        }
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        let so_far = drained.get_or_insert(Drained { taken: 0, first: arrived, last: arrived });
        so_far.taken += u64::try_from(taken)?;
        so_far.last = Instant::now();
    }
    channel.close(200, "done".into()).await?;
    Ok(drained)
}

/// A rate.
#[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
