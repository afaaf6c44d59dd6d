//! Callers that wait for an outcome.
//!
//! Owns: which answer belongs to whom, and how many may wait. One entry a publish; a repeat of the
//! same write shares it, but only once this process saw the broker confirm that publish: what may
//! never have been accepted must not be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::write::Identity;
use crate::wire::OutcomeBody;

/// How long an entry stays for which nobody waits any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);

/// An outcome, or none yet.
pub(super) type Word = Option<Arc<OutcomeBody>>;

/// A name that a write has: entity, key and write id.
type Name = (String, String, String);

/// One publish whose outcome is not known yet.
#[derive(Debug)]
struct Call {
    name: Name,
    word: watch::Sender<Word>,
    since: Instant,
}

/// A write that this process published and the broker confirmed.
#[derive(Debug, Clone, Copy)]
struct Running {
    call: u64,
    fingerprint: [u8; 32],
}

/// All callers of a process.
#[derive(Debug)]
pub(super) struct Waiters {
    calls_max: usize,
    next: AtomicU64,
    calls: DashMap<u64, Call>,
    running: DashMap<Name, Running>,
}

/// A place among the callers.
#[derive(Debug)]
pub(super) struct Place {
    /// The correlation id of the publish.
    pub number: u64,
    pub word: watch::Receiver<Word>,
}

fn name(identity: &Identity) -> Name {
    (identity.entity.clone(), identity.key.clone(), identity.write_id.clone())
}

impl Waiters {
    /// At most `calls_max` outcomes are waited for at once.
    pub(super) fn new(calls_max: usize) -> Self {
        Self { calls_max, next: AtomicU64::new(0), calls: DashMap::new(), running: DashMap::new() }
    }

    /// How many outcomes are waited for.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The same write, if this process has it under way and confirmed.
    pub(super) fn attach(&self, identity: &Identity) -> Option<watch::Receiver<Word>> {
        let running = *self.running.get(&name(identity))?;
        if running.fingerprint != identity.fingerprint {
            return None;
        }
        let call = self.calls.get(&running.call)?;
        Some(call.word.subscribe())
    }

    /// A place for a write that is about to be published; `None` when all are taken.
    pub(super) fn register(&self, identity: &Identity) -> Option<Place> {
        if self.calls.len() >= self.calls_max {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, word) = watch::channel(None);
        let call = Call { name: name(identity), word: sender, since: Instant::now() };
        self.calls.insert(number, call);
        Some(Place { number, word })
    }

    /// The broker has the write: repeats may wait along.
    pub(super) fn confirmed(&self, number: u64, identity: &Identity) {
        // The outcome may have been faster than the confirm.
        if self.calls.contains_key(&number) {
            let running = Running { call: number, fingerprint: identity.fingerprint };
            self.running.insert(name(identity), running);
        }
    }

    /// The publish came to nothing, or its outcome is known some other way.
    pub(super) fn forget(&self, number: u64) {
        if let Some((_, call)) = self.calls.remove(&number) {
            self.running.remove_if(&call.name, |_, running| running.call == number);
        }
    }

    /// An outcome came back.
    pub(super) fn answer(&self, number: u64, outcome: OutcomeBody) {
        if let Some(call) = self.calls.get(&number) {
            call.word.send_replace(Some(Arc::new(outcome)));
        }
        self.forget(number);
    }

    /// Gives up entries for which nobody waits any more; their answers may have been lost.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let abandoned: Vec<u64> = self
            .calls
            .iter()
            .filter(|call| {
                call.word.receiver_count() == 0
                    && now.saturating_duration_since(call.since) > ABANDONED_AFTER
            })
            .map(|call| *call.key())
            .collect();
        for number in abandoned {
            self.forget(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fingerprint::ledger_id;

    fn identity(write_id: &str, content: u8) -> Identity {
        Identity {
            id: ledger_id("e", write_id),
            entity: "e".into(),
            key: "k".into(),
            write_id: write_id.into(),
            fingerprint: [content; 32],
        }
    }

    fn outcome() -> OutcomeBody {
        OutcomeBody {
            entity: Some("e".into()),
            key: "k".into(),
            write_id: Some("w".into()),
            outcome: "applied".into(),
            effect: Some("created".into()),
            version: Some(1),
            reason: None,
            detail: None,
            pointer: None,
            applied_at: String::new(),
            replayed: false,
        }
    }

    #[test]
    fn a_repeat_waits_along_only_once_the_broker_has_the_write() {
        let waiters = Waiters::new(10);
        let place = waiters.register(&identity("w", 1)).unwrap();
        assert!(waiters.attach(&identity("w", 1)).is_none(), "it may never be accepted");
        waiters.confirmed(place.number, &identity("w", 1));
        assert!(waiters.attach(&identity("w", 2)).is_none(), "that is another write");
        let along = waiters.attach(&identity("w", 1)).unwrap();
        waiters.answer(place.number, outcome());
        assert!(along.borrow().is_some() && place.word.borrow().is_some());
        assert!(waiters.attach(&identity("w", 1)).is_none(), "the ledger knows it now");
        assert!(waiters.is_empty());
    }

    #[test]
    fn an_answer_may_be_faster_than_the_confirm() {
        let waiters = Waiters::new(10);
        let place = waiters.register(&identity("w", 1)).unwrap();
        waiters.answer(place.number, outcome());
        waiters.confirmed(place.number, &identity("w", 1));
        assert!(place.word.borrow().is_some());
        assert!(waiters.is_empty() && waiters.running.is_empty());
    }

    #[test]
    fn places_are_bounded() {
        let waiters = Waiters::new(1);
        let place = waiters.register(&identity("a", 1)).unwrap();
        assert!(waiters.register(&identity("b", 1)).is_none());
        waiters.forget(place.number);
        assert!(waiters.register(&identity("b", 1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_given_up() {
        let waiters = Waiters::new(10);
        let place = waiters.register(&identity("a", 1)).unwrap();
        let other = waiters.register(&identity("b", 1)).unwrap();
        waiters.confirmed(place.number, &identity("a", 1));
        drop(place);
        waiters.sweep();
        assert_eq!(waiters.len(), 2, "its answer may come any moment");
        tokio::time::sleep(ABANDONED_AFTER * 2).await;
        waiters.sweep();
        assert_eq!(waiters.len(), 1);
        assert!(waiters.running.is_empty());
        drop(other);
    }
}
