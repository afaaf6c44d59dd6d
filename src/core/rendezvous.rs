//! A worker's score for a partition: the highest gets it, and nobody has to agree on anything.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// More than any score.
const SCORES: i32 = 1_000_000;

/// The consumer priority (`x-priority`) of a worker at a queue, 0 to 999,999.
///
/// Rendezvous hashing: each worker scores each queue by itself, and when one comes or goes only
/// the queues move that it wins or had won.
pub fn score(worker: &str, queue: &str) -> i32 {
    let digest =
        Sha256::new().chain_update(worker).chain_update([0]).chain_update(queue).finalize();
    let head = digest.iter().take(4).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    i32::try_from(head % SCORES.unsigned_abs()).unwrap_or(0)
}

/// How long a worker with this score leaves a new queue to the others: `most` without any score.
///
/// The first that subscribes is the active consumer of a broker that ignores priorities.
pub fn leaves_to_others(score: i32, most: Duration) -> Duration {
    most * (SCORES - score).unsigned_abs() / SCORES.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(workers: &[&'a str], queue: &str) -> &'a str {
        workers.iter().copied().max_by_key(|worker| score(worker, queue)).unwrap()
    }

    #[test]
    fn the_highest_score_comes_first() {
        let most = Duration::from_secs(1);
        let waits = [999_999, 500_000, 0].map(|score| leaves_to_others(score, most).as_micros());
        assert_eq!(waits, [1, 500_000, 1_000_000]);
    }

    #[test]
    fn a_leaving_worker_moves_only_its_own_queues() {
        let queues: Vec<String> = (0..64).map(|n| format!("keylane.1.{n:03}")).collect();
        for queue in &queues {
            let before = owner(&["a", "b", "c"], queue);
            let after = owner(&["a", "b"], queue);
            assert!(before == after || before == "c", "{queue} moved from {before} to {after}");
        }
        let busiest = queues.iter().filter(|queue| owner(&["a", "b", "c"], queue) == "a").count();
        assert!((10..=35).contains(&busiest), "a serves {busiest} of 64");
    }
}
