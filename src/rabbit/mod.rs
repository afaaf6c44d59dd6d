//! Thin: the broker's protocol only. No decision about a write is made here, and no lapin type
//! leaves this folder.

pub mod confirms;
pub mod connection;
pub mod consumer;
pub mod error;
mod lenient;
pub mod markers;
pub mod outcomes;
pub mod probe;
pub mod publisher;
pub mod replies;
mod restored;
pub mod source;
pub mod tls;
pub mod topology;
