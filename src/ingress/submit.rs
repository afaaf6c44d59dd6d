//! One write's way through the ingress: known already, under way already, or published, and then
//! waited for.
//!
//! Owns: the order of these steps, and that nothing is said to be accepted before the broker
//! confirmed it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::clock;
use crate::core::message::Message;
use crate::core::outcome::{Outcome, Reason, Rejection};
use crate::core::write::{Identity, decode};
use crate::rabbit::publisher::{Confirmed, PendingConfirm, Publisher, Slot};
use crate::rabbit::replies::REPLY_TO;
use crate::telemetry::traces;
use crate::wire::OutcomeBody;

use super::Ingress;
use super::broker::Line;
use super::waiters::Word;

/// After so long without an answer the ledger is asked: the answer may have been lost.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// The same, once the connection is gone on which the answer would have come.
const ASK_AFTER_LOSS: Duration = Duration::from_millis(100);
/// What the span of a publishing says that the broker did not confirm.
const NOT_ACCEPTED: &str = "not_accepted";

/// Why a write was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It can never be applied as it is.
    Rejected(Rejection),
    /// The broker is away, blocked, or did not confirm: the same request may succeed later.
    NotAccepted(String),
    /// As many requests are in hand as may be.
    Busy,
}

/// A write on its way.
pub enum Sent {
    /// Its outcome is known: nothing was published.
    Known(Arc<OutcomeBody>),
    /// The broker has it, or the same write is under way already.
    UnderWay(UnderWay),
}

/// What is waited for.
pub struct UnderWay {
    identity: Identity,
    /// `None`: too many wait already, and nobody is told here.
    word: Option<watch::Receiver<Word>>,
    lost: CancellationToken,
    /// The ledger was asked when the request came, and did not know the write: what it tells
    /// later is no repeat. `false` where it was not or could not be asked.
    unknown_before: bool,
}

impl UnderWay {
    /// The same, of which the ledger said that it did not know it.
    #[must_use]
    pub fn unknown_before(self, unknown_before: bool) -> Self {
        Self { unknown_before, ..self }
    }
}

/// What is known of a write before it is published.
pub enum Before {
    /// Its outcome.
    Stored(Arc<OutcomeBody>),
    /// Nothing; `unknown`: the ledger said so itself.
    New { unknown: bool },
}

/// A write that is on the channel, in its order, and not confirmed yet.
pub struct Unconfirmed {
    identity: Identity,
    place: Option<super::waiters::Place>,
    confirm: PendingConfirm,
    lost: CancellationToken,
    /// Of its publishing.
    span: Span,
}

impl Ingress {
    /// Decodes with the same code as the worker; a catalogue at most so old is asked before an
    /// unknown column is called so, if the database lets itself be asked.
    pub async fn decoded(&self, message: &Message, age: Duration) -> Result<Identity, Rejection> {
        let bytes_max = self.body_bytes_max();
        let mut decoded = decode(message, &self.catalogue.entities(), bytes_max);
        if decoded.as_ref().is_err_and(|refused| refused.stale) {
            self.refreshes.no_older(age).await;
            decoded = decode(message, &self.catalogue.entities(), bytes_max);
        }
        match decoded {
            Ok(write) => Ok(write.identity),
            Err(refused) => Err(refused.rejection),
        }
    }

    /// What the ledger says before the write is published.
    pub async fn before(&self, identity: &Identity) -> Result<Before, Rejection> {
        match self.known(identity).await {
            Ok(Known::Stored(outcome)) => Ok(Before::Stored(outcome)),
            Ok(Known::Nothing) => Ok(Before::New { unknown: true }),
            Ok(Known::Unasked) => Ok(Before::New { unknown: false }),
            Err(reused) => Err(reused.rejection()),
        }
    }

