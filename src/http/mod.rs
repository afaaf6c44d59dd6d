//! The HTTP server of every role: sockets, TLS, what every answer carries, and the probes.
//!
//! Owns: who may connect and for how long, and the two names (request id, trace) by which an
//! answer is found again.
//! Never: knows a write; that is the ingress.

mod answers;
mod body;
mod connection;
mod files;
pub mod probes;
mod request_id;
mod server;
mod stream;
mod tls;
mod trace_context;

pub use answers::with_answers;
pub use body::{BodyError, Pieces, read_body};
pub(crate) use files::{Files, Look};
pub use request_id::RequestId;
pub use server::{bind, serve};
pub use trace_context::TraceContext;
