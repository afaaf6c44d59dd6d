//! A lane before a marker: what is before it is committed, and nothing behind it is taken until
//! it is known what the marker means.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::core::failure::{Failure, Verdict};
use crate::core::roll::Passing;
use crate::deliveries::Deliveries;
use crate::store::Store;

use super::patience::PATIENCE_MAX;
use super::turn::{Attempts, Ended, Lane, Marker, Shell};

/// How often it is looked whether a marker counts.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl<S: Store, H: Shell> Lane<'_, S, H> {
    /// Stands before the marker until it is passed, and settles it.
    pub(super) async fn stand_before(
        &mut self,
        deliveries: &impl Deliveries,
        marker: &Marker,
    ) -> Result<(), Ended> {
        let came = Instant::now();
        let mut patience = came + PATIENCE_MAX;
        let (mut attempts, mut reclaims) = (Attempts::default(), 0);
        loop {
            let failure = match self.store.pass(self.partition, marker.number, came.elapsed()).await
            {
                Ok(Passing::Wait) => {
                    attempts.clear();
                    // The database answers: there is no end to this patience.
                    patience = Instant::now() + PATIENCE_MAX;
                    let not_yet = Failure::NotOurTurn("nobody has said yet that it ends".into());
                    self.wait(&not_yet, LOOK_EVERY, false, patience).await?;
                    continue;
                }
                Ok(passing) => {
                    if passing == Passing::Close {
                        info!(partition = %self.partition, "Closed: all that was before the turn's end is committed");
                    }
                    return Ok(deliveries.settle_through(marker.tag).await?);
                }
                Err(failure) => failure,
            };
            let attempt = attempts.entry(failure.cause()).or_default();
            *attempt += 1;
            let verdict = failure.verdict(*attempt, 1);
            self.shell.failed(self.partition, &failure, &verdict);
            match verdict {
                Verdict::Reclaim => {
                    self.reclaim(deliveries, &failure, &mut reclaims, patience).await?;
                }
                Verdict::Retry { after, halt } => {
                    self.wait(&failure, after, halt, patience).await?;
                }
                // No write is in hand that could be at fault.
                Verdict::Bisect | Verdict::Reject(_) | Verdict::Rest(_) | Verdict::Hold { .. } => {
                    self.wait(&failure, LOOK_EVERY, false, patience).await?;
                }
            }
        }
    }
}
