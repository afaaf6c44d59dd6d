//! A queue of somebody else's, from which messages are moved into keylane.
//!
//! Owns: what a moved message keeps. Its headers stay as they came, in AMQP's own types, without
//! the ones that brokers add on the way.
//! Never: consumes. Messages are asked for one by one, so that none waits here that nobody has
//! looked at, and an empty queue says so.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use super::connection::{Connection, REPLY_SUCCESS, short, within};
use super::error::BrokerError;
use super::publisher::{Content, PendingConfirm, Slot};

/// Headers about the way that a message took, not about what it says. `CC` and `BCC` would send it
/// elsewhere too.
const OF_THE_WAY: [&str; 6] =
    ["CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-opt-deaths"];
const OF_DEATHS: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// A queue that messages are taken from.
pub struct Source {
    channel: Channel,
    connection: Connection,
    queue: ShortString,
}

/// A message that was taken and is not settled.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The number under which the broker wants it settled.
    pub tag: u64,
    /// The routing key with which it was sent first, before it was dead-lettered anywhere.
    pub key: String,
    pub message_id: Option<String>,
    pub kind: Option<String>,
    pub body: Vec<u8>,
    properties: BasicProperties,
}

impl Source {
    /// Opens a channel; the number is how many messages are ready. A queue that is missing is
    /// [`BrokerError::Missing`].
    pub async fn open(connection: Connection, queue: &str) -> Result<(Self, u32), BrokerError> {
        let channel = connection.channel().await?;
        let queue = short("the queue's name", queue)?;
        let source = Self { channel, connection, queue };
        let ready = source.ready().await?;
        Ok((source, ready))
    }

    /// How many messages are ready to be taken.
    pub async fn ready(&self) -> Result<u32, BrokerError> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let looking =
            self.channel.queue_declare(self.queue.clone(), options, FieldTable::default());
        let queue = within(self.connection.answer_max(), looking).await?;
        Ok(queue.message_count())
    }

    /// Takes the next message; `None`: there is none just now.
    pub async fn take(&self) -> Result<Option<Taken>, BrokerError> {
        let options = BasicGetOptions { no_ack: false };
        let getting = self.channel.basic_get(self.queue.clone(), options);
        let message = within(self.connection.answer_max(), getting).await?;
        Ok(message.map(|message| taken(message.delivery)))
    }

    /// Takes a message off the queue for good.
    pub async fn settle(&self, tag: u64) -> Result<(), BrokerError> {
        let acking = self.channel.basic_ack(tag, BasicAckOptions::default());
        within(self.connection.answer_max(), acking).await
    }

    /// Puts back whatever is not settled, to where it was as far as the broker lets, and ends.
    pub async fn put_back(self) -> Result<(), BrokerError> {
        /// All of them.
        const EACH: u64 = 0;
        let options = BasicNackOptions { multiple: true, requeue: true };
        let answer_max = self.connection.answer_max();
        within(answer_max, self.channel.basic_nack(EACH, options)).await?;
        // Its answer comes after the broker has read all that was settled.
        let closing = self.channel.close(REPLY_SUCCESS, ShortString::from("done"));
        let closed = within(answer_max, closing).await;
        self.connection.close().await;
        closed
    }
}

impl Slot<'_> {
    /// Sends a taken message on, under the key with which it was sent first.
    pub fn forward(self, exchange: &str, taken: Taken) -> Result<PendingConfirm, BrokerError> {
        let Taken { key, message_id, body, mut properties, .. } = taken;
        if let Some(message_id) = message_id {
            properties = properties.with_message_id(short("message_id", &message_id)?);
        }
        let exchange = short("the exchange's name", exchange)?;
        let routing_key = short("the routing key", &key)?;
        Ok(self.put(Content { exchange, routing_key, properties, body }))
    }
}

