//! The broker: where it is, by what it is trusted, and what belongs to us there.

use std::num::{NonZeroU16, NonZeroU32};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{hidden, u32};

/// The broker.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amqp {
    /// `amqp://user:password@host:port/vhost`; `amqps` for TLS.
    #[serde(serialize_with = "hidden")]
    pub url: SecretString,
    /// Certificates in PEM by which the broker is trusted, instead of those of the machine.
    pub tls_ca_file: Option<String>,
    /// The certificate chain in PEM that is shown to the broker, for one that asks for it.
    pub tls_cert_file: Option<String>,
    /// Its private key in PEM.
    pub tls_key_file: Option<String>,
    /// Before every name on the broker.
    pub prefix: String,
    /// How many partitions the first generation has.
    pub partitions: NonZeroU16,
    /// Most deliveries of a partition that are unsettled at once.
    pub prefetch: NonZeroU16,
    /// `reply_to` is served only for `amq.rabbitmq.reply-to*` and names that begin so.
    pub reply_to_prefixes: Vec<String>,
    /// The management API, asked by `doctor` alone; empty: those checks are skipped.
    #[serde(serialize_with = "hidden")]
    pub management_url: SecretString,
    /// Longest wait for the broker's answer, in milliseconds.
    pub timeout_ms: NonZeroU32,
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            url: SecretString::from("amqp://guest:guest@127.0.0.1:5672/%2f"),
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            prefix: "keylane".to_owned(),
            partitions: u16(8),
            prefetch: u16(2000),
            reply_to_prefixes: vec!["replies.".to_owned()],
            management_url: SecretString::from(""),
            timeout_ms: u32(10_000),
        }
    }
}

const fn u16(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("no default is zero")
}
