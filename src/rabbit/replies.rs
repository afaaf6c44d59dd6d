//! Outcomes on their way back to whoever asked for them.
//!
//! Owns: RabbitMQ's direct reply-to, which belongs to the channel that publishes and dies with it.

use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::connection::{Connection, within};
use super::error::BrokerError;

/// What a message says in `reply_to` to be answered here.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Answers to what was published on the same channel.
pub struct Replies(Consumer);

/// One of them.
#[derive(Debug)]
pub struct Answer {
    /// As it was published.
    pub correlation_id: String,
    pub body: Vec<u8>,
}

impl Replies {
    pub(super) async fn open(
        connection: &Connection,
        channel: &Channel,
    ) -> Result<Self, BrokerError> {
        let consuming = channel.basic_consume(
            REPLY_TO.into(),
            ShortString::default(),
            BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() },
            FieldTable::default(),
        );
        Ok(Self(within(connection.answer_max(), consuming).await?))
    }

    /// Waits for the next answer; `None` when the channel is gone.
    pub async fn next(&mut self) -> Option<Answer> {
        loop {
            let delivery = self.0.next().await?.ok()?;
            if let Some(correlation_id) = delivery.properties.correlation_id() {
                let correlation_id = correlation_id.to_string();
                return Some(Answer { correlation_id, body: delivery.data });
            }
        }
    }
}
