//! Many writes in one request, streamed both ways.
//!
//! Owns: a result an item in the order sent, however it ends; that items of one key are published
//! in that order; and that later items of a key are held back once an earlier one was not
//! confirmed: sending them would apply them before it is sent again.

mod cutter;
mod items;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, Stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span};
use utoipa::ToSchema;

use crate::core::outcome::Rejection;
use crate::core::write::Identity;
use crate::http::TraceContext;
use crate::ingress::Ingress;
use crate::ingress::broker::Line;
use crate::ingress::code::Own;
use crate::ingress::headers::preferences;
use crate::ingress::problem::Problem;
use crate::ingress::submit::{Refusal, Unconfirmed};
use crate::wire::OutcomeBody;

use super::{Call, carry_on};
use cutter::Form;
use items::{Item, Items};

/// What became of one item.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum ItemResult {
    /// Its outcome.
    Outcome(Arc<OutcomeBody>),
    /// It has none, or none yet.
    Other(NoOutcome),
}

/// An item without an outcome.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::ingress) struct NoOutcome {
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    /// `pending`: accepted, ask `/v1/writes/{entity}/{write_id}` · `rejected`: never accepted ·
    /// `not_accepted`: send it again · `not_sent`: an earlier item of its key was not accepted.
    #[schema(schema_with = labels)]
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub pointer: Option<String>,
}

fn labels() -> utoipa::openapi::Object {
    crate::wire::schemas::labels(["pending", "rejected", "not_accepted", "not_sent"])
}

/// What is known of an item when its turn to answer comes.
enum Turn {
    Known(ItemResult),
    Publishing { identity: Identity, unconfirmed: Unconfirmed },
}

