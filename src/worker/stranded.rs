//! A write in a queue whose turn is over, which nobody has applied.
//!
//! Owns: that it gets another turn. While routing changes such a write has a copy in a later source,
//! which is applied in its place in the order. One that has none was confirmed by a node that did
//! not know of the change: its metadata was not that of the others.

use tokio::time::Instant;

use crate::core::batch::Item;
use crate::deliveries::Deliveries;
use crate::store::Store;

use super::turn::{Ended, Lane, Shell, last_tag};

/// What a lane did about them since it claimed its partition.
pub(super) struct Stranded {
    since: Instant,
    held: u64,
}

impl<S: Store, H: Shell> Lane<'_, S, H> {
    /// Puts it into held and settles it, if its copy was waited for long enough; whether it is done.
    ///
    /// If there is a copy after all, the ledger knows the write by the time held has its turn.
    pub(super) async fn hold(
        &mut self,
        deliveries: &impl Deliveries,
        items: &[Item],
    ) -> Result<bool, Ended> {
        let new = || Stranded { since: Instant::now(), held: 0 };
        let stranded = self.stranded.get_or_insert_with(new);
        let [item] = items else { return Ok(false) };
        let waited = stranded.since.elapsed();
        let Some(tag) = last_tag(items).filter(|_| waited >= self.shell.copies_max()) else {
            return Ok(false);
        };
        if !deliveries.hold(&item.message).await? {
            return Ok(false);
        }
        deliveries.settle_through(tag).await?;
        stranded.held += 1;
        self.shell.held(self.partition, stranded.held);
        Ok(true)
    }
}
