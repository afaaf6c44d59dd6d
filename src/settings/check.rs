//! Judges the settings: all complaints at once, each with what would be right.
//!
//! Owns: the bounds of every setting and how settings must fit each other.
//! Never: asks the broker or the database, and never prints a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{Amqp, Batch, Database, EntitySettings, Generations, Http, Park, Settings, Worker};

/// Names on the broker are at most 255 bytes, and ours add no more than 30 of their own.
const PREFIX_BYTES_MAX: usize = 40;
/// Partition numbers have three digits.
const PARTITIONS_MAX: u16 = 1000;
/// One for the fence, one for a partition, one for everything else.
const CONNECTIONS_MIN: u32 = 3;
/// PostgreSQL takes no value larger than 1 GiB, and a batch is sent in JSON and in arrays.
const BATCH_BYTES_MAX: usize = 512 << 20;
/// Entity names are joined with changes and write ids: short enough for everybody.
const ENTITY_BYTES_MAX: usize = 60;
/// PostgreSQL cuts longer names.
const NAME_BYTES_MAX: usize = 63;
/// The length of a worker's name.
const WORKER_ID_CHARS_MAX: usize = 200;
/// PostgreSQL keeps timeouts as 32 bits of milliseconds.
const TIMEOUT_MS_MAX: u32 = i32::MAX.unsigned_abs();
/// Ten years.
const RETENTION_HOURS_MAX: u32 = 87_600;
/// The line of one key is read in pieces, but counted whole.
const PARKED_A_KEY_MAX: usize = 1_000_000;
/// A day.
const PARENT_WAIT_S_MAX: u32 = 86_400;
/// Longest pause of a roll, in milliseconds.
const ROLL_MS_MAX: u32 = 60_000;
/// Longest wait for a copy, in seconds: after five minutes of waiting a lane subscribes anew.
const COPIES_S_MAX: u32 = 240;
/// Longest time that an old ring is kept, in minutes.
const KEEP_MINUTES_MAX: u32 = 10_080;

/// The broker takes no larger messages in any of its versions.
const REQUEST_BYTES_MAX: usize = 512 << 20;
/// Requests, connections and items of them: each is memory.
const IN_HAND_MAX: usize = 1_000_000;
/// Who waits for an outcome is less than a request.
const WAITING_MAX: usize = 10_000_000;
/// An hour: no proxy waits longer for an answer.
const WAIT_MS_MAX: u32 = 3_600_000;
/// Ten minutes: whoever is slower than that is gone.
const PEER_MS_MAX: u32 = 600_000;

/// One setting that cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The setting, for example `amqp.prefix`.
    pub path: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}

/// All complaints about `settings`, in the order of the sections; empty: none.
pub fn check(settings: &Settings) -> Vec<Complaint> {
    let mut complaints = Complaints::default();
    amqp(&settings.amqp, &mut complaints);
    database(&settings.database, &mut complaints);
    batch(&settings.batch, &mut complaints);
    worker(&settings.worker, &mut complaints);
    park(&settings.park, &mut complaints);
    generations(&settings.generations, &mut complaints);
    let hours = settings.ledger.retention_hours.get();
    complaints.unless(hours <= RETENTION_HOURS_MAX, "ledger.retention_hours", || {
        format!("is {hours}, must be at most {RETENTION_HOURS_MAX} (ten years)")
    });
    http(&settings.http, &mut complaints);
    if let Err(error) = EnvFilter::try_new(&settings.telemetry.log) {
        complaints.add(
            "telemetry.log",
            format!("must be a filter, for example `info,keylane=debug`: {error}"),
        );
    }
    for (name, settings) in &settings.entities {
        entity(name, settings, &mut complaints);
    }
    complaints.0
}

#[derive(Default)]
struct Complaints(Vec<Complaint>);

