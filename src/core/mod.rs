//! The pure core: it is given values and gives back values. No `async`, no I/O, no clock, no
//! randomness; equal input, equal output.

pub mod array;
pub mod batch;
pub mod body;
pub mod column;
pub mod difference;
pub mod edit;
pub mod entity;
#[cfg(test)]
mod examples;
pub mod failure;
pub mod fingerprint;
pub mod fold;
pub mod hot;
pub mod json;
pub mod key;
mod lines;
mod loaded;
pub mod message;
pub mod moment;
pub mod number;
pub mod outcome;
pub mod parking;
pub mod partition;
pub mod plan;
pub mod pretty;
pub mod rendezvous;
pub mod roll;
pub mod row;
pub mod trace;
pub mod write;
