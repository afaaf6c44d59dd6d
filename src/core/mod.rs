//! The pure core: it is given values and gives back values. No `async`, no I/O, no clock, no
//! randomness; equal input, equal output.

pub mod column;
pub mod entity;
pub mod outcome;
