//! What a lane does between two tries: waits, claims anew, reads the catalogue again.
//!
//! Owns: how long it waits for the database before it gives its subscription back.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use crate::core::batch::Item;
use crate::core::failure::{Failure, Verdict};
use crate::deliveries::Deliveries;
use crate::store::Store;

use super::status::Doing;
use super::turn::{Ended, Lane, Shell};

/// How long a batch may wait in hand for the database. Then the subscription is given back, long
/// before the broker's own consumer timeout (30 minutes by default) would take it.
pub(super) const PATIENCE_MAX: Duration = Duration::from_mins(5);

/// Claims that a batch may cost before there is a pause in front of the next.
const RECLAIMS_AT_ONCE: u32 = 2;
/// That pause.
const RECLAIM_AFTER: Duration = Duration::from_millis(200);

impl<S: Store, H: Shell> Lane<'_, S, H> {
    /// Claims anew. A claim is no failure of the batch; but two owners must not take turns.
    pub(super) async fn reclaim(
        &mut self,
        deliveries: &impl Deliveries,
        failure: &Failure,
        reclaims: &mut u32,
        patience: Instant,
    ) -> Result<(), Ended> {
        *reclaims += 1;
        if *reclaims > RECLAIMS_AT_ONCE {
            self.wait(failure, RECLAIM_AFTER, false, patience).await?;
        }
        self.claim(deliveries, patience).await
    }

    /// Claims, and then proves that the subscription still lives: if it did not, another consumer
    /// claims later than we did, and everything in hand must be dropped.
    async fn claim(
        &mut self,
        deliveries: &impl Deliveries,
        patience: Instant,
    ) -> Result<(), Ended> {
        let mut attempt = 0;
        while let Err(failure) = self.store.claim(self.partition).await {
            attempt += 1;
            let verdict = failure.verdict(attempt, 1);
            self.shell.failed(self.partition, &failure, &verdict);
            let (after, halt) = match verdict {
                Verdict::Retry { after, halt } => (after, halt),
                Verdict::Reclaim
                | Verdict::Bisect
                | Verdict::Reject(_)
                | Verdict::Rest(_)
                | Verdict::Hold { .. } => (RECLAIM_AFTER, false),
            };
            self.wait(&failure, after, halt, patience).await?;
        }
        Ok(deliveries.prove_alive().await?)
    }

    pub(super) async fn wait(
        &mut self,
        failure: &Failure,
        after: Duration,
        halt: bool,
        patience: Instant,
    ) -> Result<(), Ended> {
        let doing = match (failure, halt) {
            (_, true) => Doing::Halted(failure.to_string()),
            (Failure::ParkFull(_), false) => Doing::Full(failure.to_string()),
            (_, false) => Doing::Waiting(failure.to_string()),
        };
        if self.shell.does(self.partition, doing.clone()) {
            let partition = self.partition;
            match doing {
                Doing::Halted(why) => error!(%partition, why, "Stopped until somebody mends it"),
                Doing::Full(why) => {
                    error!(%partition, why, "Takes no more deliveries; serves operators' requests");
                }
                _ if matches!(failure, Failure::NotOurTurn(_) | Failure::Stranded) => {
                    debug!(%partition, why = %failure, "Waiting for the turn");
                }
                _ => warn!(%partition, why = %failure, "Waiting; nothing is lost"),
            }
        }
        if matches!(failure, Failure::NotOurTurn(_) | Failure::Stranded) && self.store.is_scarce() {
            // Whoever has the turn may need the connection.
            self.store.release();
        }
        if Instant::now() > patience {
            return Err(Ended::DatabaseAway);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = sleep(after) => Ok(()),
        }
    }

    /// Decodes those refusals again that a fresh catalogue may lift.
    pub(super) async fn refresh(&self, items: &mut [Item]) -> Result<(), Failure> {
        if !items.iter().any(Item::stale) {
            return Ok(());
        }
        let entities = self.shell.refresh().await?;
        for item in items.iter_mut().filter(|item| item.stale()) {
            item.decode_again(&entities, self.limits);
        }
        Ok(())
    }

    pub(super) async fn decode_again(&self, items: &mut [Item]) {
        if let Ok(entities) = self.shell.refresh().await {
            for item in items.iter_mut().filter(|item| item.decoded.is_ok()) {
                item.decode_again(&entities, self.limits);
            }
        }
    }
}
