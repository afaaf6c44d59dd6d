//! A write in a queue whose turn is over, which nobody has applied.
//!
//! Owns: that it gets another turn. While routing changes such a write has a copy in a later source,
//! which is applied in its place in the order. One that has none was confirmed by a node that did
//! not know of the change: its metadata was not that of the others.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::batch::Item;
use crate::deliveries::Deliveries;
use crate::store::Store;

use super::turn::{Ended, Lane, Shell, last_tag};

/// What a lane did about them since it claimed its partition.
pub(super) struct Stranded {
    /// When the first of those came that follow each other.
    since: Instant,
    /// When the last was looked at.
    seen: Instant,
    held: u64,
}

impl Stranded {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, seen: now, held: 0 }
    }

    /// How long there have been some. A flood waits once; one that comes long after the last has
    /// another cause, and waits for its own copy.
    fn waited(&mut self, copies_max: Duration) -> Duration {
        let now = Instant::now();
        if now - self.seen > copies_max {
            self.since = now;
        }
        self.seen = now;
        now - self.since
    }
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
        let copies_max = self.shell.copies_max();
        let stranded = self.stranded.get_or_insert_with(Stranded::new);
        let waited = stranded.waited(copies_max);
        let [item] = items else { return Ok(false) };
        let Some(tag) = last_tag(items).filter(|_| waited >= copies_max) else {
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const COPIES_MAX: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_once_and_a_later_write_waits_anew() {
        let mut stranded = Stranded::new();
        for second in 1..=70 {
            advance(Duration::from_secs(1)).await;
            assert_eq!(stranded.waited(COPIES_MAX), Duration::from_secs(second));
        }
        advance(COPIES_MAX + Duration::from_secs(1)).await;
        assert_eq!(stranded.waited(COPIES_MAX), Duration::ZERO);
    }
}
