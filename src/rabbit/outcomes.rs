//! Publishes what a worker has to say: outcomes to those who asked for them, and control messages.
//!
//! Owns: a channel of its own on the publishing connection. Either may be lost or come twice (the
//! tables are the truth); so they are not confirmed, and nobody waits for them.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::core::message::LOOK;
use crate::core::trace::{TRACEPARENT, TRACESTATE, Trace};

use super::connection::{Connection, short};
use super::error::BrokerError;

/// A message on its way out.
#[derive(Debug)]
pub enum Leaving {
    /// An outcome for `reply_to`, in the trace of its write.
    Outcome {
        reply_to: String,
        correlation_id: Option<String>,
        trace: Option<Trace>,
        body: Vec<u8>,
    },
    /// "Look at this key", for whoever has it.
    Look { exchange: String, key: String },
}

/// Where they leave.
pub struct Exit {
    channel: Channel,
}

impl Exit {
    /// Opens the channel.
    pub async fn open(connection: &Connection) -> Result<Self, BrokerError> {
        Ok(Self { channel: connection.channel().await? })
    }

    /// Sends one; a name that does not exist swallows it.
    pub async fn send(&self, leaving: Leaving) -> Result<(), BrokerError> {
        let (exchange, routing_key, properties, body) = match leaving {
            Leaving::Outcome { reply_to, correlation_id, trace, body } => {
                let properties =
                    BasicProperties::default().with_content_type("application/json".into());
                let properties = match correlation_id {
                    Some(id) => properties.with_correlation_id(short("correlation_id", &id)?),
                    None => properties,
                };
                let properties = match trace {
                    Some(trace) => properties.with_headers(headers(trace)),
                    None => properties,
                };
                (ShortString::default(), short("reply_to", &reply_to)?, properties, body)
            }
            Leaving::Look { exchange, key } => {
                let properties = BasicProperties::default().with_type(LOOK.into());
                let exchange = short("the exchange's name", &exchange)?;
                (exchange, short("the routing key", &key)?, properties, Vec::new())
            }
        };
        let options = BasicPublishOptions::default();
        let sending = self.channel.basic_publish(exchange, routing_key, options, &body, properties);
        // The channel asks for no confirms, so this is resolved already.
        sending.await?.await?;
        Ok(())
    }
}

fn headers(trace: Trace) -> FieldTable {
    let mut headers = FieldTable::default();
    let text = |text: String| AMQPValue::LongString(text.into());
    headers.insert(TRACEPARENT.into(), text(trace.traceparent()));
    if let Some(state) = trace.state {
        headers.insert(TRACESTATE.into(), text(state));
    }
    headers
}
