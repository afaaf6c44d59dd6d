//! What the tests share.

pub(crate) mod certificates;
pub(crate) mod cli;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod collector;
mod database;
pub(crate) mod entities;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod numbered;
mod operator;
pub(crate) mod peer;
mod process;
pub(crate) mod raw;
pub(crate) mod scene;
pub(crate) mod sender;
pub(crate) mod servers;
pub(crate) mod wait;

pub(crate) use cli::Cli;
pub(crate) use client::{Answer, Client, Request, request};
pub(crate) use collector::Collector;
pub(crate) use database::database;
pub(crate) use operator::Operator;
pub(crate) use process::{Process, Worker};
pub(crate) use scene::Scene;
pub(crate) use sender::{Sender, Write, write};
pub(crate) use servers::OwnServers;

/// Bytes as PostgreSQL's `encode(…, 'hex')` shows them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