    /// What is known of the write already: its stored outcome, or that its id is another's.
    async fn known(&self, identity: &Identity) -> Result<Known, Reused> {
        let Some(lines) = self.lookups.find(identity.id).await else { return Ok(Known::Unasked) };
        match lines.iter().find(|line| line.key == identity.key) {
            Some(line) if line.fingerprint == identity.fingerprint => {
                let body =
                    OutcomeBody::new(Some(identity), "", &line.outcome, line.applied_at, true);
                Ok(Known::Stored(Arc::new(body)))
            }
            Some(_) => Err(Reused { same_key: true }),
            None if lines.is_empty() => Ok(Known::Nothing),
            None => Err(Reused { same_key: false }),
        }
    }

    /// Takes one write as far as the broker's confirm.
    pub async fn submit(&self, message: Message) -> Result<Sent, Refusal> {
        let identity = self.decoded(&message, Duration::ZERO).await.map_err(Refusal::Rejected)?;
        let unknown = match self.before(&identity).await.map_err(Refusal::Rejected)? {
            Before::Stored(outcome) => return Ok(Sent::Known(outcome)),
            Before::New { unknown } => unknown,
        };
        if let Some(under_way) = self.attached(&identity) {
            return Ok(Sent::UnderWay(under_way.unknown_before(unknown)));
        }
        let line = self.broker.line().map_err(Refusal::NotAccepted)?;
        let slot = self.slot(&line).await?;
        let unconfirmed = self.publish(&line, slot, message, identity)?;
        let under_way = self.confirmed(unconfirmed).await?;
        Ok(Sent::UnderWay(under_way.unknown_before(unknown)))
    }

    /// Room on the channel. Under an alarm none may come free, so the wait has a bound of its own.
    pub async fn slot<'line>(&self, line: &'line Line) -> Result<Slot<'line>, Refusal> {
        let within = self.confirm_max();
        let reserved = timeout(within, Publisher::reserve(&line.publisher)).await;
        reserved.map_err(|_elapsed| silent(within))?.ok_or_else(gone)
    }

    fn confirm_max(&self) -> Duration {
        Duration::from_millis(self.settings.http.confirm_max_ms.get().into())
    }

    /// The same write, if this process has it under way.
    pub fn attached(&self, identity: &Identity) -> Option<UnderWay> {
        let word = self.waiters.attach(identity)?;
        let lost =
            self.broker.line().map_or_else(|_| CancellationToken::new(), |line| line.lost.clone());
        let (identity, word) = (identity.clone(), Some(word));
        Some(UnderWay { identity, word, lost, unknown_before: false })
    }

    /// Puts the write on the channel; the order of calls is the order in which they are accepted.
    pub fn publish(
        &self,
        line: &Line,
        slot: Slot<'_>,
        mut message: Message,
        identity: Identity,
    ) -> Result<Unconfirmed, Refusal> {
        let place = self.waiters.register(&identity);
        if let Some(place) = &place {
            message.properties.reply_to = Some(REPLY_TO.to_owned());
            message.properties.correlation_id = Some(place.number.to_string());
        }
        stamp(&mut message);
        let span = traces::publish(&self.exchange, &mut message.properties);
        match slot.publish_as_it_is(&self.exchange, message) {
            Ok(confirm) => {
                let lost = line.lost.clone();
                Ok(Unconfirmed { identity, place, confirm, lost, span })
            }
            Err(error) => {
                traces::failed(&span, NOT_ACCEPTED);
                if let Some(place) = &place {
                    self.waiters.forget(place.number);
                }
                Err(Refusal::NotAccepted(error.to_string()))
            }
        }
    }

    /// Waits for the broker's word on it: no longer under an alarm, which stops the publisher's own
    /// patience. What is not confirmed then may be accepted later all the same.
    pub async fn confirmed(&self, unconfirmed: Unconfirmed) -> Result<UnderWay, Refusal> {
        let Unconfirmed { identity, place, confirm, lost, span } = unconfirmed;
        let within = self.confirm_max();
        let word = timeout(within, confirm.wait()).await;
        let why = match word.unwrap_or(Confirmed::Silent { within }) {
            Confirmed::Accepted => {
                if let Some(place) = &place {
                    self.waiters.confirmed(place.number, &identity);
                }
                let word = place.map(|place| place.word);
                return Ok(UnderWay { identity, word, lost, unknown_before: false });
            }
            Confirmed::Returned { text, .. } => format!("no queue takes it: {text}"),
            Confirmed::Refused => "the broker could not keep it".to_owned(),
            Confirmed::Silent { within } => not_confirmed(within),
            Confirmed::Lost(error) => error.to_string(),
        };
        traces::failed(&span, NOT_ACCEPTED);
        if let Some(place) = &place {
            self.waiters.forget(place.number);
        }
        Err(Refusal::NotAccepted(why))
    }

    /// Waits for the outcome, at most so long; `None`: it is not known yet.
    pub async fn outcome(&self, under_way: UnderWay, wait: Duration) -> Option<Arc<OutcomeBody>> {
        let UnderWay { identity, word, lost, unknown_before } = under_way;
        // Asking the ledger all the time instead would be a wait without a bound.
        let mut word = Some(word?);
        let until = Instant::now() + wait;
        let mut ask_at = Instant::now() + ASK_AFTER;
        loop {
            let listens = word.is_some();
            let next = tokio::select! {
                biased;
                answered = answered(word.as_mut()) => Next::Answered(answered),
                () = sleep_until(until) => return None,
                () = lost.cancelled(), if listens => Next::Answered(None),
                () = sleep_until(ask_at) => Next::Ask,
            };
            match next {
                Next::Answered(Some(outcome)) => return Some(outcome),
                // No answer can come any more: the ledger tells.
                Next::Answered(None) => {
                    word = None;
                    ask_at = Instant::now();
                }
                Next::Ask => {
                    match self.known(&identity).await {
                        Ok(Known::Stored(mut known)) => {
                            Arc::make_mut(&mut known).replayed = !unknown_before;
                            return Some(known);
                        }
                        // Its turn has come, and the answer that said so was lost. Under another
                        // key the worker may not have seen it, and has the last word.
                        Err(reused) if reused.same_key => return Some(reused.outcome(&identity)),
                        Ok(Known::Nothing | Known::Unasked) | Err(_) => {}
                    }
                    let pause = if listens { ASK_AFTER } else { ASK_AFTER_LOSS };
                    ask_at = Instant::now() + pause;
                }
            }
        }
    }
}

