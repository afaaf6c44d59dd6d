//! The explorer notices when the design is broken.

use super::explore::explore;
use super::mutation::Mutation;
use super::scenarios::{SCENARIOS, start};
use super::world::Setting;

/// The scenario that shows it best.
fn shown_by(mutation: Mutation) -> &'static str {
    match mutation {
        Mutation::NoSettle => "persons",
        Mutation::NoOverlap
        | Mutation::UnbindBeforeEnd
        | Mutation::VoidConsumed
        | Mutation::WithdrawInSecret => "a first start",
        Mutation::OneKeyOfHeld | Mutation::NoEndCheck => "two at a first start",
        Mutation::NoGiveUp => "two rollers",
        Mutation::GoneStaysOpen => "a queue is gone",
        Mutation::DeleteAtOnce => "tidied",
        Mutation::NoWithdraw => "resize and back",
        Mutation::NoFence => "slow lanes",
        Mutation::NextAtOnce
        | Mutation::EndBeforeConfirm
        | Mutation::AnyMarker
        | Mutation::AckBehindMarker
        | Mutation::CloseWhileNotYet
        | Mutation::MarkOne
        | Mutation::RingAfterLost
        | Mutation::NoLedger => "restarts",
    }
}

fn notices(mutation: Mutation) -> bool {
    let name = shown_by(mutation);
    let scenario = SCENARIOS.iter().find(|(it, ..)| *it == name).expect("there is such a scenario");
    let (_, setting, stands) = *scenario;
    let setting = Setting { mutation: Some(mutation), ..setting };
    let explored = explore(&setting, start(&(name, setting, stands)));
    let what = explored.violation.map(|found| found.violation.0);
    println!("MUT {mutation:?}, {name}: {} states, {what:?}", explored.states);
    what.is_some()
}

#[test]
fn the_explorer_notices() {
    let missed: Vec<Mutation> = Mutation::NOTICED.into_iter().filter(|it| !notices(*it)).collect();
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

/// They hold without it, and why: see [`Mutation`].
#[test]
fn what_it_cannot_notice() {
    let seen: Vec<Mutation> = Mutation::UNNOTICED.into_iter().filter(|it| notices(*it)).collect();
    assert!(seen.is_empty(), "this is no second line of defence: {seen:?}");
}
