//! One partition's subscription: deliveries in, settlements out.
//!
//! Owns: the channel. It is closed, never cancelled: after `basic.cancel` the next consumer would
//! start beside what this one still holds.
//! Never: lets a delivery outlive its channel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use serde_json::{Map, Value};
use tracing::debug;

use crate::core::message::{Message, Properties};
use crate::deliveries::{Deliveries, Gone};

use super::connection::{Connection, REPLY_SUCCESS, prove_alive, short, within};
use super::error::BrokerError;
use super::restored;

/// A subscription to one queue.
pub struct Subscription {
    connection: Arc<Connection>,
    held: ShortString,
    channel: Channel,
    consumer: lapin::Consumer,
    prefetch: u16,
    answer_max: Duration,
}

/// What is subscribed to.
pub struct Queue<'a> {
    pub name: &'a str,
    /// The exchange for what has no turn.
    pub held: &'a str,
    /// The name of the consumer.
    pub tag: &'a str,
    /// Most deliveries that are unsettled.
    pub prefetch: u16,
    /// On brokers from 4.0 the consumer with the highest one is the active one.
    pub priority: i32,
}

impl Subscription {
    /// Subscribes to a queue.
    pub async fn open(
        connection: &Arc<Connection>,
        queue: &Queue<'_>,
    ) -> Result<Self, BrokerError> {
        let Queue { name, held, tag, prefetch, priority } = *queue;
        let held = short("exchange", held)?;
        let answer_max = connection.answer_max();
        let channel = connection.channel().await?;
        within(answer_max, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        let consuming = channel.basic_consume(
            short("queue", name)?,
            short("consumer tag", tag)?,
            BasicConsumeOptions::default(),
            arguments,
        );
        let consumer = within(answer_max, consuming).await?;
        let connection = Arc::clone(connection);
        Ok(Self { connection, held, channel, consumer, prefetch, answer_max })
    }

    async fn put_into_held(&self, message: &Message) -> Result<bool, BrokerError> {
        let channel = self.connection.confirming_channel().await?;
        let key = short("routing key", &message.routing_key)?;
        let properties = restored::properties(&message.properties)?;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let publishing = async {
            let held = self.held.clone();
            channel.basic_publish(held, key, options, &message.body, properties).await?.await
        };
        Ok(within(self.answer_max, publishing).await? == Confirmation::Ack(None))
    }

    /// Closes the channel: what is unsettled goes back to the head of the queue.
    pub async fn close(self) {
        let closing = self.channel.close(REPLY_SUCCESS, ShortString::from("done"));
        // Dropping the consumer before the channel is closed would send `basic.cancel`.
        drop(within(self.answer_max, closing).await);
        drop(self.consumer);
    }
}

fn converted(delivery: Delivery) -> (u64, Message) {
    let message = Message {
        routing_key: delivery.routing_key.to_string(),
        properties: properties(&delivery.properties),
        body: delivery.data,
    };
    (delivery.delivery_tag, message)
}

fn properties(from: &BasicProperties) -> Properties {
    let owned = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    Properties {
        message_id: owned(from.message_id()),
        kind: owned(from.kind()),
        content_type: owned(from.content_type()),
        content_encoding: owned(from.content_encoding()),
        correlation_id: owned(from.correlation_id()),
        reply_to: owned(from.reply_to()),
        expiration: owned(from.expiration()),
        user_id: owned(from.user_id()),
        app_id: owned(from.app_id()),
        delivery_mode: *from.delivery_mode(),
        priority: *from.priority(),
        timestamp: *from.timestamp(),
        headers: from.headers().iter().flat_map(FieldTable::inner).map(header).collect(),
    }
}

fn header((name, value): (&ShortString, &AMQPValue)) -> (String, Value) {
    (name.to_string(), json(value))
}

/// A header's value as JSON. Bytes that are no text become `{"hex": "…"}`.
fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Timestamp(value) => Value::from(*value),
        AMQPValue::Float(value) => Value::from(*value),
        AMQPValue::Double(value) => Value::from(*value),
        AMQPValue::DecimalValue(decimal) => {
            Value::from(format!("{}e-{}", decimal.value, decimal.scale))
        }
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => bytes(text),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            Value::Object(table.inner().iter().map(header).collect::<Map<_, _>>())
        }
        AMQPValue::ByteArray(raw) => hex(raw.as_slice()),
        AMQPValue::Void => Value::Null,
    }
}

fn bytes(text: &LongString) -> Value {
    std::str::from_utf8(text.as_bytes()).map_or_else(|_| hex(text.as_bytes()), Value::from)
}

fn hex(raw: &[u8]) -> Value {
    let digits: Vec<String> = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({ "hex": digits.concat() })
}

impl Deliveries for Subscription {
    async fn next(&mut self) -> Option<(u64, Message)> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Some(converted(delivery)),
            Some(Err(_)) | None => None,
        }
    }

    fn arrived(&mut self) -> Option<(u64, Message)> {
        match self.consumer.next().now_or_never() {
            Some(Some(Ok(delivery))) => Some(converted(delivery)),
            Some(Some(Err(_)) | None) | None => None,
        }
    }

    async fn prove_alive(&self) -> Result<(), Gone> {
        let proof = prove_alive(&self.channel, self.prefetch, self.answer_max).await;
        proof.map_err(|error| ended(&error))
    }

    async fn hold(&self, message: &Message) -> Result<bool, Gone> {
        let put = self.put_into_held(message).await;
        put.or_else(|error| {
            debug!("failed to put a write into held: {error}");
            Ok(false)
        })
    }

    async fn settle_through(&self, tag: u64) -> Result<(), Gone> {
        let acking = self.channel.basic_ack(tag, BasicAckOptions { multiple: true });
        within(self.answer_max, acking).await.map_err(|error| ended(&error))
    }
}

fn ended(error: &BrokerError) -> Gone {
    debug!(%error, "The subscription has ended");
    Gone
}
