//! Opens a publisher for a command: a connection of its own, and the exchange that senders know.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::rabbit::confirms::Confirms;
use crate::rabbit::connection::Connection;
use crate::rabbit::publisher::{Options, Publisher};
use crate::settings::Settings;

/// A confirm may take longer than any other answer: a quorum queue may be choosing a leader.
const CONFIRM_TIMEOUTS: u32 = 3;

/// An open way in.
pub struct FrontDoor {
    pub publisher: Publisher,
    /// Must run beside whatever publishes.
    pub confirms: Confirms,
    pub exchange: String,
}

impl FrontDoor {
    /// Connects under `name`; at most `window_max` messages will be unconfirmed at once. An error
    /// says that the broker is away, or that no worker has ever started.
    pub async fn open(settings: &Settings, name: &str, window_max: usize) -> anyhow::Result<Self> {
        let timeout = Duration::from_millis(settings.amqp.timeout_ms.get().into());
        let options =
            Options { confirm_timeout: timeout.saturating_mul(CONFIRM_TIMEOUTS), window_max };
        let connection = Connection::open(&settings.amqp, name, timeout).await;
        let connection = connection.context("connect to the broker")?;
        let opened = Publisher::open(connection, &options).await;
        let (publisher, confirms) = opened.context("open a channel")?;
        let exchange = format!("{}.writes", settings.amqp.prefix);
        if !publisher.has_exchange(&exchange).await.context("look for the exchange")? {
            bail!("exchange {exchange} does not exist; start a worker once, it declares it");
        }
        Ok(Self { publisher, confirms, exchange })
    }
}
