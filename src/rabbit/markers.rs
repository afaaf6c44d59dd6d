//! Puts markers into queues.
//!
//! Owns: that each is confirmed, and in time; one that came late proves nothing about what was on
//! its way before it.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use uuid::Uuid;

use crate::core::message::MARKER;
use crate::core::partition::PartitionId;

use super::connection::{Connection, short, within};
use super::error::BrokerError;

/// Markers that are under way at once.
const AT_ONCE: usize = 16;

/// Puts the marker into every one of these queues. Returns those that are not there.
///
/// `in_time` bounds the wait for each confirm; beyond it, or refused, nothing may be concluded and
/// another marker is needed.
pub async fn put(
    connection: &Connection,
    prefix: &str,
    queues: &[PartitionId],
    marker: Uuid,
    in_time: Duration,
) -> Result<Vec<PartitionId>, BrokerError> {
    let mut missing = Vec::new();
    for some in queues.chunks(AT_ONCE) {
        let put = some.iter().map(|id| put_one(connection, id.queue(prefix), marker, in_time));
        for (id, there) in some.iter().zip(try_join_all(put).await?) {
            missing.extend((!there).then_some(*id));
        }
    }
    Ok(missing)
}

/// Whether the queue was there. A channel of its own: what comes back on it is this marker.
async fn put_one(
    connection: &Connection,
    queue: String,
    marker: Uuid,
    in_time: Duration,
) -> Result<bool, BrokerError> {
    /// The broker writes it to disk before it confirms.
    const PERSISTENT: u8 = 2;
    let channel = connection.confirming_channel().await?;
    let properties = BasicProperties::default()
        .with_type(short("type", MARKER)?)
        .with_message_id(short("message_id", &marker.to_string())?)
        .with_delivery_mode(PERSISTENT);
    let queue = short("queue", &queue)?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let publishing = async {
        let exchange = ShortString::default();
        channel.basic_publish(exchange, queue, options, &[], properties).await?.await
    };
    match within(in_time, publishing).await? {
        Confirmation::Ack(None) => Ok(true),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Ok(false),
        Confirmation::Nack(None) | Confirmation::NotRequested => {
            Err(BrokerError::Refused { text: "it did not take a marker".to_owned() })
        }
    }
}
