//! How many requests are in hand.
//!
//! Owns: that neither bulk requests, which may last, nor reads keep a single write from its place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One in so many places may be taken by bulk requests.
const BULK_SHARE: usize = 2;

/// The places of a process.
pub(super) struct Places {
    most: usize,
    requests: Arc<Semaphore>,
    /// Taken beside a place among the requests.
    bulk: Arc<Semaphore>,
    /// As many again: a read waits for nobody but the database, and never for long.
    reads: Arc<Semaphore>,
}

/// A place that is free again once this is dropped.
pub(super) struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Places {
    /// At most `most` requests that write, and as many that read.
    pub(super) fn new(most: usize) -> Self {
        let room = |places| Arc::new(Semaphore::new(places));
        let bulk = room(most.div_ceil(BULK_SHARE));
        Self { most, requests: room(most), bulk, reads: room(most) }
    }

    /// For one write.
    pub(super) fn write(&self) -> Option<Place> {
        Some(Place { _permits: [Some(taken(&self.requests)?), None] })
    }

    /// For many.
    pub(super) fn bulk(&self) -> Option<Place> {
        let bulk = taken(&self.bulk)?;
        Some(Place { _permits: [Some(taken(&self.requests)?), Some(bulk)] })
    }

    /// For a read.
    pub(super) fn read(&self) -> Option<Place> {
        Some(Place { _permits: [Some(taken(&self.reads)?), None] })
    }

    /// How many requests that write are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.most - self.requests.available_permits()
    }
}

fn taken(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).try_acquire_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_requests_and_reads_leave_room_for_writes() {
        let places = Places::new(4);
        let bulk: Vec<_> = (0..4).map_while(|_| places.bulk()).collect();
        assert_eq!(bulk.len(), 2);
        let reads: Vec<_> = (0..9).map_while(|_| places.read()).collect();
        assert_eq!(reads.len(), 4);
        let writes: Vec<_> = (0..9).map_while(|_| places.write()).collect();
        assert_eq!((writes.len(), places.in_hand()), (2, 4));
        drop((bulk, reads, writes));
        assert_eq!(places.in_hand(), 0);
        assert!(Places::new(1).bulk().is_some(), "where there is one place it may be taken");
    }
}
