//! The settings, by section, as WIRE.md names them.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

use secrecy::SecretString;
use serde::Deserialize;

/// Everything that can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub amqp: Amqp,
    pub database: Database,
    #[serde(default)]
    pub batch: Batch,
    #[serde(default)]
    pub worker: Worker,
    #[serde(default)]
    pub ledger: Ledger,
    #[serde(default)]
    pub http: Http,
    #[serde(default)]
    pub telemetry: Telemetry,
    #[serde(default)]
    pub entities: BTreeMap<String, EntitySettings>,
}

/// The broker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amqp {
    /// `amqp://user:password@host:port/vhost`; `amqps` for TLS.
    pub url: SecretString,
    /// Before every name on the broker.
    pub prefix: String,
    /// How many partitions the first generation has.
    pub partitions: NonZeroU16,
    /// Most deliveries of a partition that are unsettled at once.
    pub prefetch: NonZeroU16,
    /// `reply_to` is served only for `amq.rabbitmq.reply-to*` and names that begin so.
    pub reply_to_prefixes: Vec<String>,
    /// The management API, asked by `doctor` alone; empty: those checks are skipped.
    pub management_url: SecretString,
    /// Longest wait for the broker's answer, in milliseconds.
    pub timeout_ms: NonZeroU32,
}

/// The database.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    pub url: SecretString,
    /// Most connections of this process.
    pub connections_max: NonZeroU32,
    /// Longest statement, in milliseconds.
    pub statement_timeout_ms: NonZeroU32,
    /// Longest wait for a row that somebody else holds, in milliseconds.
    pub lock_timeout_ms: NonZeroU32,
    /// Longest pause inside a transaction before the server ends it, in milliseconds.
    pub idle_in_transaction_timeout_ms: NonZeroU32,
    /// Silence after which a dead peer is given up, in milliseconds.
    pub tcp_user_timeout_ms: NonZeroU32,
}

/// What one transaction may hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    pub writes_max: NonZeroUsize,
    pub bytes_max: NonZeroUsize,
    /// The largest body of one write; larger is `body_too_large`.
    pub body_bytes_max: NonZeroUsize,
}

/// This worker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Default: host name and a random part.
    pub id: Option<String>,
    /// Longest time that a stop may take, in milliseconds.
    pub drain_max_ms: NonZeroU32,
    /// Only these partitions; empty: all.
    pub partitions: Vec<u16>,
}

/// The memory of write ids.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    pub retention_hours: NonZeroU32,
}

/// The page for probes and metrics.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
}

/// Logs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// A filter of `tracing`, for example `info,keylane=debug`.
    pub log: String,
    pub format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// A table of the user's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntitySettings {
    /// `schema.table`.
    pub table: String,
    pub key: Vec<String>,
    pub version: Option<String>,
    pub occurred_at: Option<String>,
    pub deleted_at: Option<String>,
    #[serde(default)]
    pub fold: Fold,
}

/// Whether several writes of a key may become one row write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Where the catalogue shows that nobody can see the difference.
    #[default]
    Auto,
    /// Wherever triggers and constraints may see committed states only.
    Always,
}
