//! The scenarios, each explored to its end.

use super::explore::{Explored, calm, explore};
use super::world::{Budget, Setting, World};

pub(crate) const NOTHING: Budget = Budget {
    rolls: 0,
    crashes: 0,
    restarts: 0,
    persons: 0,
    queues: 0,
    late: 0,
    withdrawals: 0,
    resizes: 0,
    tidies: 0,
    hangs: 0,
};

/// One key, written twice; one roller; nothing goes wrong.
pub(crate) const QUIET: Setting = Setting {
    keys: &[0, 0],
    straight: 0,
    pipelined: false,
    prompt: true,
    forgets: true,
    gives_up: false,
    rollers: 1,
    slow_lanes: false,
    budget: NOTHING,
    mutation: None,
};

/// A ring stands, and nothing was ever sent.
pub(crate) fn steady(setting: &Setting) -> World {
    let before = Setting { keys: &[], mutation: None, ..*setting };
    let mut world = World::new(&before);
    calm(&before, &mut world).expect("a first start goes well");
    world.budget = setting.budget;
    world
}

pub(crate) fn run(what: &str, setting: &Setting, world: World) -> Explored {
    let explored = explore(setting, world);
    println!("{what}: {} states", explored.states);
    explored
}

/// A name, what can happen, and whether a ring stands already.
pub(crate) type Scenario = (&'static str, Setting, bool);

const fn with(budget: Budget) -> Setting {
    Setting { budget, ..QUIET }
}

/// What is published takes its time.
const fn slowly(budget: Budget) -> Setting {
    Setting { prompt: false, budget, ..QUIET }
}

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 18] = [
    (
        "a first start",
        with(Budget { rolls: 3, restarts: 1, crashes: 1, withdrawals: 1, ..NOTHING }),
        false,
    ),
    ("two at a first start", Setting { rollers: 2, ..with(Budget { rolls: 3, ..NOTHING }) }, false),
    (
        "two rollers",
        Setting { rollers: 2, ..with(Budget { rolls: 2, restarts: 1, ..NOTHING }) },
        true,
    ),
    (
        "two rollers, tidied",
        Setting {
            keys: &[0],
            rollers: 2,
            ..with(Budget { rolls: 2, restarts: 1, tidies: 1, ..NOTHING })
        },
        true,
    ),
    (
        "restarts",
        Setting { keys: &[0, 0, 0], ..with(Budget { rolls: 3, restarts: 2, ..NOTHING }) },
        true,
    ),
    (
        "late markers",
        slowly(Budget { rolls: 1, late: 1, withdrawals: 1, restarts: 1, ..NOTHING }),
        true,
    ),
    ("persons", slowly(Budget { rolls: 2, persons: 1, ..NOTHING }), true),
    ("persons and crashes", with(Budget { rolls: 3, persons: 1, crashes: 1, ..NOTHING }), true),
    ("resize", slowly(Budget { rolls: 2, resizes: 1, restarts: 1, ..NOTHING }), true),
    ("resize, persons", with(Budget { rolls: 2, resizes: 1, persons: 1, ..NOTHING }), true),
    ("a queue is gone", slowly(Budget { rolls: 1, queues: 1, restarts: 1, ..NOTHING }), true),
    (
        "tidied",
        Setting { keys: &[0], ..with(Budget { rolls: 2, restarts: 1, tidies: 3, ..NOTHING }) },
        true,
    ),
    (
        "strays",
        Setting {
            keys: &[0, 1],
            straight: 2,
            ..slowly(Budget { rolls: 2, withdrawals: 1, ..NOTHING })
        },
        true,
    ),
    (
        "a broker that forgets nothing",
        Setting { forgets: false, ..with(Budget { rolls: 2, restarts: 1, resizes: 1, ..NOTHING }) },
        true,
    ),
    (
        "one channel",
        Setting {
            pipelined: true,
            ..slowly(Budget { rolls: 2, restarts: 1, persons: 1, ..NOTHING })
        },
        true,
    ),
    (
        "slow lanes",
        Setting {
            slow_lanes: true,
            ..slowly(Budget { rolls: 2, queues: 1, restarts: 1, ..NOTHING })
        },
        true,
    ),
    (
        "resize and back",
        Setting {
            keys: &[0],
            ..with(Budget { rolls: 1, resizes: 2, crashes: 1, withdrawals: 1, ..NOTHING })
        },
        true,
    ),
    ("a leader hangs", slowly(Budget { rolls: 1, hangs: 1, persons: 1, late: 1, ..NOTHING }), true),
];

pub(crate) fn start((_, setting, stands): &Scenario) -> World {
    if *stands { steady(setting) } else { World::new(setting) }
}

fn prove(some: &[Scenario]) {
    for scenario in some {
        let (name, setting, _) = scenario;
        let explored = run(name, setting, start(scenario));
        if let Some(found) = explored.violation {
            panic!("{name}: {}\n{:?}", found.violation.0, found.schedule);
        }
    }
}

#[test]
fn whatever_happens_nothing_is_lost_or_overtaken() {
    prove(&SCENARIOS[..8]);
}

#[test]
fn nor_whatever_else_happens() {
    prove(&SCENARIOS[8..]);
}

/// A write that was never accepted may stay behind; nothing else does.
#[test]
fn a_sender_may_give_up() {
    let budget = Budget { rolls: 2, restarts: 2, ..NOTHING };
    let setting = Setting { gives_up: true, prompt: false, budget, ..QUIET };
    prove(&[("a sender gives up", setting, true)]);
}

/// Two things at once that nobody should do: it is written down, and this shows that it is so.
///
/// A roller that sleeps through somebody else's whole roll binds a ring that never gets a turn;
/// until it is tidied away, a person unbinds the ring that has the turn. Then nothing falls through
/// to held, and what is accepted is in a queue that nobody may apply. (The worker puts it into held
/// after a while, and it is applied late: too late for its order, so not in this model.)
#[test]
fn a_ring_that_came_too_late_hides_that_the_right_one_is_unbound() {
    let budget = Budget { rolls: 3, persons: 1, ..NOTHING };
    let setting = Setting { keys: &[0], rollers: 2, budget, ..QUIET };
    let explored = run("a ring that came too late", &setting, World::new(&setting));
    let found = explored.violation.expect("it is a limit");
    assert!(found.violation.0.starts_with("write 1 is never applied"), "{found:?}");
}

/// Nor can a roller know that a ring was deleted before it connected: then it takes it for a
/// restart, and does not wait for what is under way.
#[test]
fn a_ring_that_was_deleted_before_all_workers_connected_anew() {
    let setting = slowly(Budget { rolls: 1, persons: 1, crashes: 1, ..NOTHING });
    let explored = run("deleted before a connect", &setting, steady(&setting));
    let found = explored.violation.expect("it is a limit");
    assert!(found.violation.0.starts_with("write 1 is never applied"), "{found:?}");
}