impl Complaints {
    fn add(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Complaint { path: path.into(), detail: detail.into() });
    }

    fn unless(&mut self, right: bool, path: &str, detail: impl FnOnce() -> String) {
        if !right {
            self.add(path, detail());
        }
    }
}

fn amqp(amqp: &Amqp, complaints: &mut Complaints) {
    url("amqp.url", &amqp.url, &["amqp", "amqps"], complaints);
    if !amqp.management_url.expose_secret().is_empty() {
        url("amqp.management_url", &amqp.management_url, &["http", "https"], complaints);
    }
    amqp_tls(amqp, complaints);
    let prefix = &amqp.prefix;
    let fits = prefix.len() <= PREFIX_BYTES_MAX && word(prefix, "_-");
    complaints.unless(fits, "amqp.prefix", || {
        format!("`{prefix}` must be [a-z][a-z0-9_-]*, at most {PREFIX_BYTES_MAX} bytes")
    });
    let partitions = amqp.partitions.get();
    complaints.unless(partitions <= PARTITIONS_MAX, "amqp.partitions", || {
        format!("is {partitions}, must be 1 to {PARTITIONS_MAX}")
    });
    complaints.unless(
        amqp.reply_to_prefixes.iter().all(|prefix| !prefix.is_empty()),
        "amqp.reply_to_prefixes",
        || "an empty prefix would let senders write into every queue; leave it out".to_owned(),
    );
}

fn amqp_tls(amqp: &Amqp, complaints: &mut Complaints) {
    let (cert, key) = (amqp.tls_cert_file.as_deref(), amqp.tls_key_file.as_deref());
    let files = [
        ("tls_ca_file", amqp.tls_ca_file.as_deref()),
        ("tls_cert_file", cert),
        ("tls_key_file", key),
    ];
    let plain = Url::parse(amqp.url.expose_secret()).is_ok_and(|url| url.scheme() == "amqp");
    for (name, file) in files {
        complaints.unless(file.is_none() || !plain, &format!("amqp.{name}"), || {
            "amqp.url is amqp://, which has no TLS; make it amqps://, or leave this out".to_owned()
        });
        named_file("amqp", name, file, complaints);
    }
    both_files("amqp", cert, key, complaints);
}

/// A certificate is of no use without its key.
fn both_files(section: &str, cert: Option<&str>, key: Option<&str>, complaints: &mut Complaints) {
    let (cert, key) = (("tls_cert_file", cert), ("tls_key_file", key));
    for ((name, file), (other, other_file)) in [(cert, key), (key, cert)] {
        let right = file.is_some() || other_file.is_none();
        complaints.unless(right, &format!("{section}.{name}"), || {
            format!("must be given with {section}.{other}; without a certificate, leave both out")
        });
    }
}

fn named_file(section: &str, name: &str, file: Option<&str>, complaints: &mut Complaints) {
    let right = file.is_none_or(|file| !file.is_empty());
    complaints.unless(right, &format!("{section}.{name}"), || {
        "must be the name of a file; without one, leave it out".to_owned()
    });
}

fn database(database: &Database, complaints: &mut Complaints) {
    url("database.url", &database.url, &["postgres", "postgresql"], complaints);
    let connections = database.connections_max.get();
    complaints.unless(connections >= CONNECTIONS_MIN, "database.connections_max", || {
        format!("is {connections}, must be at least {CONNECTIONS_MIN}")
    });
    let statement = database.statement_timeout_ms.get();
    let lock = database.lock_timeout_ms.get();
    for (name, timeout) in [
        ("statement_timeout_ms", statement),
        ("lock_timeout_ms", lock),
        ("idle_in_transaction_timeout_ms", database.idle_in_transaction_timeout_ms.get()),
        ("tcp_user_timeout_ms", database.tcp_user_timeout_ms.get()),
    ] {
        complaints.unless(timeout <= TIMEOUT_MS_MAX, &format!("database.{name}"), || {
            format!("is {timeout}, must be at most {TIMEOUT_MS_MAX}")
        });
    }
    complaints.unless(lock < statement, "database.lock_timeout_ms", || {
        format!("is {lock}, must be less than database.statement_timeout_ms ({statement})")
    });
}

