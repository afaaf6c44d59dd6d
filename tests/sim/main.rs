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
mod run;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tables;
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

#[test]
fn whatever_happens_each_write_is_applied_once_and_in_order() {
    match number("SEED") {
        Some(seed) => run::run(seed),
        None => (0..number("SEEDS").unwrap_or(SEEDS)).for_each(run::run),
    }
}

#[test]
fn whatever_operators_do_each_key_keeps_its_line() {
    match number("SEED") {
        Some(seed) => run::run_with_operators(seed),
        None => (0..number("SEEDS").unwrap_or(SEEDS)).for_each(run::run_with_operators),
    }
}

#[test]
fn a_seed_is_replayed_step_by_step() {
    for seed in [3, 14] {
        assert_eq!(run::trace(seed), run::trace(seed), "SEED={seed}");
    }
}
