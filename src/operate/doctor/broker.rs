//! Looks at the broker over AMQP: is it there, can it make rings, does the topology stand.

use std::time::Duration;

use uuid::Uuid;

use super::management::Findings;
use super::{Check, Newest, Status};
use crate::core::partition::PartitionId;
use crate::operate::chain;
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::probe::{self, Address};
use crate::rabbit::tls;
use crate::settings::Amqp;

/// Shown by the broker's tools.
const CONNECTION_NAME: &str = "keylane doctor";
/// The oldest RabbitMQ whose quorum queues have what is used.
const VERSION_MIN: (u32, u32) = (3, 10);
/// From here on a queue is handed to the consumer with the highest priority.
const VERSION_PRIORITIES: (u32, u32) = (4, 0);
/// From here on there is no metadata store but Khepri.
const VERSION_KHEPRI: (u32, u32) = (4, 3);

/// Every check over AMQP.
pub async fn examine(
    amqp: &Amqp,
    address: &Address,
    newest: Option<&Newest>,
    findings: Option<&Findings>,
) -> Vec<Check> {
    const REACHABLE: &str = "broker.reachable";
    let answer_max = Duration::from_millis(amqp.timeout_ms.get().into());
    let mut checks = vec![judge_tls(amqp, address.tls, tls::check(amqp))];
    let place = format!("{}:{}, virtual host {}", address.host, address.port, address.vhost);
    let connection = match Connection::open(amqp, CONNECTION_NAME, answer_max).await {
        Ok(connection) => connection,
        Err(error) => {
            let found = format!("{place}: {}", chain(&error));
            checks.push(Check::failure(REACHABLE, found, unreachable(&error)));
            return checks;
        }
    };
    checks.push(Check::ok(REACHABLE, format!("{place} as {}", address.user)));
    let said = probe::server_properties(address, answer_max).await;
    let said = said.and_then(|properties| properties.get("version").cloned());
    let version = said.or_else(|| findings.and_then(Findings::version));
    checks.push(judge_version(version.as_deref()));
    checks.push(judge_ring(version.as_deref(), findings.and_then(Findings::khepri)));
    checks.push(ring_type(amqp, answer_max).await);
    checks.push(topology(&connection, &amqp.prefix, newest).await);
    connection.close().await;
    checks
}

const fn unreachable(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::Refused { .. } => {
            "mend user, password or virtual host in amqp.url (rabbitmqctl list_users, list_vhosts)"
        }
        BrokerError::Certificate { .. } => {
            "mend the certificates on the side that is named (docs/OPERATING.md, TLS)"
        }
        _ => "start it, or mend amqp.url (`keylane settings` shows it)",
    }
}

/// By what both sides are to trust each other; whether they do is seen when they connect.
fn judge_tls(amqp: &Amqp, used: bool, usable: Result<(), BrokerError>) -> Check {
    const NAME: &str = "broker.tls";
    if !used {
        return Check::ok(NAME, "amqp.url is amqp://: nothing is encrypted on the way");
    }
    if let Err(error) = usable {
        let remedy = "name files in PEM that this user may read; the key must be the certificate's";
        return Check::failure(NAME, chain(&error), remedy);
    }
    let trusted = amqp.tls_ca_file.as_deref().unwrap_or("what this machine trusts");
    let shown = amqp.tls_cert_file.as_deref().unwrap_or("none");
    Check::ok(NAME, format!("the broker is trusted by {trusted}; our certificate: {shown}"))
}

/// Major and minor version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What this version can do.
fn judge_version(version: Option<&str>) -> Check {
    const NAME: &str = "broker.version";
    let Some((text, numbers)) = version.and_then(|text| Some((text, numbers(text)?))) else {
        let remedy = "set amqp.management_url, it is asked there";
        return Check::skipped(NAME, "the version is not said over TLS", remedy);
    };
    if numbers < VERSION_MIN {
        let remedy = "take RabbitMQ 3.10 or newer";
        return Check::failure(NAME, format!("RabbitMQ {text}"), remedy);
    }
    let priorities = if numbers >= VERSION_PRIORITIES {
        "partitions are spread over the workers"
    } else {
        "the first worker takes all partitions, others stand by (worker.partitions splits them)"
    };
    Check::ok(NAME, format!("RabbitMQ {text}: {priorities}"))
}

