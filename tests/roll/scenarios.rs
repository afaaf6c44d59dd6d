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

fn proves(what: &str, setting: &Setting, world: World) {
    let explored = run(what, setting, world);
    if let Some(found) = explored.violation {
        panic!("{what}: {}\n{:?}", found.violation.0, found.schedule);
    }
}

macro_rules! scenario {
    ($name:ident, $setting:expr) => {
        #[test]
        fn $name() {
            let setting = $setting;
            proves(stringify!($name), &setting, steady(&setting));
        }
    };
}

#[test]
fn a_first_start() {
    let budget = Budget { rolls: 3, restarts: 1, crashes: 1, withdrawals: 1, ..NOTHING };
    let setting = Setting { budget, ..QUIET };
    proves("first start", &setting, World::new(&setting));
}

scenario!(restarts, Setting { keys: &[0, 0, 0], budget: Budget { rolls: 4, restarts: 2, ..NOTHING }, ..QUIET });
scenario!(late, Setting { prompt: false, budget: Budget { rolls: 2, restarts: 1, late: 1, withdrawals: 1, ..NOTHING }, ..QUIET });
scenario!(two_rollers, Setting { rollers: 2, budget: Budget { rolls: 3, restarts: 1, ..NOTHING }, ..QUIET });
scenario!(two_rollers_tidy, Setting { keys: &[0], rollers: 2, budget: Budget { rolls: 3, restarts: 1, tidies: 2, ..NOTHING }, ..QUIET });
scenario!(persons, Setting { prompt: false, budget: Budget { rolls: 3, persons: 1, crashes: 1, ..NOTHING }, ..QUIET });
scenario!(resize, Setting { prompt: false, budget: Budget { rolls: 2, resizes: 1, restarts: 1, ..NOTHING }, ..QUIET });
scenario!(resize_person, Setting { budget: Budget { rolls: 2, resizes: 1, persons: 1, ..NOTHING }, ..QUIET });
scenario!(queue_gone, Setting { prompt: false, keys: &[0, 1, 0], budget: Budget { rolls: 2, queues: 1, crashes: 1, ..NOTHING }, ..QUIET });
scenario!(tidy, Setting { budget: Budget { rolls: 3, restarts: 1, crashes: 1, tidies: 4, ..NOTHING }, ..QUIET });
scenario!(strays, Setting { keys: &[0, 0, 1], straight: 4, prompt: false, budget: Budget { rolls: 3, crashes: 1, withdrawals: 1, ..NOTHING }, ..QUIET });
scenario!(khepri, Setting { forgets: false, prompt: false, budget: Budget { rolls: 3, restarts: 1, crashes: 1, resizes: 1, ..NOTHING }, ..QUIET });
scenario!(pipelined, Setting { keys: &[0, 0], pipelined: true, prompt: false, budget: Budget { rolls: 3, restarts: 1, persons: 1, ..NOTHING }, ..QUIET });
scenario!(slow_lanes, Setting { keys: &[0, 0], slow_lanes: true, budget: Budget { rolls: 2, queues: 1, restarts: 1, ..NOTHING }, ..QUIET });
scenario!(gives_up, Setting { gives_up: true, prompt: false, budget: Budget { rolls: 3, restarts: 2, ..NOTHING }, ..QUIET });
scenario!(hangs, Setting { keys: &[0, 0], prompt: false, budget: Budget { rolls: 3, hangs: 1, persons: 1, late: 1, ..NOTHING }, ..QUIET });
