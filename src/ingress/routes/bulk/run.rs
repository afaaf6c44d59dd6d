//! One bulk request on its way: items are looked up, published and waited for.
//!
//! Owns: the order of these steps, in which many items are at once and none overtakes another.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tracing::Span;

use crate::core::message::Message;
use crate::core::write::Identity;
use crate::http::TraceContext;
use crate::ingress::Ingress;
use crate::ingress::broker::Line;
use crate::ingress::places::Place;
use crate::ingress::problem::Problem;
use crate::ingress::refreshes::REFRESH_EVERY;
use crate::ingress::routes::carry_on;
use crate::ingress::submit::{Before, Refusal, Unconfirmed};
use crate::wire::line::Names;

use super::items::{Item, Items, Wrong};
use super::result::ItemResult;

/// In the order sent.
type InOrder<T> = FuturesOrdered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// An item on its way, or what became of it before.
type Step<T> = Result<Box<T>, ItemResult>;

/// An item that the ledger does not know.
struct New {
    names: Names,
    message: Message,
    identity: Identity,
    /// The ledger said so itself.
    unknown: bool,
}

/// An item on the channel.
struct Publishing {
    names: Names,
    identity: Identity,
    unconfirmed: Unconfirmed,
    unknown: bool,
}

/// One bulk request.
pub(super) struct Run {
    ingress: Arc<Ingress>,
    wait: Duration,
    items: Items,
    /// Goes on with each message.
    trace: Option<TraceContext>,
    /// More items may come.
    open: bool,
    /// Items of which the ledger is asked.
    asked: InOrder<Step<New>>,
    /// Items that are published.
    turns: InOrder<ItemResult>,
    keys: Arc<Keys>,
    /// Where the item before was published.
    line: Option<Arc<Line>>,
    _place: Place,
}

/// What the items of a request know of each other. Told at once, and not only when an item's turn
/// to answer comes: the next item of its key may go out before.
#[derive(Default)]
struct Keys {
    /// Keys of which an item was not accepted.
    stopped: Mutex<HashSet<(String, String)>>,
    /// Items of which the broker has said nothing yet.
    unconfirmed: AtomicUsize,
}

impl Keys {
    fn stopped(&self, identity: &Identity) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.contains(&(identity.entity.clone(), identity.key.clone()))
    }

    fn stop(&self, identity: &Identity) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.insert((identity.entity.clone(), identity.key.clone()));
    }
}

impl Run {
    pub(super) fn new(
        ingress: Arc<Ingress>,
        items: Items,
        trace: Option<TraceContext>,
        wait: Duration,
        place: Place,
    ) -> Self {
        Self {
            ingress,
            wait,
            items,
            trace,
            open: true,
            asked: FuturesOrdered::new(),
            turns: FuturesOrdered::new(),
            keys: Arc::default(),
            line: None,
            _place: place,
        }
    }

    /// In which this request is traced.
    pub(super) fn span(&self) -> Span {
        self.trace.as_ref().map_or_else(Span::none, |trace| trace.span.clone())
    }

    /// The next result, in the order sent.
    pub(super) async fn next(&mut self) -> Option<ItemResult> {
        let window = self.ingress.settings.http.bulk_window.get();
        while self.open || !self.asked.is_empty() || !self.turns.is_empty() {
            let room = self.asked.len() + self.turns.len() < window;
            tokio::select! {
                biased;
                Some(result) = self.turns.next(), if !self.turns.is_empty() => return Some(result),
                Some(asked) = self.asked.next(), if !self.asked.is_empty() => {
                    let turn = self.begin(asked).await;
                    let (ingress, keys) = (Arc::clone(&self.ingress), Arc::clone(&self.keys));
                    self.turns.push_back(Box::pin(finish(ingress, keys, turn, self.wait)));
                }
                item = self.items.next(), if self.open && room => match item {
                    Some(item) => {
                        let ingress = Arc::clone(&self.ingress);
                        self.asked.push_back(Box::pin(ask(ingress, item)));
                    }
                    None => self.open = false,
                },
            }
        }
        None
    }

    /// Takes an item as far as the channel; the order of these calls is the order of acceptance.
    async fn begin(&mut self, asked: Step<New>) -> Step<Publishing> {
        let New { names, mut message, identity, unknown } = *asked?;
        if self.keys.stopped(&identity) {
            return Err(ItemResult::not_sent(&names));
        }
        carry_on(self.trace.as_ref(), &mut message.properties);
        match self.publish(message, identity.clone()).await {
            Ok(unconfirmed) => {
                self.keys.unconfirmed.fetch_add(1, Ordering::AcqRel);
                Ok(Box::new(Publishing { names, identity, unconfirmed, unknown }))
            }
            Err(refusal) => {
                self.keys.stop(&identity);
                Err(ItemResult::not_accepted(&names, &Problem::refused(&refusal)))
            }
        }
    }

    async fn publish(
        &mut self,
        message: Message,
        identity: Identity,
    ) -> Result<Unconfirmed, Refusal> {
        let line = self.ingress.broker.line().map_err(Refusal::NotAccepted)?;
        // Of an item that went over another line it must be known first whether it arrived.
        let same = self.line.as_ref().is_some_and(|before| Arc::ptr_eq(before, &line));
        if !same && self.keys.unconfirmed.load(Ordering::Acquire) > 0 {
            return Err(Refusal::NotAccepted("the connection was lost".to_owned()));
        }
        self.line = Some(Arc::clone(&line));
        let slot = self.ingress.slot(&line).await?;
        self.ingress.publish(&line, slot, message, identity)
    }
}

/// Decodes an item and asks the ledger for it, together with those that come with it.
async fn ask(ingress: Arc<Ingress>, item: Item) -> Step<New> {
    let Item { names, content } = item;
    let rejected = |rejection| ItemResult::rejected(&names, &rejection);
    let message = content.map_err(|wrong| match wrong {
        Wrong::Rejected(rejection) => rejected(rejection),
        Wrong::CutOff(problem) => ItemResult::not_accepted(&names, &problem),
    })?;
    // A single write waits for a read of its own; of many that are wrong each would wait a second.
    let identity = ingress.decoded(&message, REFRESH_EVERY).await.map_err(rejected)?;
    match ingress.before(&identity).await.map_err(rejected)? {
        Before::Stored(outcome) => {
            ingress.metrics.answered(&outcome);
            Err(ItemResult::Outcome(outcome))
        }
        Before::New { unknown } => Ok(Box::new(New { names, message, identity, unknown })),
    }
}

/// Waits for an item's end.
async fn finish(
    ingress: Arc<Ingress>,
    keys: Arc<Keys>,
    turn: Step<Publishing>,
    wait: Duration,
) -> ItemResult {
    let Publishing { names, identity, unconfirmed, unknown } = match turn {
        Ok(publishing) => *publishing,
        Err(result) => return result,
    };
    let confirmed = ingress.confirmed(unconfirmed).await;
    if confirmed.is_err() {
        keys.stop(&identity);
    }
    keys.unconfirmed.fetch_sub(1, Ordering::AcqRel);
    let under_way = match confirmed {
        Ok(under_way) => under_way.unknown_before(unknown),
        Err(refusal) => return ItemResult::not_accepted(&names, &Problem::refused(&refusal)),
    };
    if let Some(outcome) = ingress.outcome(under_way, wait).await {
        ingress.metrics.answered(&outcome);
        ItemResult::Outcome(outcome)
    } else {
        ingress.metrics.accepted();
        ItemResult::pending(&names)
    }
}