/// Whether a restart of the broker moves keys; `khepri` is known from the management API alone.
fn judge_ring(version: Option<&str>, khepri: Option<bool>) -> Check {
    const NAME: &str = "broker.ring";
    let survives = match (version.and_then(numbers), khepri) {
        (Some(numbers), _) if numbers >= VERSION_KHEPRI => Some(true),
        (Some(numbers), None) if numbers < VERSION_PRIORITIES => Some(false),
        (_, khepri) => khepri,
    };
    match survives {
        Some(true) => Check::ok(NAME, "it survives a restart of the broker"),
        Some(false) => Check::ok(
            NAME,
            "a restart of the broker forgets it: keylane makes the next one by itself, in order, \
             and writes wait for some seconds",
        ),
        None => Check::skipped(
            NAME,
            "cannot tell whether a restart of the broker forgets it; harmless: keylane makes the \
             next one by itself, in order",
            "set amqp.management_url, it is asked there whether khepri_db is enabled",
        ),
    }
}

/// On a connection of its own: a broker without the plugin closes it.
async fn ring_type(amqp: &Amqp, answer_max: Duration) -> Check {
    let name = format!("{}.doctor.{}", amqp.prefix, Uuid::new_v4().simple());
    let made = match Connection::open(amqp, CONNECTION_NAME, answer_max).await {
        Ok(connection) => {
            let made = probe::make_ring(&connection, &name).await;
            connection.close().await;
            made
        }
        Err(error) => Err(error),
    };
    judge_ring_type(made)
}

fn judge_ring_type(made: Result<(), BrokerError>) -> Check {
    const NAME: &str = "broker.ring_type";
    match made {
        Ok(()) => Check::ok(NAME, "exchanges of type x-consistent-hash can be made"),
        Err(error @ (BrokerError::Unsupported { .. } | BrokerError::Different { .. })) => {
            Check::failure(
                NAME,
                chain(&error),
                "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange",
            )
        }
        Err(error @ BrokerError::Refused { .. }) => Check::warning(
            NAME,
            format!("could not be tried: {}", chain(&error)),
            "give this user `configure` on <prefix>.doctor.* (docs/PERMISSIONS.md, operator)",
        ),
        Err(error) => Check::failure(NAME, chain(&error), "try again, and read the broker's log"),
    }
}

async fn topology(connection: &Connection, prefix: &str, newest: Option<&Newest>) -> Check {
    const NAME: &str = "broker.topology";
    match missing(connection, prefix, newest).await {
        Ok(missing) => judge_topology(&missing, newest),
        Err(error) => Check::failure(NAME, chain(&error), "try again, and read the broker's log"),
    }
}

/// What is not there.
struct Missing {
    frame: Vec<String>,
    ring: bool,
    queues: Vec<String>,
}

async fn missing(
    connection: &Connection,
    prefix: &str,
    newest: Option<&Newest>,
) -> Result<Missing, BrokerError> {
    let mut frame = Vec::new();
    for name in ["writes", "held", "dead"] {
        let name = format!("{prefix}.{name}");
        if !probe::has_exchange(connection, &name).await? {
            frame.push(format!("exchange {name}"));
        }
    }
    for id in [PartitionId::HELD, PartitionId::DEAD] {
        let name = id.queue(prefix);
        if !probe::has_queue(connection, &name).await? {
            frame.push(format!("queue {name}"));
        }
    }
    let (mut ring, mut queues) = (false, Vec::new());
    if let Some(newest) = newest {
        let name = format!("{prefix}.ring.{}", newest.generation);
        ring = !probe::has_exchange(connection, &name).await?;
        for partition in 0..newest.partitions {
            let name = PartitionId { generation: newest.generation, partition }.queue(prefix);
            if !probe::has_queue(connection, &name).await? {
                queues.push(name);
            }
        }
    }
    Ok(Missing { frame, ring, queues })
}

