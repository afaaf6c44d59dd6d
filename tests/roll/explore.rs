//! Tries everything that can happen, in every order, and looks at every state.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::actions::{Action, CALM};
use super::lane::Violation;
use super::world::{Setting, World};

/// Steps within which everything comes to rest, once nothing goes wrong any more.
const CALM_MAX: usize = 1_000;

/// A scenario that comes to more takes too long.
const STATES_MAX: usize = 100_000;

/// Fast rather than fair: a state is known by 64 bits.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_i32(&mut self, word: i32) {
        self.write_u64(word.cast_unsigned().into());
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.cast_unsigned() as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

type Mixed = BuildHasherDefault<Mixer>;

fn name(world: &World) -> u64 {
    let mut mixer = Mixer::default();
    world.hash(&mut mixer);
    mixer.finish()
}

/// What came of a search.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) violation: Option<Found>,
}

/// What is wrong, and how it comes to it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) violation: Violation,
    pub(crate) schedule: Vec<Action>,
}

struct Explorer<'a> {
    setting: &'a Setting,
    /// Each state that was seen, and how it was come to.
    seen: HashMap<u64, Option<(u64, Action)>, Mixed>,
    /// States from which everything ends well.
    good: HashSet<u64, Mixed>,
}

/// Explores everything that can come of `world`.
pub(crate) fn explore(setting: &Setting, world: World) -> Explored {
    let (seen, good) = (HashMap::default(), HashSet::default());
    let mut explorer = Explorer { setting, seen, good };
    let violation = explorer.run(world);
    Explored { states: explorer.seen.len(), violation }
}

impl Explorer<'_> {
    fn run(&mut self, world: World) -> Option<Found> {
        self.seen.insert(name(&world), None);
        let mut open = VecDeque::from([world]);
        while let Some(world) = open.pop_front() {
            assert!(self.seen.len() < STATES_MAX, "the scenario is too large to be explored");
            let here = name(&world);
            if let Err((violation, rest)) = self.ends_well(&world) {
                let schedule = self.schedule(here).chain(rest).collect();
                return Some(Found { violation, schedule });
            }
            for action in self.choices(&world) {
                let mut next = world.clone();
                if let Err(violation) = next.happen(self.setting, action) {
                    let schedule = self.schedule(here).chain([action]).collect();
                    return Some(Found { violation, schedule });
                }
                if let Entry::Vacant(new) = self.seen.entry(name(&next)) {
                    new.insert(Some((here, action)));
                    open.push_back(next);
                }
            }
        }
        None
    }

    /// All that can happen; but that an acknowledgement of what is known already has happened makes
    /// no difference to anything else, so that it need not be tried in every order.
    fn choices(&self, world: &World) -> Vec<Action> {
        let mut actions = world.actions(self.setting);
        if let Some(settles) = world.settles_a_copy(self.setting) {
            actions.retain(|action| *action == settles);
        }
        actions
    }

    fn schedule(&self, mut at: u64) -> impl Iterator<Item = Action> + use<> {
        let mut schedule = Vec::new();
        while let Some(Some((before, action))) = self.seen.get(&at) {
            schedule.push(*action);
            at = *before;
        }
        schedule.into_iter().rev()
    }

    /// If nothing goes wrong from here on, everything is applied and nothing is left.
    fn ends_well(&mut self, world: &World) -> Result<(), (Violation, Vec<Action>)> {
        let (mut world, mut schedule, mut names) = (world.clone(), Vec::new(), Vec::new());
        world.budget = CALM;
        loop {
            let here = name(&world);
            if self.good.contains(&here) {
                break;
            }
            names.push(here);
            let happened = match world.actions(self.setting).first() {
                None => match world.rests(self.setting) {
                    Ok(()) => break,
                    violation => violation,
                },
                Some(_) if names.len() > CALM_MAX => {
                    Err(Violation("it never comes to rest".to_owned()))
                }
                Some(action) => {
                    schedule.push(*action);
                    world.happen(self.setting, *action)
                }
            };
            world.budget = CALM;
            if let Err(violation) = happened {
                return Err((violation, schedule));
            }
        }
        self.good.extend(names);
        Ok(())
    }
}

/// Lets everything happen that happens where nothing goes wrong; says how it ends.
pub(crate) fn calm(setting: &Setting, world: &mut World) -> Result<usize, Violation> {
    for steps in 0..CALM_MAX {
        world.budget = CALM;
        let Some(action) = world.actions(setting).first().copied() else {
            return world.rests(setting).map(|()| steps);
        };
        world.happen(setting, action)?;
    }
    Err(Violation("it never comes to rest".to_owned()))
}
