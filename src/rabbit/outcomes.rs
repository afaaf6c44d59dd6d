//! Publishes outcomes to those who asked for them.
//!
//! Owns: a channel of its own on the publishing connection. Outcomes may be lost or come twice,
//! the ledger is the truth; so they are not confirmed, and nobody waits for them.

use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};

use super::connection::{Connection, short};
use super::error::BrokerError;

/// An outcome on its way to `reply_to`.
#[derive(Debug)]
pub struct Reply {
    pub reply_to: String,
    pub correlation_id: Option<String>,
    pub body: Vec<u8>,
}

/// Where replies leave.
pub struct Replies {
    channel: Channel,
}

impl Replies {
    /// Opens the channel.
    pub async fn open(connection: &Connection) -> Result<Self, BrokerError> {
        Ok(Self { channel: connection.channel().await? })
    }

    /// Sends one; a name that does not exist swallows it.
    pub async fn send(&self, reply: Reply) -> Result<(), BrokerError> {
        let mut properties =
            BasicProperties::default().with_content_type("application/json".into());
        if let Some(correlation_id) = &reply.correlation_id {
            properties = properties.with_correlation_id(short("correlation_id", correlation_id)?);
        }
        let to = short("reply_to", &reply.reply_to)?;
        let options = BasicPublishOptions::default();
        let sending = self.channel.basic_publish(
            ShortString::default(),
            to,
            options,
            &reply.body,
            properties,
        );
        // The channel asks for no confirms, so this is resolved already.
        sending.await?.await?;
        Ok(())
    }
}