/// Takes all items, and streams their results back.
pub(super) fn writes(
    call: &Call<'_>,
    body: Body,
    ingress: &Arc<Ingress>,
    in_hand: OwnedSemaphorePermit,
) -> Result<Response, Problem> {
    let form = Form::of(&call.headers)?;
    let media = acceptable(&call.headers, form)?;
    let preferences = preferences(&call.headers);
    let http = &ingress.settings.http;
    let most = Duration::from_millis(http.wait_max_ms.get().into());
    let wait = match preferences.wait {
        _ if preferences.respond_async => Duration::ZERO,
        Some(wait) => wait.min(most),
        None => most,
    };
    let items = Items::new(body.into_data_stream(), form, ingress.body_bytes_max(), http);
    let run = Run {
        wait,
        items,
        trace: call.trace.clone(),
        open: true,
        turns: FuturesOrdered::new(),
        keys: Arc::default(),
        line: None,
        ingress: Arc::clone(ingress),
        _in_hand: in_hand,
    };
    let mut response = Response::new(Body::from_stream(framed(run, form)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

/// The media type of the answer, if the caller takes it.
fn acceptable(headers: &HeaderMap, form: Form) -> Result<&'static str, Problem> {
    let media = match form {
        Form::Lines => "application/x-ndjson",
        Form::Array => "application/json",
    };
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_none_or(|accepts| accepts.contains(media) || accepts.contains('*')) {
        return Ok(media);
    }
    let detail = format!("the answer comes in the form of the request, {media}");
    Err(Problem::new(Own::NotAcceptable, detail))
}

/// Results as lines, or as an array. Whoever reads them drives the request: with a reader that is
/// slow nothing more is read or published, and with one that is gone nothing is held.
fn framed(run: Run, form: Form) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let state = Some((run, 0_usize));
    futures_util::stream::unfold(state, move |state| async move {
        let (mut run, count) = state?;
        let mut text = Vec::new();
        let span = run.trace.as_ref().map_or_else(Span::none, |trace| trace.span.clone());
        if let Some(result) = run.next().instrument(span).await {
            text.extend_from_slice(form.before(count));
            serde_json::to_writer(&mut text, &result).unwrap_or_default();
            text.extend_from_slice(form.after());
            return Some((Ok(Bytes::from(text)), Some((run, count + 1))));
        }
        text.extend_from_slice(form.end(count));
        Some((Ok(Bytes::from(text)), None))
    })
}

/// One bulk request.
struct Run {
    ingress: Arc<Ingress>,
    wait: Duration,
    items: Items,
    /// Goes on with each message.
    trace: Option<TraceContext>,
    /// More items may come.
    open: bool,
    /// In the order sent.
    turns: FuturesOrdered<Pin<Box<dyn Future<Output = ItemResult> + Send>>>,
    keys: Arc<Keys>,
    /// Where the item before was published.
    line: Option<Arc<Line>>,
    _in_hand: OwnedSemaphorePermit,
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
    /// The next result, in the order sent.
    async fn next(&mut self) -> Option<ItemResult> {
        let window = self.ingress.settings.http.bulk_window.get();
        while self.open || !self.turns.is_empty() {
            tokio::select! {
                biased;
                Some(result) = self.turns.next(), if !self.turns.is_empty() => return Some(result),
                item = self.items.next(), if self.open && self.turns.len() < window => match item {
                    Some(item) => {
                        let turn = self.begin(item).await;
                        let (ingress, keys) = (Arc::clone(&self.ingress), Arc::clone(&self.keys));
                        self.turns.push_back(Box::pin(finish(ingress, keys, turn, self.wait)));
                    }
                    None => self.open = false,
                },
            }
        }
        None
    }

    /// Takes an item as far as the channel; the order of these calls is the order of acceptance.
    async fn begin(&mut self, item: Item) -> Turn {
        let Item { entity, message, wrong } = item;
        let no_outcome = |outcome, rejection: Option<&Rejection>, detail: Option<String>| {
            Turn::Known(ItemResult::Other(NoOutcome {
                entity: entity.clone(),
                key: message.as_ref().map(|message| message.routing_key.clone()),
                write_id: message.as_ref().and_then(|it| it.properties.message_id.clone()),
                outcome,
                reason: rejection.map(|rejection| rejection.reason.label().to_owned()),
                detail: detail.or_else(|| rejection.map(|rejection| rejection.detail.clone())),
                pointer: rejection.and_then(|rejection| rejection.pointer.clone()),
            }))
        };
        if let Some(rejection) = &wrong {
            return no_outcome("rejected", Some(rejection), None);
        }
        let Some(mut message) = message.clone() else {
            return no_outcome("rejected", None, Some("the item is empty".to_owned()));
        };
        carry_on(self.trace.as_ref(), &mut message.properties);
        let identity = match self.ingress.decoded(&message).await {
            Ok(identity) => identity,
            Err(rejection) => return no_outcome("rejected", Some(&rejection), None),
        };
        if self.keys.stopped(&identity) {
            let why = "an earlier item of the same key was not accepted; send both again, in order";
            return no_outcome("not_sent", None, Some(why.to_owned()));
        }
        let keys = Arc::clone(&self.keys);
        let not_accepted = |why: String| {
            keys.stop(&identity);
            no_outcome("not_accepted", None, Some(why))
        };
        let line = match self.ingress.broker.line() {
            Ok(line) => line,
            Err(why) => return not_accepted(why),
        };
        // Of an item that went over another line it must be known first whether it arrived.
        let same = self.line.as_ref().is_some_and(|before| Arc::ptr_eq(before, &line));
        if !same && keys.unconfirmed.load(Ordering::Acquire) > 0 {
            return not_accepted("the connection was lost".to_owned());
        }
        self.line = Some(Arc::clone(&line));
        let slot = match self.ingress.slot(&line).await {
            Ok(slot) => slot,
            Err(refusal) => return not_accepted(Problem::refused(&refusal).detail),
        };
        match self.ingress.publish(&line, slot, message, identity.clone()) {
            Ok(unconfirmed) => {
                keys.unconfirmed.fetch_add(1, Ordering::AcqRel);
                Turn::Publishing { identity, unconfirmed }
            }
            Err(Refusal::NotAccepted(why)) => not_accepted(why),
            Err(Refusal::Rejected(rejection)) => no_outcome("rejected", Some(&rejection), None),
            Err(Refusal::Busy) => not_accepted("as many requests are in hand as may be".to_owned()),
        }
    }
}

/// Waits for an item's end.
async fn finish(ingress: Arc<Ingress>, keys: Arc<Keys>, turn: Turn, wait: Duration) -> ItemResult {
    let (identity, unconfirmed) = match turn {
        Turn::Known(result) => return result,
        Turn::Publishing { identity, unconfirmed } => (identity, unconfirmed),
    };
    let other = |outcome, detail: Option<String>| {
        ItemResult::Other(NoOutcome {
            entity: Some(identity.entity.clone()),
            key: Some(identity.key.clone()),
            write_id: Some(identity.write_id.clone()),
            outcome,
            reason: None,
            detail,
            pointer: None,
        })
    };
    let confirmed = ingress.confirmed(unconfirmed).await;
    if confirmed.is_err() {
        keys.stop(&identity);
    }
    keys.unconfirmed.fetch_sub(1, Ordering::AcqRel);
    let under_way = match confirmed {
        Ok(under_way) => under_way,
        Err(refusal) => return other("not_accepted", Some(Problem::refused(&refusal).detail)),
    };
    if let Some(outcome) = ingress.outcome(under_way, wait).await {
        ingress.metrics.answered(&outcome);
        ItemResult::Outcome(outcome)
    } else {
        ingress.metrics.accepted();
        other("pending", None)
    }
}
