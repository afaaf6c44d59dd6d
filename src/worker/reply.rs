//! The outcome as senders get it (WIRE.md, section 4).

use serde_json::json;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::core::batch::Item;
use crate::core::plan::Settled;
use crate::rabbit::outcomes::Leaving;
use crate::settings::Amqp;

/// RabbitMQ's own names for a caller that waits on its connection.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// RFC 3339 in UTC, always in microseconds: what PostgreSQL keeps.
const MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

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
        body: outcome(item, settled).to_string().into_bytes(),
    })
}

/// The outcome of section 4.
pub fn outcome(item: &Item, settled: &Settled) -> serde_json::Value {
    let identity = item.identity();
    let outcome = &settled.outcome;
    json!({
        "entity": identity.map(|identity| &identity.entity),
        "key": identity.map_or(&item.message.routing_key, |identity| &identity.key),
        "write_id": identity.map(|identity| &identity.write_id),
        "outcome": outcome.label(),
        "effect": outcome.effect(),
        "version": outcome.version(),
        "reason": outcome.reason(),
        "detail": outcome.detail(),
        "applied_at": settled.applied_at.format(MICROSECONDS).unwrap_or_default(),
        "replayed": settled.replayed,
    })
}
