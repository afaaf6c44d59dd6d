//! The partition loop under every misfortune that a seed can think of, and properties of the core.
//!
//! `SEED=n cargo test --test sim` replays one seed, `SEEDS=n` runs so many.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod database;
#[cfg(test)]
mod history;
#[cfg(test)]
#[path = "../model/mod.rs"]
mod model;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod parking;
#[cfg(test)]
mod process;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod roller;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod run;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tables;
#[cfg(test)]
#[path = "../turns/mod.rs"]
mod turns;
#[cfg(test)]
mod worker;

/// As many as a debug build runs in some twenty seconds.
#[cfg(test)]
const SEEDS: u64 = 1_000;

#[cfg(test)]
fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the seed of a failed run is no setting")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("SEED and SEEDS are numbers"))
}

/// Runs them; one roll each would be the first start and no more.
#[cfg(test)]
fn every_seed(run: impl Fn(u64) -> u64) {
    if let Some(seed) = number("SEED") {
        println!("{} rolls", run(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let rolls: u64 = (0..seeds).map(run).sum();
    println!("{rolls} rolls in {seeds} seeds");
    assert!(rolls > 4 * seeds, "rings come and go while writes flow: {rolls}");
}

#[test]
fn whatever_happens_each_write_is_applied_once_and_in_order() {
    every_seed(run::run);
}

#[test]
fn whatever_operators_do_each_key_keeps_its_line() {
    every_seed(run::run_with_operators);
}

#[test]
fn a_seed_is_replayed_step_by_step() {
    for seed in [3, 14] {
        assert_eq!(run::trace(seed), run::trace(seed), "SEED={seed}");
    }
}
