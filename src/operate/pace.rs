//! Spreads what is asked for over time.

use std::num::NonZeroU32;

use tokio::time::Instant;

/// So many a second.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    started_at: Instant,
    taken: u64,
}

impl Pace {
    /// Starts now.
    pub(super) fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self { rate: rate.get().into(), started_at: now, taken: 0 }
    }

    /// How many may be done now: the first at once, then as time goes.
    pub(super) fn allowed(&mut self, now: Instant) -> u64 {
        let passed = u64::try_from((now - self.started_at).as_millis()).unwrap_or(u64::MAX);
        let due = 1 + passed.saturating_mul(self.rate) / 1000;
        // What a wait for results held up is not made up for, beyond a second's worth.
        self.taken = self.taken.max(due.saturating_sub(self.rate.max(1)));
        due.saturating_sub(self.taken)
    }

    /// So many were done.
    pub(super) const fn took(&mut self, requests: u64) {
        self.taken = self.taken.saturating_add(requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_is_kept_and_a_long_wait_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(10).unwrap(), start);
        let mut taken = 0;
        for tick in 0..20 {
            let allowed = pace.allowed(start + Duration::from_millis(tick * 100));
            pace.took(allowed);
            taken += allowed;
        }
        assert_eq!(taken, 20);
        assert_eq!(pace.allowed(start + Duration::from_secs(100)), 10);
    }
}
