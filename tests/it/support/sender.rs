//! A sender that knows WIRE.md and nothing else: publishes with confirms, reads outcomes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tokio::time::timeout;

/// Messages that wait for their confirm at once.
const WINDOW: usize = 500;
/// How long an outcome may take.
const OUTCOME_MAX: Duration = Duration::from_mins(1);
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// One message, as a sender makes it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub kind: Option<String>,
    pub key: String,
    pub id: Option<String>,
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    pub headers: FieldTable,
}

/// A write of `kind` (`<entity>.<change>`).
pub(crate) fn write(kind: &str, key: &str, id: &str, body: &str) -> Write {
    Write {
        kind: Some(kind.to_owned()),
        key: key.to_owned(),
        id: Some(id.to_owned()),
        body: body.as_bytes().to_vec(),
        content_type: Some("application/json".to_owned()),
        headers: FieldTable::default(),
    }
}

impl Write {
    /// The same with a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), AMQPValue::LongString(value.into()));
        self
    }

    fn properties(&self) -> BasicProperties {
        let mut properties =
            BasicProperties::default().with_delivery_mode(2).with_headers(self.headers.clone());
        if let Some(content_type) = &self.content_type {
            properties = properties.with_content_type(content_type.as_str().into());
        }
        if let Some(kind) = &self.kind {
            properties = properties.with_type(kind.as_str().into());
        }
        if let Some(id) = &self.id {
            properties = properties.with_message_id(id.as_str().into());
        }
        properties
    }
}

/// A connection that publishes and listens for outcomes.
pub(crate) struct Sender {
    channel: Channel,
    exchange: String,
    outcomes: Consumer,
    calls: u64,
    _connection: Connection,
}

impl Sender {
    pub(crate) async fn connect(url: &str, exchange: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let consuming = channel.basic_consume(
            DIRECT_REPLY_TO.into(),
            ShortString::default(),
            BasicConsumeOptions { no_ack: true, ..Default::default() },
            FieldTable::default(),
        );
        let outcomes = consuming.await?;
        let exchange = exchange.to_owned();
        Ok(Self { channel, exchange, outcomes, calls: 0, _connection: connection })
    }

    /// The same connection to another exchange.
    pub(crate) fn to(mut self, exchange: String) -> Self {
        self.exchange = exchange;
        self
    }

    /// Publishes all of them, in order; every one is confirmed when this returns.
    pub(crate) async fn send(&self, writes: &[Write]) {
        self.try_send(writes).await.unwrap();
    }

    /// The same where the broker may go away; then nobody knows which ones it has.
    pub(crate) async fn try_send(&self, writes: &[Write]) -> lapin::Result<()> {
        for window in writes.chunks(WINDOW) {
            let mut confirms = Vec::with_capacity(window.len());
            for write in window {
                confirms.push(self.publish(write, write.properties()).await?);
            }
            for confirm in confirms {
                match confirm.await? {
                    // A queue whose leader is away takes nothing.
                    Confirmation::Nack(None) => return Err(not_taken()),
                    confirmation => assert_eq!(confirmation, Confirmation::Ack(None), "not routed"),
                }
            }
        }
        Ok(())
    }

    /// Publishes all of them and waits for each one's outcome.
    pub(crate) async fn outcomes(&mut self, writes: &[Write]) -> Vec<Value> {
        let first = self.calls;
        for write in writes {
            let properties = write
                .properties()
                .with_reply_to(DIRECT_REPLY_TO.into())
                .with_correlation_id(self.calls.to_string().into());
            let confirm = self.publish(write, properties).await.unwrap();
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None), "not taken, or not routed");
            self.calls += 1;
        }
        let mut found: HashMap<u64, Value> = HashMap::new();
        while found.len() < writes.len() {
            let next = timeout(OUTCOME_MAX, self.outcomes.next()).await;
            let next = next.unwrap_or_else(|_| {
                panic!("{} of {} outcomes came: {found:?}", found.len(), writes.len())
            });
            let delivery = next.unwrap().unwrap();
            let call = delivery.properties.correlation_id().as_ref().unwrap();
            let call: u64 = call.as_str().parse().unwrap();
            if call >= first {
                found.insert(call, serde_json::from_slice(&delivery.data).unwrap());
            }
        }
        (first..self.calls).map(|call| found.remove(&call).unwrap()).collect()
    }

    /// Publishes one write and waits for its outcome.
    pub(crate) async fn outcome(&mut self, write: Write) -> Value {
        self.outcomes(&[write]).await.remove(0)
    }

    /// Waits for the next outcome, of whichever write: one that rests gets another later.
    pub(crate) async fn next_outcome(&mut self) -> Value {
        let next = timeout(OUTCOME_MAX, self.outcomes.next()).await;
        let delivery = next.expect("an outcome comes in time").unwrap().unwrap();
        serde_json::from_slice(&delivery.data).unwrap()
    }

    /// Publishes one write and waits for its outcome's headers.
    pub(crate) async fn outcome_headers(&mut self, write: Write) -> FieldTable {
        let properties = write.properties().with_reply_to(DIRECT_REPLY_TO.into());
        let properties = properties.with_correlation_id(self.calls.to_string().into());
        self.calls += 1;
        self.publish(&write, properties).await.unwrap().await.unwrap();
        let next = timeout(OUTCOME_MAX, self.outcomes.next()).await;
        let delivery = next.expect("an outcome comes in time").unwrap().unwrap();
        delivery.properties.headers().clone().unwrap_or_default()
    }

    async fn publish(
        &self,
        write: &Write,
        properties: BasicProperties,
    ) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
        let confirm = self.channel.basic_publish(
            self.exchange.as_str().into(),
            write.key.as_str().into(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            &write.body,
            properties,
        );
        confirm.await
    }
}

fn not_taken() -> lapin::Error {
    lapin::ErrorKind::IOError(Arc::new(io::Error::other("not taken"))).into()
}

/// An outcome in short: `applied created 1`, `rejected type_mismatch -`.
pub(crate) fn brief(outcome: &Value) -> String {
    let text = |name: &str| outcome[name].as_str().unwrap_or("-").to_owned();
    let why = if outcome["effect"].is_null() { text("reason") } else { text("effect") };
    let version = outcome["version"].as_i64().map_or("-".to_owned(), |version| version.to_string());
    format!("{} {why} {version}", text("outcome"))
}
