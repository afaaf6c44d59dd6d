//! keylane: one ordered line of writes a business key, each applied exactly once.

pub mod core;
pub mod settings;