/// What the ledger says of a write.
enum Known {
    Stored(Arc<OutcomeBody>),
    Nothing,
    /// The database is away.
    Unasked,
}

/// A write id that stands in the ledger for another write.
struct Reused {
    same_key: bool,
}

impl Reused {
    fn rejection(&self) -> Rejection {
        let detail = if self.same_key {
            "this write id was used before with other content"
        } else {
            "this write id was used before under another key"
        };
        Rejection::new(Reason::WriteIdReused, detail)
    }

    /// What the worker said of it.
    fn outcome(&self, identity: &Identity) -> Arc<OutcomeBody> {
        let outcome = Outcome::Rejected(self.rejection());
        Arc::new(OutcomeBody::new(Some(identity), "", &outcome, clock::now(), false))
    }
}

/// What ends a wait.
enum Next {
    Answered(Option<Arc<OutcomeBody>>),
    Ask,
}

/// Waits for the answer; for ever where none can come.
async fn answered(word: Option<&mut watch::Receiver<Word>>) -> Option<Arc<OutcomeBody>> {
    match word {
        Some(word) => word.wait_for(Option::is_some).await.ok()?.clone(),
        None => std::future::pending().await,
    }
}

fn not_confirmed(within: Duration) -> String {
    format!("the broker did not confirm within {within:?}")
}

fn silent(within: Duration) -> Refusal {
    Refusal::NotAccepted(not_confirmed(within))
}

fn gone() -> Refusal {
    Refusal::NotAccepted("the connection was lost".to_owned())
}

/// When it was published: lag is measured from there.
fn stamp(message: &mut Message) {
    let now = clock::now();
    message.properties.timestamp = u64::try_from(now.unix_timestamp()).ok();
    let text = crate::core::moment::rfc3339_millis(now);
    message.properties.headers.insert("published-at".to_owned(), text.into());
}
