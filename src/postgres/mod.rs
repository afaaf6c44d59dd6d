//! Thin: SQL and row conversion only. No decision about a write is made here.

pub mod catalogue;
pub mod claim;
pub mod connect;
pub mod dead_letters;
mod error;
mod fence;
pub mod generations;
pub mod hot_keys;
pub mod ledger;
pub mod ledger_parts;
pub mod migrate;
pub mod parking;
pub mod preview;
pub mod reading;
mod rows;
mod rows_sql;
pub mod store;
pub mod turns;

/// Why a statement failed, as the failure that can be acted upon.
pub use error::{Blame, failure};