fn park(park: &Park, complaints: &mut Complaints) {
    let (key_max, total_max) = (park.key_max.get(), park.total_max.get());
    complaints.unless(key_max <= PARKED_A_KEY_MAX, "park.key_max", || {
        format!("is {key_max}, must be at most {PARKED_A_KEY_MAX}")
    });
    complaints.unless(key_max <= total_max, "park.total_max", || {
        format!("is {total_max}, must be at least park.key_max ({key_max})")
    });
    let seconds = park.wait_max_s.get();
    complaints.unless(seconds <= PARENT_WAIT_S_MAX, "park.wait_max_s", || {
        format!("is {seconds}, must be at most {PARENT_WAIT_S_MAX} (a day)")
    });
}

fn generations(generations: &Generations, complaints: &mut Complaints) {
    let keep = generations.keep_minutes.get();
    let waits = [
        ("settle_ms", generations.settle_ms.get()),
        ("rest_ms", generations.rest_ms.get()),
        ("spread_ms", generations.spread_ms),
    ];
    for (name, wait) in waits {
        complaints.unless(wait <= ROLL_MS_MAX, &format!("generations.{name}"), || {
            format!("is {wait}, must be at most {ROLL_MS_MAX} (a minute)")
        });
    }
    let copies = generations.copies_max_s.get();
    complaints.unless(copies <= COPIES_S_MAX, "generations.copies_max_s", || {
        format!("is {copies}, must be at most {COPIES_S_MAX}")
    });
    complaints.unless(keep <= KEEP_MINUTES_MAX, "generations.keep_minutes", || {
        format!("is {keep}, must be at most {KEEP_MINUTES_MAX} (a week)")
    });
}

fn batch(batch: &Batch, complaints: &mut Complaints) {
    let (bytes, body_bytes) = (batch.bytes_max.get(), batch.body_bytes_max.get());
    complaints.unless(bytes <= BATCH_BYTES_MAX, "batch.bytes_max", || {
        format!("is {bytes}, must be at most {BATCH_BYTES_MAX} (512 MiB)")
    });
    complaints.unless(body_bytes <= bytes, "batch.body_bytes_max", || {
        format!("is {body_bytes}, must be at most batch.bytes_max ({bytes})")
    });
}

fn worker(worker: &Worker, complaints: &mut Complaints) {
    if let Some(id) = &worker.id {
        let chars = id.chars().count();
        let fits = (1..=WORKER_ID_CHARS_MAX).contains(&chars) && !id.contains(char::is_control);
        complaints.unless(fits, "worker.id", || {
            format!("must be 1 to {WORKER_ID_CHARS_MAX} printable characters")
        });
    }
    for partition in worker.partitions.iter().filter(|partition| **partition >= PARTITIONS_MAX) {
        complaints.add(
            "worker.partitions",
            format!("holds {partition}, partitions are numbered 0 to {}", PARTITIONS_MAX - 1),
        );
    }
}

