//! Judges kinds and arguments of queues and exchanges: they can never change, so what is wrong
//! here was declared by somebody else.

use serde_json::{Map, Value, json};

use super::management::{Declared, Findings, unanswered};
use super::{Check, Newest};
use crate::core::partition::PartitionId;

pub(super) const ARGUMENTS: &str = "broker.arguments";

/// A queue or an exchange as it should be.
struct Expected {
    name: String,
    kind: &'static str,
    durable: bool,
    arguments: Value,
}

pub(super) fn examine(prefix: &str, newest: Option<&Newest>, findings: &Findings) -> Vec<Check> {
    let (queues, exchanges) = match (&findings.queues, &findings.exchanges) {
        (Ok(queues), Ok(exchanges)) => (queues, exchanges),
        (Err(why), _) | (_, Err(why)) => return vec![unanswered(ARGUMENTS, why)],
    };
    let mut checks = Vec::new();
    for (what, there, expected) in [
        ("queue", queues, expected_queues(prefix, newest)),
        ("exchange", exchanges, expected_exchanges(prefix, newest)),
    ] {
        for expected in &expected {
            // What is missing is for `broker.topology` to say.
            let found = there.iter().find(|declared| declared.name == expected.name);
            checks.extend(found.and_then(|declared| judge(what, declared, expected)));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(ARGUMENTS, "queues and exchanges are as keylane declares them"));
    }
    checks
}

fn expected_queues(prefix: &str, newest: Option<&Newest>) -> Vec<Expected> {
    let dead = json!({"x-queue-type": "quorum", "x-delivery-limit": 100_000});
    let partition = json!({"x-queue-type": "quorum", "x-delivery-limit": 100_000,
        "x-single-active-consumer": true, "x-dead-letter-exchange": format!("{prefix}.dead"),
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"});
    let queue = |id: PartitionId, arguments: &Value| Expected {
        name: id.queue(prefix),
        kind: "quorum",
        durable: true,
        arguments: arguments.clone(),
    };
    let mut expected = vec![queue(PartitionId::DEAD, &dead), queue(PartitionId::HELD, &partition)];
    if let Some(&Newest { generation, partitions, .. }) = newest {
        let ids = (0..partitions).map(|partition| PartitionId { generation, partition });
        expected.extend(ids.map(|id| queue(id, &partition)));
    }
    expected
}

fn expected_exchanges(prefix: &str, newest: Option<&Newest>) -> Vec<Expected> {
    let alternate = json!({"alternate-exchange": format!("{prefix}.held")});
    let fanout = |name: &str, arguments: Value| Expected {
        name: format!("{prefix}.{name}"),
        kind: "fanout",
        durable: true,
        arguments,
    };
    let mut expected = vec![
        fanout("writes", alternate.clone()),
        fanout("held", json!({})),
        fanout("dead", json!({})),
    ];
    expected.extend(newest.map(|newest| Expected {
        name: format!("{prefix}.ring.{}", newest.generation),
        kind: "x-consistent-hash",
        durable: false,
        arguments: alternate,
    }));
    expected
}

fn judge(what: &str, declared: &Declared, expected: &Expected) -> Option<Check> {
    let mut wrong = Vec::new();
    if declared.kind != expected.kind {
        wrong.push(format!("type is {}, not {}", declared.kind, expected.kind));
    }
    if declared.durable != expected.durable {
        wrong.push(format!("durable is {}", declared.durable));
    }
    let none = Map::new();
    let wanted = expected.arguments.as_object().unwrap_or(&none);
    for (name, value) in wanted {
        match declared.arguments.get(name) {
            Some(found) if found == value => {}
            Some(found) => wrong.push(format!("{name} is {found}, not {value}")),
            None => wrong.push(format!("{name} is missing")),
        }
    }
    let more = declared.arguments.keys().filter(|name| !wanted.contains_key(*name));
    wrong.extend(more.map(|name| format!("{name} is set")));
    if wrong.is_empty() {
        return None;
    }
    let found = format!("{what} {}: {}", declared.name, wrong.join(", "));
    let remedy = "keylane did not declare it so; stop the senders, let it run empty, delete it, \
                  and start a worker";
    Some(Check::failure(ARGUMENTS, found, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, kind: &str, arguments: &Value) -> Declared {
        let durable = kind != "x-consistent-hash";
        let text = json!({"name": name, "type": kind, "durable": durable, "arguments": arguments});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_queue_that_differs_is_named_with_the_argument() {
        let newest = Newest { generation: 1, partitions: 1, state: "open".into() };
        let expected = expected_queues("k", Some(&newest));
        let right = declared("k.1.000", "quorum", &expected[2].arguments);
        assert_eq!(judge("queue", &right, &expected[2]), None);
        let mut other = right;
        other.arguments.insert("x-delivery-limit".into(), json!(20));
        other.arguments.remove("x-overflow");
        other.arguments.insert("x-max-length".into(), json!(5));
        let found = judge("queue", &other, &expected[2]).unwrap().found;
        assert_eq!(
            found,
            "queue k.1.000: x-delivery-limit is 20, not 100000, x-overflow is missing, \
             x-max-length is set"
        );
        let classic = declared("k.1.000", "classic", &json!({}));
        assert!(judge("queue", &classic, &expected[2]).unwrap().found.contains("not quorum"));
    }

    #[test]
    fn a_ring_is_not_durable() {
        let newest = Newest { generation: 1, partitions: 1, state: "open".into() };
        let expected = expected_exchanges("k", Some(&newest));
        let arguments = json!({"alternate-exchange": "k.held"});
        let ring = declared("k.ring.1", "x-consistent-hash", &arguments);
        assert_eq!(judge("exchange", &ring, &expected[3]), None);
        let durable = Declared { durable: true, ..ring };
        assert!(judge("exchange", &durable, &expected[3]).is_some());
        assert_eq!(
            judge("exchange", &declared("k.writes", "fanout", &arguments), &expected[0]),
            None
        );
    }
}
