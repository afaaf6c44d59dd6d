//! Counts the busiest keys in bounded memory (Space-Saving, by Metwally, Agrawal and El Abbadi).
//!
//! Owns: two windows of a minute. The older one is whole, so that a count does not start from
//! nothing each minute; both are given up when their time is over.
//! Never: counts a key below the truth while it is among the counters. Above the truth it may be,
//! by no more than the smallest counter of a full window.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a window lasts.
const WINDOW: Duration = Duration::from_mins(1);

/// The busiest keys of the last one to two minutes.
#[derive(Debug, Clone)]
pub struct Hot {
    capacity: usize,
    /// The number of [`WINDOW`]s since the clock's beginning.
    minute: u64,
    current: Window,
    before: Window,
}

impl Hot {
    /// At most `capacity` counters a window: each key with more than one write in `capacity` of a
    /// window's is found for sure.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { capacity, minute: 0, current: Window::default(), before: Window::default() }
    }

    /// Counts `writes` of a key. `now` never goes back; its beginning is the caller's.
    pub fn count(&mut self, entity: &str, key: &str, writes: u64, now: Duration) {
        self.rotate(now);
        self.current.count(entity, key, writes, self.capacity);
    }

    /// The busiest `n` keys with their writes, the busiest first.
    pub fn top(&mut self, n: usize, now: Duration) -> Vec<(String, String, u64)> {
        self.rotate(now);
        let mut sums: HashMap<&Name, u64> = HashMap::new();
        for (name, count) in self.before.counts.iter().chain(&self.current.counts) {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(*count);
        }
        let mut sums: Vec<(&Name, u64)> = sums.into_iter().collect();
        sums.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let top = sums.into_iter().take(n);
        top.map(|((entity, key), writes)| (entity.clone(), key.clone(), writes)).collect()
    }

    /// Which share of all writes each of the busiest `N` keys had, the busiest first; 0 for none.
    pub fn shares<const N: usize>(&mut self, now: Duration) -> [f64; N] {
        let top = self.top(N, now);
        let all = self.before.all.saturating_add(self.current.all);
        let mut shares = [0.0; N];
        for (share, (_, _, writes)) in shares.iter_mut().zip(top) {
            *share = ratio(writes, all);
        }
        shares
    }

    fn rotate(&mut self, now: Duration) {
        let minute = now.as_secs() / WINDOW.as_secs();
        match minute.saturating_sub(self.minute) {
            0 => return,
            1 => self.before = std::mem::take(&mut self.current),
            _ => {
                self.before = Window::default();
                self.current = Window::default();
            }
        }
        self.minute = minute;
    }
}

/// A key may be counted above the truth, but it has no more than everything.
#[expect(clippy::cast_precision_loss, reason = "a share is not more exact than that")]
fn ratio(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part.min(all) as f64 / all as f64 }
}

/// Entity and key.
type Name = (String, String);

#[derive(Debug, Clone, Default)]
struct Window {
    counts: HashMap<Name, u64>,
    /// The same, the smallest first.
    ranks: BTreeSet<(u64, Name)>,
    /// Of all keys, also of those that have no counter any more.
    all: u64,
}

impl Window {
    fn count(&mut self, entity: &str, key: &str, writes: u64, capacity: usize) {
        let name = (entity.to_owned(), key.to_owned());
        let before = match self.counts.remove(&name) {
            Some(count) => {
                self.ranks.remove(&(count, name.clone()));
                count
            }
            None if self.counts.len() < capacity => 0,
            // The newcomer takes over the smallest counter with all that it stands at: it may have
            // been counted there before.
            None => match self.ranks.pop_first() {
                Some((smallest, leaver)) => {
                    self.counts.remove(&leaver);
                    smallest
                }
                None => 0,
            },
        };
        let count = before.saturating_add(writes);
        self.all = self.all.saturating_add(writes);
        self.ranks.insert((count, name.clone()));
        self.counts.insert(name, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const START: Duration = Duration::ZERO;

    proptest! {
        #[test]
        fn a_busy_key_is_found_and_never_counted_below_the_truth(
            counted in vec((0_u8..40, 1_u64..20), 1..400),
            capacity in 1_usize..12,
        ) {
            let mut hot = Hot::new(capacity);
            let mut truth: HashMap<String, u64> = HashMap::new();
            for (key, writes) in &counted {
                hot.count("e", &key.to_string(), *writes, START);
                *truth.entry(key.to_string()).or_default() += writes;
            }
            let all: u64 = truth.values().sum();
            let top = hot.top(usize::MAX, START);
            prop_assert!(top.len() <= capacity);
            prop_assert!(top.is_sorted_by(|(_, _, more), (_, _, less)| more >= less));
            for (_, key, writes) in &top {
                prop_assert!(*writes >= truth[key], "{key} is counted below the truth");
                prop_assert!(*writes - truth[key] <= all / capacity as u64);
            }
            for (key, writes) in truth {
                if writes > all / capacity as u64 {
                    prop_assert!(top.iter().any(|(_, found, _)| *found == key), "{key} is missing");
                }
            }
        }
    }

    #[test]
    fn a_minute_is_remembered_for_one_more() {
        let mut hot = Hot::new(4);
        hot.count("e", "a", 5, Duration::from_secs(59));
        hot.count("e", "a", 1, Duration::from_secs(61));
        hot.count("f", "a", 3, Duration::from_secs(61));
        let top = |hot: &mut Hot, seconds| {
            let top = hot.top(2, Duration::from_secs(seconds));
            top.into_iter().map(|(entity, _, writes)| (entity, writes)).collect::<Vec<_>>()
        };
        assert_eq!(top(&mut hot, 119), [("e".into(), 6), ("f".into(), 3)]);
        assert_eq!(top(&mut hot, 120), [("f".into(), 3), ("e".into(), 1)]);
        assert_eq!(top(&mut hot, 240), []);
        hot.count("e", "b", 1, Duration::from_mins(10));
        assert_eq!(top(&mut hot, 601), [("e".into(), 1)]);
    }

    #[test]
    fn a_share_is_of_all_writes_and_is_forgotten_with_them() {
        let mut hot = Hot::new(2);
        let shares =
            |hot: &mut Hot, seconds| format!("{:?}", hot.shares::<3>(Duration::from_secs(seconds)));
        assert_eq!(shares(&mut hot, 0), "[0.0, 0.0, 0.0]");
        hot.count("e", "a", 6, START);
        hot.count("e", "b", 2, START);
        assert_eq!(shares(&mut hot, 0), "[0.75, 0.25, 0.0]");
        hot.count("f", "a", 8, Duration::from_mins(1));
        assert_eq!(shares(&mut hot, 60), "[0.5, 0.375, 0.125]");
        assert_eq!(shares(&mut hot, 120), "[1.0, 0.0, 0.0]");
        assert_eq!(shares(&mut hot, 240), "[0.0, 0.0, 0.0]");
        // The newcomer takes over a counter of 1: 2 of 3 writes are no more than all of them.
        let mut hot = Hot::new(1);
        for key in ["a", "b", "c"] {
            hot.count("e", key, 1, START);
        }
        assert_eq!(shares(&mut hot, 0), "[1.0, 0.0, 0.0]");
    }

    #[test]
    fn a_full_window_stays_as_large_as_it_is() {
        let mut hot = Hot::new(512);
        for key in 0..20_000 {
            hot.count("e", &key.to_string(), 1, START);
            hot.count("e", "busy", 1, START);
        }
        assert_eq!((hot.current.counts.len(), hot.current.ranks.len()), (512, 512));
        assert_eq!(hot.top(1, START)[0].1, "busy");
    }
}
