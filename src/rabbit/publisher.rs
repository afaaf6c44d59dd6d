//! Publishes with confirms: what the broker said about each message, or that it said nothing.
//!
//! Owns: a connection of its own, the bound of what is unconfirmed, and the matching of returned
//! messages to the ones that were sent.
//! Never: sends anything a second time, or consumes (a blocked publisher must not stop acks).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::confirms::{Confirms, Identity, Sent};
use super::connection::{Connection, short};
use super::error::BrokerError;
use super::replies::Replies;
use super::{probe, restored};
use crate::core::message::Message;
use crate::core::moment::rfc3339_millis;

/// What is sent. Everything in it was checked by the caller; too long is an error all the same.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Empty is the default exchange: the routing key is then a queue's name.
    pub exchange: String,
    pub routing_key: String,
    pub message_id: String,
    /// `<entity>.<change>`.
    pub kind: String,
    pub content_type: &'static str,
    /// Becomes the property `timestamp` and the header `published-at`.
    pub published_at: OffsetDateTime,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    /// Text headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Confirmed {
    /// The broker has it and keeps it.
    Accepted,
    /// No queue would take it; the broker did not keep it.
    Returned {
        /// 312 is `NO_ROUTE`.
        code: u16,
        text: String,
    },
    /// The broker could not keep it (a full queue, a leader that is away).
    Refused,
    /// No answer in time; it may be there or not.
    Silent { within: Duration },
    /// The connection or the channel ended first; it may be there or not.
    Lost(BrokerError),
}

/// How a publisher behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest wait for a confirm, while no alarm stops publishing.
    pub confirm_timeout: Duration,
    /// Most messages that are unconfirmed at once.
    pub window_max: usize,
}

/// A confirm-mode channel on a connection of its own.
pub struct Publisher {
    connection: Connection,
    window: Arc<Semaphore>,
    sent: mpsc::Sender<Sent>,
    ended: Arc<AtomicBool>,
}

/// Room for one unconfirmed message.
pub struct Slot<'publisher> {
    publisher: &'publisher Publisher,
    permit: OwnedSemaphorePermit,
}

/// Waits for the broker's word about one message.
pub struct PendingConfirm(oneshot::Receiver<Confirmed>);

impl Publisher {
    /// Opens a channel; the connection serves nothing else, for an alarm stops all of it.
    ///
    /// The second value must be run beside whatever publishes ([`Confirms::run`]).
    pub async fn open(
        connection: Connection,
        options: &Options,
    ) -> Result<(Self, Confirms), BrokerError> {
        let channel = connection.confirming_channel().await?;
        Ok(Self::on(connection, channel, options))
    }

    /// The same, with the answers to what is published with [`super::replies::REPLY_TO`]: the broker sends them to
    /// the very channel on which was asked.
    pub async fn open_with_replies(
        connection: Connection,
        options: &Options,
    ) -> Result<(Self, Confirms, Replies), BrokerError> {
        let channel = connection.confirming_channel().await?;
        let replies = Replies::open(&connection, &channel).await?;
        let (publisher, confirms) = Self::on(connection, channel, options);
        Ok((publisher, confirms, replies))
    }

    fn on(connection: Connection, channel: Channel, options: &Options) -> (Self, Confirms) {
        let (sent, received) = mpsc::channel(options.window_max);
        let ended = Arc::new(AtomicBool::new(false));
        let confirms = Confirms::new(
            channel,
            connection.status(),
            received,
            options.confirm_timeout,
            Arc::clone(&ended),
        );
        let window = Arc::new(Semaphore::new(options.window_max));
        (Self { connection, window, sent, ended }, confirms)
    }

    /// Whether nothing can be sent any more.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Cancels `lost` when the connection ends; returns then.
    pub fn watch(&self, lost: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        self.connection.watch(lost)
    }

    /// Whether the exchange is there; publishing to a missing one ends the channel.
    pub async fn has_exchange(&self, name: &str) -> Result<bool, BrokerError> {
        probe::has_exchange(&self.connection, name).await
    }

