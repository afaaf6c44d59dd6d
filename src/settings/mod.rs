//! The settings, by section, as WIRE.md names them.
//!
//! Owns: the shape of the settings, their defaults, and how they are shown.
//! Never: reads a file or the environment (that is [`load()`]), judges a value ([`check()`]).

mod amqp;
pub mod check;
mod generations;
pub mod load;
mod park;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

pub use amqp::Amqp;
pub use check::{Complaint, check};
pub use generations::Generations;
pub use load::{SettingsError, load};
pub use park::Park;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The broker.
    pub amqp: Amqp,
    /// The database.
    pub database: Database,
    /// What one transaction may hold.
    pub batch: Batch,
    /// This worker.
    pub worker: Worker,
    /// The memory of write ids.
    pub ledger: Ledger,
    /// Keys that stand still.
    pub park: Park,
    /// Rings that come and go.
    pub generations: Generations,
    /// Probes, metrics, and the ingress.
    pub http: Http,
    /// Logs.
    pub telemetry: Telemetry,
    /// The user's tables, by the name that a write's `type` begins with.
    pub entities: BTreeMap<String, EntitySettings>,
}

/// The database.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://user:password@host:port/database`.
    #[serde(serialize_with = "hidden")]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Most writes of a batch.
    pub writes_max: NonZeroUsize,
    /// Most bytes of the bodies of a batch.
    pub bytes_max: NonZeroUsize,
    /// The largest body of one write, in bytes; larger is `body_too_large`.
    pub body_bytes_max: NonZeroUsize,
}

/// This worker.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// How long a write id is remembered at least, in hours.
    pub retention_hours: NonZeroU32,
}

/// Probes, metrics, and the ingress.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
    /// The largest body of one request, in bytes; a bulk request has no such bound, its items do.
    pub body_bytes_max: NonZeroUsize,
    /// Most requests in hand; beyond it they are answered `503`.
    pub requests_max: NonZeroUsize,
    /// Most outcomes that are waited for; beyond it writes are answered `202`.
    pub waiting_max: NonZeroUsize,
    /// How long a write waits for its outcome unless it says otherwise, in milliseconds.
    pub wait_ms: u32,
    /// The longest wait that a request may ask for, in milliseconds.
    pub wait_max_ms: NonZeroU32,
    /// Longest wait for the broker's confirm, in milliseconds.
    pub confirm_max_ms: NonZeroU32,
    /// Most items of a bulk request that are under way at once.
    pub bulk_window: NonZeroUsize,
    /// Most connections.
    pub connections_max: NonZeroUsize,
    /// Longest time for the head of a request to arrive, in milliseconds.
    pub header_timeout_ms: NonZeroU32,
    /// Longest pause in the body of a request, in milliseconds.
    pub body_timeout_ms: NonZeroU32,
    /// Certificate chain in PEM; with `tls_key_file` everything is served over TLS.
    pub tls_cert_file: Option<String>,
    /// Private key in PEM.
    pub tls_key_file: Option<String>,
    /// Bearer tokens; without this file `/v1` is served on loopback only.
    pub tokens_file: Option<String>,
}

/// Logs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// A filter of `tracing`, for example `info,keylane=debug`.
    pub log: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// A table of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EntitySettings {
    /// `schema.table`, or `table` for one in `public`; as the catalogue spells it, unquoted.
    pub table: String,
    /// The columns of the business key.
    pub key: Vec<String>,
    /// The bigint column with the row's version.
    pub version: Option<String>,
    /// The timestamptz column with the time of the newest write.
    pub occurred_at: Option<String>,
    /// The timestamptz column that marks a deleted row.
    pub deleted_at: Option<String>,
    /// What becomes of a key's later writes once one of them is a dead letter.
    #[serde(default)]
    pub on_reject: OnReject,
    /// Whether several writes of a key may become one row write.
    #[serde(default)]
    pub fold: Fold,
}

