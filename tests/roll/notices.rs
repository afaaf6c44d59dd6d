//! The explorer notices when the design is broken.

use super::explore::explore;
use super::mutation::Mutation;
use super::scenarios::{SCENARIOS, start};
use super::world::Setting;

/// The first scenario in which something goes wrong, and what.
fn noticed(mutation: Mutation) -> Option<(&'static str, String)> {
    SCENARIOS.iter().find_map(|scenario| {
        let (name, setting, stands) = *scenario;
        let setting = Setting { mutation: Some(mutation), ..setting };
        let found = explore(&setting, start(&(name, setting, stands))).violation?;
        Some((name, found.violation.0))
    })
}

#[test]
fn all_of_them() {
    use Mutation::*;
    for mutation in [
        NoSettle,
        NextAtOnce,
        NoOverlap,
        EndBeforeConfirm,
        UnbindBeforeEnd,
        VoidConsumed,
        CloseWhileNotYet,
        OneKeyOfHeld,
        AnyMarker,
        AckBehindMarker,
        MarkOne,
        RingAfterLost,
        WithdrawInSecret,
        NoWithdraw,
        NoGiveUp,
        NoEndCheck,
        NoLedger,
        GoneStaysOpen,
        DeleteAtOnce,
        NoFence,
    ] {
        println!("MUT {mutation:?}: {:?}", noticed(mutation));
    }
}
