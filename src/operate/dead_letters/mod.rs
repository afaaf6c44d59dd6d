//! Dead letters: what could not be applied and why, and what an operator can do about it.

pub mod change;
pub mod content;
pub mod edit;
pub mod export;
pub mod filter;
pub mod import;
pub mod letter;
pub mod line;
pub mod list;
pub mod row;
pub mod show;
pub mod stats;

pub use self::filter::Filter;
pub use self::letter::{Body, DeadLetter, Encoding, Hex};
pub use self::list::{Page, Summary, list, open_of_key};

/// Every state of a dead letter, as the table names them.
pub const STATES: [&str; 6] = ["dead", "parked", "waiting", "replaying", "resolved", "discarded"];

/// Those that are the line of a key `d`: what must be decided before anything newer is applied.
const IN_LINE: &str =
    "(d.state in ('parked', 'waiting', 'replaying') or (d.state = 'dead' and d.stops))";
