//! Opens connections, and says when one is gone.
//!
//! Never: reconnects. A delivery belongs to its connection and dies with it; one supervisor starts
//! again from the beginning.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicQosOptions, ConfirmSelectOptions};
use lapin::tcp::RustlsConnector;
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, ConnectionProperties};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::BrokerError;
use super::{lenient, tls};
use crate::settings::Amqp;

/// Silence after which a peer is given up, unless the URL says otherwise.
const HEARTBEAT_S: u16 = 10;

/// A connection and the bound of every wait on it.
pub struct Connection {
    inner: lapin::Connection,
    answer_max: Duration,
}

impl Connection {
    /// Connects under a name that the broker's tools show.
    pub async fn open(amqp: &Amqp, name: &str, answer_max: Duration) -> Result<Self, BrokerError> {
        let mut uri: AMQPUri =
            amqp.url.expose_secret().parse().map_err(|text: String| BrokerError::Refused {
                text: format!("amqp.url: {text}"),
            })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let properties = ConnectionProperties::default()
            .with_client_property("connection_name".into(), LongString::from(name));
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(tls::connector(amqp)?),
        };
        let connecting = lenient::connect(uri.clone(), tls.clone(), properties);
        match (within(answer_max, connecting).await, tls) {
            (Ok(inner), _) => Ok(Self { inner, answer_max }),
            (Err(error), None) => Err(error),
            (Err(error), Some(tls)) => Err(Box::pin(why(error, amqp, &uri, &tls)).await),
        }
    }

    /// A channel of its own: what goes wrong on it leaves the others alone.
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        within(self.answer_max, self.inner.create_channel()).await
    }

    /// A channel on which the broker confirms what is published.
    pub async fn confirming_channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        within(self.answer_max, select).await?;
        Ok(channel)
    }

    /// The bound of every wait for an answer.
    pub const fn answer_max(&self) -> Duration {
        self.answer_max
    }

    /// The virtual host: with the prefix it tells one set of queues from another.
    pub fn vhost(&self) -> String {
        self.inner.status().vhost().to_string()
    }

    /// Whether the broker takes nothing on this connection because of an alarm.
    pub fn blocked(&self) -> bool {
        self.inner.status().blocked()
    }

    /// What the client library knows of the connection.
    pub(super) fn status(&self) -> lapin::ConnectionStatus {
        self.inner.status().clone()
    }

    /// Cancels `lost` when the connection ends; returns then.
    pub fn watch(&self, lost: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let mut events = Box::pin(self.inner.events_listener());
        let status = self.inner.status().clone();
        async move {
            while status.connected() {
                tokio::select! {
                    // Errors of a single channel come here too; the status tells them apart.
                    event = events.next() => if event.is_none() { break },
                    () = lost.cancelled() => break,
                    () = tokio::time::sleep(WATCH_EVERY) => {}
                }
            }
            lost.cancel();
        }
    }

    /// Says goodbye; errors do not matter any more.
    pub async fn close(&self) {
        let closing = self.inner.close(REPLY_SUCCESS, ShortString::from("done"));
        drop(within(self.answer_max, closing).await);
    }
}

/// Whether it is TLS that a connection failed for. Where that was not to be seen, only that the
/// connection was gone, it is asked once more.
async fn why(
    error: BrokerError,
    amqp: &Amqp,
    uri: &AMQPUri,
    connector: &RustlsConnector,
) -> BrokerError {
    let BrokerError::Away(failure) = &error else { return error };
    if let Some(explained) = tls::explain(failure, amqp) {
        return explained;
    }
    match timeout(REFUSAL_MAX, lenient::shake_hands(uri, connector)).await {
        Ok(Err(refusal)) => tls::explain(&refusal, amqp).unwrap_or(error),
        Ok(Ok(())) | Err(_) => error,
    }
}

/// How long a broker may take to refuse a certificate.
const REFUSAL_MAX: Duration = Duration::from_secs(2);
/// How often the state is looked at besides the events.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// AMQP's reply code for a close in good order.
pub(super) const REPLY_SUCCESS: u16 = 200;

/// Waits for an answer of the broker, but not for ever.
pub(super) async fn within<T>(
    bound: Duration,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(bound, answer).await {
        Ok(answered) => Ok(answered?),
        Err(_elapsed) => Err(BrokerError::Silent { within: bound }),
    }
}

/// Asks for an answer on `channel`: whoever gets one was connected when it asked.
pub(super) async fn prove_alive(
    channel: &Channel,
    prefetch: u16,
    bound: Duration,
) -> Result<(), BrokerError> {
    within(bound, channel.basic_qos(prefetch, BasicQosOptions::default())).await
}

/// Text from outside as AMQP's short string.
pub(super) fn short(what: &'static str, text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_too_long| BrokerError::TooLong { what })
}