    /// Waits until fewer than the window's most messages are unconfirmed.
    ///
    /// `None` when the channel is gone: nothing can be sent any more.
    pub async fn reserve(&self) -> Option<Slot<'_>> {
        let permit = Arc::clone(&self.window).acquire_owned().await.ok()?;
        (!self.ended.load(Ordering::Acquire)).then_some(Slot { publisher: self, permit })
    }

    /// Sends a message as soon as there is room for it.
    pub async fn publish(&self, message: Outgoing) -> Result<PendingConfirm, BrokerError> {
        match self.reserve().await {
            Some(slot) => slot.publish(message),
            None => Ok(PendingConfirm::lost()),
        }
    }

    /// Whether an alarm of the broker stops publishing just now.
    pub fn blocked(&self) -> bool {
        self.connection.blocked()
    }

    /// Closes the connection. What is unconfirmed by then stays so.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}

impl Slot<'_> {
    /// Sends a message; the order of calls is the order on the channel.
    pub fn publish(self, message: Outgoing) -> Result<PendingConfirm, BrokerError> {
        let (exchange, routing_key) = (
            short("the exchange's name", &message.exchange)?,
            short("the routing key", &message.routing_key)?,
        );
        let properties = properties(&message)?;
        Ok(self.put(Content { exchange, routing_key, properties, body: message.body }))
    }

    /// Sends a message with the properties that it has, and nothing added.
    pub fn publish_as_it_is(
        self,
        exchange: &str,
        message: Message,
    ) -> Result<PendingConfirm, BrokerError> {
        let exchange = short("the exchange's name", exchange)?;
        let routing_key = short("the routing key", &message.routing_key)?;
        let properties = restored::properties(&message.properties)?;
        Ok(self.put(Content { exchange, routing_key, properties, body: message.body }))
    }

    pub(super) fn put(self, content: Content) -> PendingConfirm {
        let message_id = content.properties.message_id().as_ref();
        let identity = Identity {
            message_id: message_id.map(ToString::to_string).unwrap_or_default(),
            routing_key: content.routing_key.to_string(),
        };
        let (reply, confirmed) = oneshot::channel();
        let sent = Sent { content, identity, reply, permit: self.permit };
        // The queue is as long as the window, and the window was asked: it is never full. Closed
        // means that `Confirms` has ended, and the dropped `reply` tells so.
        drop(self.publisher.sent.try_send(sent));
        PendingConfirm(confirmed)
    }
}

impl PendingConfirm {
    pub(crate) fn lost() -> Self {
        let (_, confirmed) = oneshot::channel();
        Self(confirmed)
    }

    /// The broker's word, or that there was none.
    pub async fn wait(self) -> Confirmed {
        self.0.await.unwrap_or_else(|_closed| {
            let state = lapin::ErrorKind::InvalidConnectionState(lapin::ConnectionState::Closed);
            Confirmed::Lost(BrokerError::Away(state.into()))
        })
    }
}

/// How every message of ours is published: an unroutable one must come back.
pub(super) async fn send(channel: Channel, sent: Content) -> lapin::Result<lapin::Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let Content { exchange, routing_key, properties, body } = sent;
    channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
}

/// A message in the client library's types.
pub(super) struct Content {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

fn properties(message: &Outgoing) -> Result<BasicProperties, BrokerError> {
    /// The broker writes it to disk before it confirms.
    const PERSISTENT: u8 = 2;
    let mut properties = BasicProperties::default()
        .with_message_id(short("message_id", &message.message_id)?)
        .with_type(short("type", &message.kind)?)
        .with_content_type(short("content_type", message.content_type)?)
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(seconds(message.published_at));
    if let Some(correlation_id) = &message.correlation_id {
        properties = properties.with_correlation_id(short("correlation_id", correlation_id)?);
    }
    if let Some(reply_to) = &message.reply_to {
        properties = properties.with_reply_to(short("reply_to", reply_to)?);
    }
    let mut headers = FieldTable::default();
    let published_at = AMQPValue::LongString(rfc3339_millis(message.published_at).into());
    headers.insert(short("a header's name", "published-at")?, published_at);
    for (name, text) in &message.headers {
        let text = AMQPValue::LongString(text.as_str().into());
        headers.insert(short("a header's name", name)?, text);
    }
    Ok(properties.with_headers(headers))
}

/// Seconds since 1970.
fn seconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn the_time_of_publishing_has_milliseconds_and_is_in_utc() {
        let table = [
            (datetime!(2026-11-21 02:03:04.005_999 UTC), "2026-11-21T02:03:04.005Z"),
            (datetime!(2026-11-21 00:30:00 +01:00), "2026-11-20T23:30:00.000Z"),
        ];
        for (time, text) in table {
            assert_eq!(rfc3339_millis(time), text);
        }
        assert_eq!(seconds(datetime!(1970-01-01 00:00:07.9 UTC)), 7);
    }
}