fn taken(delivery: Delivery) -> Taken {
    let Delivery { delivery_tag, routing_key, properties, data, .. } = delivery;
    let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    Taken {
        tag: delivery_tag,
        key: first_key(&properties).unwrap_or_else(|| routing_key.to_string()),
        message_id: text(properties.message_id()),
        kind: text(properties.kind()),
        body: data,
        properties: without_the_way(properties),
    }
}

/// The routing key of the first death; a later one may have got another from a policy.
fn first_key(properties: &BasicProperties) -> Option<String> {
    let headers = properties.headers().as_ref()?.inner();
    let AMQPValue::FieldArray(deaths) = headers.get("x-death")? else { return None };
    let first_queue = headers.get("x-first-death-queue").and_then(text);
    let tables = || {
        deaths.as_slice().iter().filter_map(|death| match death {
            AMQPValue::FieldTable(table) => Some(table.inner()),
            _ => None,
        })
    };
    let of_queue = |queue: &String| {
        tables().find(|death| death.get("queue").and_then(text).as_ref() == Some(queue))
    };
    // The newest death comes first in the list.
    let death = first_queue.as_ref().and_then(of_queue).or_else(|| tables().next_back())?;
    let AMQPValue::FieldArray(keys) = death.get("routing-keys")? else { return None };
    keys.as_slice().first().and_then(text)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn without_the_way(properties: BasicProperties) -> BasicProperties {
    let mut kept = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        let way = OF_THE_WAY.contains(&name.as_str())
            || OF_DEATHS.iter().any(|death| name.as_str().starts_with(death));
        if !way {
            kept.insert(name.clone(), value.clone());
        }
    }
    without_user(&properties.with_headers(kept))
}

/// The broker closes the channel of anybody who sends in another user's name.
fn without_user(from: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    macro_rules! keep {
        ($($field:ident $with:ident,)+) => {
            $(if let Some(value) = from.$field() {
                kept = kept.$with(value.clone());
            })+
        };
    }
    keep! {
        content_type with_content_type,
        content_encoding with_content_encoding,
        headers with_headers,
        delivery_mode with_delivery_mode,
        priority with_priority,
        correlation_id with_correlation_id,
        reply_to with_reply_to,
        expiration with_expiration,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        app_id with_app_id,
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    fn string(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn death(queue: &str, key: &str) -> AMQPValue {
        let mut table = FieldTable::default();
        table.insert("queue".into(), string(queue));
        let keys = FieldArray::from(vec![string(key), string("cc")]);
        table.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
        AMQPValue::FieldTable(table)
    }

    fn with(headers: Vec<(&str, AMQPValue)>) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), value);
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn the_key_is_the_one_before_the_first_death() {
        let deaths = || {
            let deaths = vec![death("work", "k"), death("retry", "later")];
            ("x-death", AMQPValue::FieldArray(FieldArray::from(deaths)))
        };
        let first = ("x-first-death-queue", string("work"));
        assert_eq!(first_key(&with(vec![deaths(), first])).as_deref(), Some("k"));
        assert_eq!(first_key(&with(vec![deaths()])).as_deref(), Some("later"));
        let odd = vec![("x-death", string("odd"))];
        assert_eq!(first_key(&with(odd)), None);
        assert_eq!(first_key(&BasicProperties::default()), None);
    }

    #[test]
    fn what_the_sender_wrote_stays_and_what_the_way_added_goes() {
        let properties = with(vec![
            ("if-version", AMQPValue::LongLongInt(7)),
            ("CC", AMQPValue::FieldArray(FieldArray::from(vec![string("x")]))),
            ("x-death", string("x")),
            ("x-first-death-reason", string("x")),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
        ]);
        let kept = without_the_way(properties.with_user_id("u".into()).with_priority(3));
        let headers = kept.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers.get("if-version"), Some(&AMQPValue::LongLongInt(7)));
        assert_eq!((kept.user_id(), kept.priority()), (&None, &Some(3)));
    }
}
