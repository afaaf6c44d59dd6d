//! A lane's other turn: what rests in the table, in the order of each key's line.
//!
//! Owns: how much one look takes. It is a transaction of its own: if it fails, the next takes half
//! as much, and what stands alone is judged, as it is with deliveries.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::batch::{Item, Source};
use crate::core::failure::{Failure, Verdict};
use crate::deliveries::Deliveries;
use crate::store::{Look, Opening, Store};
use crate::telemetry::traces;

use super::patience::PATIENCE_MAX;
use super::turn::{Attempts, Ended, Lane, Shell};

/// A look may take as long as the last batch did, and at least so long.
const SHARE_MIN: Duration = Duration::from_millis(20);
/// Pause before a lane looks again after it looked at something: what it left may be due soon.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What one transaction found and did.
struct Looked {
    keys: usize,
    more: bool,
}

/// A transaction that failed, with what it was about.
struct Failed {
    failure: Failure,
    letters: usize,
    /// The only letter of it.
    alone: Option<i64>,
}

impl<S: Store, H: Shell> Lane<'_, S, H> {
    /// Whether somebody asked, or a key of the partition is due.
    pub(super) fn is_time_to_look(&self) -> bool {
        !self.asked.is_empty() || self.look_at.is_some_and(|at| at <= Instant::now())
    }

    /// Takes the lines of keys that are due, as far as its share of the lane's time goes.
    ///
    /// `active` says that the broker has just delivered something: only then may the lane claim.
    /// A timer is no reason to throw out an owner who is better.
    pub(super) async fn look(
        &mut self,
        deliveries: &impl Deliveries,
        active: bool,
    ) -> Result<(), Ended> {
        let until = Instant::now() + self.batch_took.max(SHARE_MIN);
        let patience = Instant::now() + PATIENCE_MAX;
        let (mut attempts, mut reclaims) = (Attempts::default(), 0);
        let mut letters_max = self.limits.writes_max;
        let mut judged = None;
        while !self.stop.is_cancelled() {
            let Failed { failure, letters, alone } =
                match self.take(letters_max, judged.as_ref()).await {
                    Ok(looked) => {
                        self.asked.clear();
                        attempts.clear();
                        judged = None;
                        letters_max = self.limits.writes_max.min(letters_max.saturating_mul(2));
                        let now = Instant::now();
                        if looked.more {
                            self.look_at = Some(now);
                        } else if looked.keys > 0 {
                            let again = now + AGAIN_AFTER;
                            self.look_at = Some(self.look_at.map_or(again, |at| at.min(again)));
                        }
                        if looked.more && now < until {
                            continue;
                        }
                        return Ok(());
                    }
                    Err(failed) => failed,
                };
            let attempt = attempts.entry(failure.cause()).or_default();
            *attempt += 1;
            let verdict = failure.verdict(*attempt, letters);
            self.shell.failed(self.partition, &failure, &verdict);
            match verdict {
                Verdict::Reclaim if !active => {
                    self.look_at = None;
                    return Ok(());
                }
                Verdict::Reclaim => {
                    self.reclaim(deliveries, &failure, &mut reclaims, patience).await?;
                }
                Verdict::Retry { after, halt } => {
                    self.wait(&failure, after, halt, patience).await?;
                }
                // Whoever has the turn looks after it.
                Verdict::Hold { after } => self.wait(&failure, after, false, patience).await?,
                Verdict::Bisect => {
                    letters_max = (letters / 2).max(1);
                    attempts.clear();
                }
                verdict @ (Verdict::Reject(_) | Verdict::Rest(_)) => {
                    judged = alone.map(|letter| (letter, verdict));
                    attempts.clear();
                }
            }
        }
        Err(Ended::Stopped)
    }

    /// One transaction. `judged` is the letter that failed alone before, and what it gets.
    async fn take(
        &mut self,
        letters_max: usize,
        judged: Option<&(i64, Verdict)>,
    ) -> Result<Looked, Failed> {
        let failed = |failure| Failed { failure, letters: 0, alone: None };
        let started = Instant::now();
        let look = Look { keys: self.asked.clone(), letters_max, bytes_max: self.limits.bytes_max };
        // Who waits here has waited before.
        let opening = Opening { patient: false, look: Some(look) };
        let opened = self.store.open(self.partition, &opening).await.map_err(failed)?;
        self.locked = opened.locked;
        self.look_at = if opened.keys > 0 {
            None
        } else {
            // One that is due and was not taken is held by an operator just now.
            opened.due.map(|due| started + due.max(AGAIN_AFTER))
        };
        let looked = Looked { keys: opened.keys, more: opened.more };
        let entities = self.shell.entities();
        let letters = opened.letters.into_iter();
        let mut items: Vec<Item> =
            letters.map(|letter| Item::of_letter(letter, &entities, self.limits)).collect();
        if let Some((judged, verdict)) = judged {
            let is_judged = |item: &&mut Item| matches!(item.source, Source::Letter { id, .. } if id == *judged);
            for item in items.iter_mut().filter(is_judged) {
                item.judge(verdict);
            }
        }
        let letters = items.len();
        let alone = match items.as_slice() {
            [Item { source: Source::Letter { id, .. }, .. }] => Some(*id),
            _ => None,
        };
        let failed = |failure| Failed { failure, letters, alone };
        if let Err(failure) = self.refresh(&mut items).await {
            self.store.roll_back().await;
            return Err(failed(failure));
        }
        let span = traces::replay(self.partition, &items);
        let plan = traces::within(&span, self.decide(&items)).await.map_err(failed)?;
        self.shell.settled(self.partition, &items, &plan, started.elapsed());
        Ok(looked)
    }
}
