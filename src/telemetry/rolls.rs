//! What is counted of rolls.

use metrics::{Gauge, counter, gauge};

use crate::core::roll::Cause;

/// Handles of what is shown of the line of turns.
pub struct Rolls {
    generation: Gauge,
    open: Gauge,
}

impl Rolls {
    /// Registers every series at 0.
    pub fn new() -> Self {
        for cause in Cause::ALL {
            counter!("keylane_rolls_total", "cause" => cause.label()).increment(0);
        }
        counter!("keylane_late_writes_total").increment(0);
        Self { generation: gauge!("keylane_generation"), open: gauge!("keylane_generations_open") }
    }

    /// A handover is done.
    pub fn rolled(&self, cause: Cause) {
        counter!("keylane_rolls_total", "cause" => cause.label()).increment(1);
    }

    /// A write came after the turn of its queue, and is applied late.
    pub fn late(&self) {
        counter!("keylane_late_writes_total").increment(1);
    }

    /// The newest generation, and how many turns are not closed.
    pub fn line(&self, newest: i32, open: i64) {
        self.generation.set(newest);
        self.open.set(i32::try_from(open).unwrap_or(i32::MAX));
    }
}

impl Default for Rolls {
    fn default() -> Self {
        Self::new()
    }
}
