//! Who gets an outcome: whoever asked for it under a name that is served.

use crate::core::batch::Item;
use crate::core::plan::Settled;
use crate::core::trace::Trace;
use crate::rabbit::outcomes::Leaving;
use crate::settings::Amqp;
use crate::wire::OutcomeBody;

/// RabbitMQ's own names for a caller that waits on its connection.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// The reply that a delivery asks for, if it asks for one that is served: a sender must not make
/// the worker publish into any queue it likes.
pub fn reply(item: &Item, settled: &Settled, amqp: &Amqp) -> Option<Leaving> {
    let properties = &item.message.properties;
    let reply_to = properties.reply_to.as_ref()?;
    let served = reply_to.starts_with(DIRECT_REPLY_TO)
        || amqp.reply_to_prefixes.iter().any(|prefix| reply_to.starts_with(prefix.as_str()));
    served.then(|| Leaving::Outcome {
        reply_to: reply_to.clone(),
        correlation_id: properties.correlation_id.clone(),
        trace: Trace::of(properties),
        body: outcome(item, settled),
    })
}

fn outcome(item: &Item, settled: &Settled) -> Vec<u8> {
    let Settled { outcome, applied_at, replayed } = settled;
    let key = &item.message.routing_key;
    let body = OutcomeBody::new(item.identity(), key, outcome, *applied_at, *replayed);
    serde_json::to_vec(&body).unwrap_or_default()
}