fn judge_topology(missing: &Missing, newest: Option<&Newest>) -> Check {
    const NAME: &str = "broker.topology";
    let Some(newest) = newest else {
        let found = "no generation is known for this broker";
        return Check::warning(NAME, found, "start a worker once: it declares everything");
    };
    let Newest { generation, partitions, state } = newest;
    if !missing.frame.is_empty() {
        let found = format!("missing: {}", missing.frame.join(", "));
        return Check::failure(NAME, found, "start a worker: it declares what is missing");
    }
    if missing.ring && missing.queues.len() == usize::try_from(*partitions).unwrap_or_default() {
        let found = format!(
            "generation {generation} is not there at all: this is another broker, a part of a \
             cluster that has split, or one that was set up anew"
        );
        let remedy = format!(
            "heal the cluster, or correct amqp.url; if all that was in it is gone for good: \
             keylane generations --abandon {generation}"
        );
        return Check::bad(NAME, Status::Failure, found, remedy);
    }
    if !missing.queues.is_empty() {
        let found = format!("generation {generation} lacks {}", missing.queues.join(", "));
        let remedy = "if they were deleted, what was in them is lost; a worker makes the next \
                      generation";
        return Check::failure(NAME, found, remedy);
    }
    if missing.ring {
        let found = format!("the ring of generation {generation} is gone: writes are held");
        let remedy = "start a worker: it makes the next generation, in order";
        return Check::bad(NAME, Status::Warning, found, remedy);
    }
    Check::ok(NAME, format!("generation {generation} is {state}, {partitions} partitions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_the_broker_can_do() {
        let table = [
            (Some("3.9.13"), Status::Failure, "3.9.13"),
            (Some("3.10.8"), Status::Ok, "the first worker takes all"),
            (Some("4.0.5"), Status::Ok, "spread over the workers"),
            (Some("10.0"), Status::Ok, "spread over the workers"),
            (Some("x"), Status::Skipped, "not said"),
            (None, Status::Skipped, "not said"),
        ];
        for (version, status, part) in table {
            let check = judge_version(version);
            assert_eq!(check.status, status, "{version:?}");
            assert!(check.found.contains(part), "{version:?}: {}", check.found);
        }
    }

    #[test]
    fn a_ring_that_a_restart_forgets_is_told_as_far_as_it_can_be_known() {
        let table = [
            (Some("3.10.8"), None, Status::Ok, "forgets it"),
            (Some("3.13.7"), Some(true), Status::Ok, "survives"),
            (Some("4.0.5"), None, Status::Skipped, "cannot tell"),
            (Some("4.0.5"), Some(true), Status::Ok, "survives"),
            (Some("4.0.5"), Some(false), Status::Ok, "forgets it"),
            (Some("4.3.0-rc.1"), None, Status::Ok, "survives"),
            (None, None, Status::Skipped, "cannot tell"),
        ];
        for (version, khepri, status, part) in table {
            let check = judge_ring(version, khepri);
            assert_eq!(check.status, status, "{version:?} {khepri:?}");
            assert!(check.found.contains(part), "{version:?} {khepri:?}: {}", check.found);
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let newest = Newest { generation: 2, partitions: 4, state: "open".into() };
        let whole = || Missing { frame: Vec::new(), ring: false, queues: Vec::new() };
        let table = [
            (whole(), Some(&newest), Status::Ok),
            (whole(), None, Status::Warning),
            (Missing { ring: true, ..whole() }, Some(&newest), Status::Warning),
            (Missing { queues: vec!["q".into()], ..whole() }, Some(&newest), Status::Failure),
            (Missing { frame: vec!["e".into()], ..whole() }, Some(&newest), Status::Failure),
        ];
        for (missing, newest, status) in table {
            assert_eq!(judge_topology(&missing, newest).status, status);
        }
    }

    #[test]
    fn a_broker_without_the_plugin_is_told_how_to_get_it() {
        let text = "COMMAND_INVALID - unknown exchange type 'x-consistent-hash'".to_owned();
        let check = judge_ring_type(Err(BrokerError::Unsupported { text }));
        assert_eq!(check.status, Status::Failure);
        assert!(check.remedy.unwrap().contains("rabbitmq_consistent_hash_exchange"));
        let check = judge_ring_type(Err(BrokerError::Refused { text: String::new() }));
        assert_eq!(check.status, Status::Warning);
    }
}