fn http(http: &Http, complaints: &mut Complaints) {
    let listen = &http.listen;
    complaints.unless(listen.parse::<SocketAddr>().is_ok(), "http.listen", || {
        format!("`{listen}` must be an IP address and a port, for example `127.0.0.1:8080`")
    });
    for (name, value, max) in [
        ("body_bytes_max", http.body_bytes_max.get(), REQUEST_BYTES_MAX),
        ("requests_max", http.requests_max.get(), IN_HAND_MAX),
        ("waiting_max", http.waiting_max.get(), WAITING_MAX),
        ("bulk_window", http.bulk_window.get(), IN_HAND_MAX),
        ("connections_max", http.connections_max.get(), IN_HAND_MAX),
    ] {
        complaints.unless(value <= max, &format!("http.{name}"), || {
            format!("is {value}, must be at most {max}")
        });
    }
    let (wait, wait_max) = (http.wait_ms, http.wait_max_ms.get());
    complaints.unless(wait <= wait_max, "http.wait_ms", || {
        format!("is {wait}, must be at most http.wait_max_ms ({wait_max})")
    });
    for (name, value, max) in [
        ("wait_max_ms", wait_max, WAIT_MS_MAX),
        ("confirm_max_ms", http.confirm_max_ms.get(), PEER_MS_MAX),
        ("header_timeout_ms", http.header_timeout_ms.get(), PEER_MS_MAX),
        ("body_timeout_ms", http.body_timeout_ms.get(), PEER_MS_MAX),
    ] {
        complaints.unless(value <= max, &format!("http.{name}"), || {
            format!("is {value}, must be at most {max}")
        });
    }
    let (cert, key) = (http.tls_cert_file.as_deref(), http.tls_key_file.as_deref());
    both_files("http", cert, key, complaints);
    let tokens = http.tokens_file.as_deref();
    for (name, file) in [("tls_cert_file", cert), ("tls_key_file", key), ("tokens_file", tokens)] {
        named_file("http", name, file, complaints);
    }
}

fn entity(name: &str, settings: &EntitySettings, complaints: &mut Complaints) {
    let path = format!("entities.{name}");
    let fits = word(name, "_")
        && !name.contains("__")
        && name != "writes"
        && name.len() <= ENTITY_BYTES_MAX;
    complaints.unless(fits, &path, || {
        format!(
            "the name must be [a-z][a-z0-9_]* without `__`, not `writes`, \
             at most {ENTITY_BYTES_MAX} bytes"
        )
    });
    let (schema, table) = settings.schema_and_table();
    let fits = sql_name(schema) && sql_name(table) && !table.contains('.');
    complaints.unless(fits, &format!("{path}.table"), || {
        format!("`{}` must be `table` or `schema.table`, without quotes", settings.table)
    });
    complaints.unless(!settings.key.is_empty(), &format!("{path}.key"), || {
        "must name at least one column, for example [\"external_id\"]".to_owned()
    });
    let guards = [
        ("version", &settings.version),
        ("occurred_at", &settings.occurred_at),
        ("deleted_at", &settings.deleted_at),
    ];
    let key = settings.key.iter().map(|column| ("key", column));
    let guards = guards.into_iter().filter_map(|(field, column)| Some((field, column.as_ref()?)));
    let mut seen = BTreeSet::new();
    for (field, column) in key.chain(guards) {
        let path = format!("{path}.{field}");
        complaints.unless(sql_name(column), &path, || {
            format!("`{column}` must be a column name of 1 to {NAME_BYTES_MAX} bytes")
        });
        complaints.unless(seen.insert(column), &path, || {
            format!(
                "`{column}` is named twice; the key's columns, version, occurred_at and \
                 deleted_at must all be different"
            )
        });
    }
}

/// An address with one of `schemes` and a host. Its text is never shown: it holds a password.
fn url(path: &str, address: &SecretString, schemes: &[&str], complaints: &mut Complaints) {
    let shape = || format!("must be {}://user:password@host:port/…", schemes.join(":// or "));
    match Url::parse(address.expose_secret()) {
        Err(error) => complaints.add(path, format!("{}: {error}", shape())),
        Ok(url) => {
            complaints.unless(schemes.contains(&url.scheme()), path, || {
                format!("{}, not {}://", shape(), url.scheme())
            });
            let host = url.host_str().is_some_and(|host| !host.is_empty())
                || url.query_pairs().any(|(name, value)| name == "host" && !value.is_empty());
            complaints.unless(host, path, || format!("{}: it has no host", shape()));
        }
    }
}

/// A lower-case letter, then lower-case letters, digits and characters of `more`.
fn word(text: &str, more: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
}

/// What PostgreSQL can take as a name.
fn sql_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(['"', '\0'])
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
