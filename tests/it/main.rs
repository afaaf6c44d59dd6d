//! The product as its users run it: the built binary, a real broker and a real database.
//!
//! Owns: what only whole processes can show. Each test has its own database and its own names on
//! the broker; those that stop servers start a pair of their own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests panic, print what went wrong, read the runner's environment"
)]

mod batches;
mod broker_tls;
mod catalogue;
mod changes;
mod cluster;
mod dead_letters;
mod dead_letters_changed;
mod http_examples;
mod http_secrets;
mod http_server;
mod ingress;
mod keys;
mod kills;
mod metrics;
#[path = "../model/mod.rs"]
mod model;
mod modelled;
mod not_text;
mod operators;
mod outages;
mod parking;
mod parts;
mod pipes;
mod publish;
mod queues;
mod reload;
mod replay;
mod replay_outages;
mod resize;
mod restored;
mod rights;
mod ring;
mod rolls;
mod rolls_without;
mod senders;
mod servers_lost;
mod soak;
mod start;
mod stop;
mod support;
mod traces;
mod types;
mod upgrade;
mod waiting;
mod workers;
