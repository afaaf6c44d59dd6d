//! Wakes lanes: a control message makes the lane of a key look at what operators did to it.
//!
//! Owns: a publishing connection, for as long as somebody has something to say.
//! Never: changes anything. A control message that is lost delays a key for some seconds, no more:
//! workers look for keys that nobody looked at.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::core::key::KEY_BYTES_MAX;
use crate::core::message::{LOOK, Message, Properties};
use crate::rabbit::error::BrokerError;
use crate::rabbit::publisher::{Confirmed, PendingConfirm, Publisher};
use crate::settings::Settings;

use super::chain;
use super::front_door::FrontDoor;

/// Most messages that are unconfirmed at once.
const WINDOW_MAX: usize = 500;
/// The broker writes it to disk before it confirms.
const PERSISTENT: u8 = 2;

/// Tells the lanes of these keys to look: one control message a key, confirmed.
pub async fn look(
    settings: &Settings,
    keys: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    let wake = Wake::open(settings).await?;
    let looked = wake.look(keys).await;
    wake.close().await;
    looked
}

/// An open way to the lanes.
pub struct Wake {
    publisher: Publisher,
    exchange: String,
    // Ends when the publisher is dropped, or with this.
    _confirms: JoinSet<()>,
}

impl Wake {
    /// Connects; an error says that the broker is away, or that no worker has ever started.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let door = FrontDoor::open(settings, "keylane operator", WINDOW_MAX).await?;
        let FrontDoor { publisher, confirms, exchange } = door;
        let mut running = JoinSet::new();
        running.spawn(confirms.run());
        Ok(Self { publisher, exchange, _confirms: running })
    }

    /// Tells the lanes of these keys to look; all of it is confirmed when this returns. What can
    /// be no routing key has no lane, and is passed over.
    pub async fn look(&self, keys: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let keys: BTreeSet<String> = keys.into_iter().filter(|key| is_routing_key(key)).collect();
        let mut confirms = Vec::with_capacity(keys.len());
        for routing_key in keys {
            confirms.push(self.send(control(routing_key)).await.context("wake a lane")?);
        }
        for confirmed in join_all(confirms.into_iter().map(PendingConfirm::wait)).await {
            if let Some(why) = unconfirmed(&confirmed) {
                bail!("wake a lane: {why}");
            }
        }
        Ok(())
    }

    /// Sends a message through the front door, as it is.
    pub async fn send(&self, message: Message) -> Result<PendingConfirm, BrokerError> {
        match self.publisher.reserve().await {
            Some(slot) => slot.publish_as_it_is(&self.exchange, message),
            None => Ok(PendingConfirm::lost()),
        }
    }

    /// What publishes.
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The exchange that senders know.
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// Says goodbye to the broker.
    pub async fn close(self) {
        self.publisher.close().await;
    }
}

/// Whether a text can be the routing key of a message that a lane takes.
pub fn is_routing_key(key: &str) -> bool {
    key.len() <= KEY_BYTES_MAX && !key.contains('\0')
}

/// Why a message is not on the broker for sure; `None`: it is.
pub fn unconfirmed(confirmed: &Confirmed) -> Option<String> {
    match confirmed {
        Confirmed::Accepted => None,
        Confirmed::Returned { code, text } => Some(format!("no queue took it ({code} {text})")),
        Confirmed::Refused => Some("the broker could not keep it, and said so".into()),
        Confirmed::Silent { within } => {
            Some(format!("no confirm within {within:?}; it may be there or not"))
        }
        Confirmed::Lost(error) => Some(format!("the connection ended: {}", chain(error))),
    }
}

fn control(routing_key: String) -> Message {
    let properties = Properties {
        kind: Some(LOOK.to_owned()),
        delivery_mode: Some(PERSISTENT),
        ..Properties::default()
    };
    Message { routing_key, properties, body: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_message_is_a_key_and_a_type() {
        let message = control("C-1".into());
        assert_eq!(message.routing_key, "C-1");
        assert_eq!(message.properties.kind.as_deref(), Some("look"));
        assert!(message.body.is_empty());
    }

    #[test]
    fn what_can_be_no_routing_key_is_known() {
        assert!(is_routing_key(&"x".repeat(255)));
        assert!(!is_routing_key(&"x".repeat(256)));
        assert!(!is_routing_key("a\0b"));
    }
}
