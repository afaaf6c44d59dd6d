//! Handovers from one source of writes to the next, in every order of everything that can happen.
//!
//! A small world: one or two keys, three or four writes, a broker that forgets its rings, workers
//! that die between any two steps. What is decided is decided by `core::roll` itself; the model
//! carries it out, and the explorer tries all schedules. `mutation` shows that it would notice.

#[cfg(test)]
mod actions;
#[cfg(test)]
mod broker;
#[cfg(test)]
mod crash_table;
#[cfg(test)]
mod explore;
#[cfg(test)]
mod lane;
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod notices;
#[cfg(test)]
mod roller;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
#[path = "../turns/mod.rs"]
mod turns;
#[cfg(test)]
mod world;
