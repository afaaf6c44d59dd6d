//! keylane: one ordered line of writes a business key, each applied exactly once.
//!
//! ```text
//! main ─► cli ─► { worker, ingress, operate } ─► { rabbit, postgres } ─► core
//!                settings, telemetry, lifecycle, clock: used by the shell, never by core
//! ```
//!
//! The promise is kept in [`worker::turn`] (the order of the steps), [`core::plan`] (what is
//! decided) and [`postgres::store`] (the fence and the one transaction).

pub mod cli;
pub mod clock;
pub mod core;
pub mod deliveries;
pub mod http;
pub mod ingress;
pub mod lifecycle;
pub mod operate;
pub mod postgres;
pub mod rabbit;
pub mod reload;
pub mod service;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod wire;
pub mod worker;