impl EntitySettings {
    /// Schema and table, unquoted.
    pub fn schema_and_table(&self) -> (&str, &str) {
        self.table.split_once('.').unwrap_or(("public", &self.table))
    }
}

/// What becomes of a key's later writes once one of them is a dead letter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// They are applied.
    #[default]
    Continue,
    /// They wait behind it, in order.
    Park,
}

/// Whether several writes of a key may become one row write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Where the catalogue shows that nobody can see the difference.
    #[default]
    Auto,
    /// Wherever triggers and constraints may see committed states only.
    Always,
}

impl Settings {
    /// The effective settings for `keylane settings`, passwords as `***`.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("settings hold nothing that JSON cannot")
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: SecretString::from("postgres://keylane@127.0.0.1:5432/keylane"),
            connections_max: u32(16),
            statement_timeout_ms: u32(30_000),
            lock_timeout_ms: u32(2_000),
            idle_in_transaction_timeout_ms: u32(10_000),
            tcp_user_timeout_ms: u32(15_000),
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { writes_max: size(1000), bytes_max: size(8 << 20), body_bytes_max: size(1 << 20) }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self { id: None, drain_max_ms: u32(20_000), partitions: Vec::new() }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { retention_hours: u32(168) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            body_bytes_max: size(1 << 20),
            requests_max: size(1_000),
            waiting_max: size(10_000),
            wait_ms: 5_000,
            wait_max_ms: u32(60_000),
            confirm_max_ms: u32(10_000),
            bulk_window: size(500),
            connections_max: size(2_000),
            header_timeout_ms: u32(10_000),
            body_timeout_ms: u32(10_000),
            tls_cert_file: None,
            tls_key_file: None,
            tokens_file: None,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info,lapin=error".to_owned(), format: LogFormat::Auto }
    }
}

const fn u32(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("no default is zero")
}

const fn size(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("no default is zero")
}

fn hidden<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_password(secret.expose_secret()))
}

/// An address as it may be shown: who, where and what, but no password.
pub fn without_password(address: &str) -> String {
    const HIDDEN: &str = "***";
    if address.is_empty() {
        return String::new();
    }
    let Ok(mut url) = Url::parse(address) else { return HIDDEN.to_owned() };
    if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    if url.cannot_be_a_base() {
        return HIDDEN.to_owned();
    }
    if url.query().is_some() {
        // Drivers take a password from the query too, and nobody else knows all of its names.
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut query = url.query_pairs_mut();
        query.clear();
        for (name, value) in &pairs {
            let secret = name.contains("pass") || name.contains("secret") || name.contains("token");
            query.append_pair(name, if secret { HIDDEN } else { value });
        }
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let table = [
            ("", ""),
            ("amqp://guest:guest@127.0.0.1:5672/%2f", "amqp://guest:***@127.0.0.1:5672/%2f"),
            (
                "postgres://keylane@127.0.0.1:5432/keylane",
                "postgres://keylane@127.0.0.1:5432/keylane",
            ),
            (
                "postgres://h/d?user=u&password=p&sslpassword=q&host=%2Frun",
                "postgres://h/d?user=u&password=***&sslpassword=***&host=%2Frun",
            ),
            ("postgres:u:secret@h", "***"),
            ("u:secret@h", "***"),
            ("secret", "***"),
        ];
        for (address, shown) in table {
            assert_eq!(without_password(address), shown, "{address}");
        }
    }

    #[test]
    fn settings_are_shown_with_user_host_and_vhost_but_no_password() {
        let mut settings = Settings::default();
        settings.amqp.url = SecretString::from("amqps://orders:hunter2@mq.example:5671/shop");
        let shown = settings.shown();
        assert_eq!(shown["amqp"]["url"], "amqps://orders:***@mq.example:5671/shop");
        assert_eq!(shown["batch"]["bytes_max"], 8_388_608);
        assert!(!format!("{shown} {settings:?}").contains("hunter2"));
    }
}
