//! Judges policies: one that drops, expires or returns messages breaks the promise, and no queue
//! argument can forbid it.

use regex::Regex;
use serde_json::Value;

use super::management::{Findings, Policy, unanswered};
use super::{Check, Newest};
use crate::core::partition::PartitionId;

pub(super) const POLICIES: &str = "broker.policies";
pub(super) const OPERATOR_POLICIES: &str = "broker.operator_policies";

/// The redelivery limit that the queues are declared with: a policy may only leave it there.
const DELIVERY_LIMIT: f64 = 100_000.0;

pub(super) fn examine(prefix: &str, newest: Option<&Newest>, findings: &Findings) -> Vec<Check> {
    let queues = queues(prefix, newest);
    let mut checks = Vec::new();
    for (name, policies, clear) in [
        (POLICIES, &findings.policies, "clear_policy"),
        (OPERATOR_POLICIES, &findings.operator_policies, "clear_operator_policy"),
    ] {
        match policies {
            Ok(policies) => checks.extend(judge(name, policies, &queues, clear)),
            Err(why) => checks.push(unanswered(name, why)),
        }
    }
    checks
}

/// Names of queues that are there, and of those that will be.
fn queues(prefix: &str, newest: Option<&Newest>) -> Vec<String> {
    let (generation, partitions) =
        newest.map_or((0, 1), |newest| (newest.generation, newest.partitions));
    let mut ids = vec![PartitionId::HELD, PartitionId::DEAD];
    for generation in [generation.max(1), generation + 1] {
        ids.extend((0..partitions).map(|partition| PartitionId { generation, partition }));
    }
    ids.into_iter().map(|id| id.queue(prefix)).collect()
}

fn judge(name: &'static str, policies: &[Policy], queues: &[String], clear: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    for policy in policies.iter().filter(|policy| concerns_queues(&policy.apply_to)) {
        let Ok(pattern) = Regex::new(&policy.pattern) else {
            let found = format!("the pattern of policy {} cannot be judged here", policy.name);
            let remedy = format!("see that {} matches none of these queues", policy.pattern);
            checks.push(Check::warning(name, found, remedy));
            continue;
        };
        let Some(queue) = queues.iter().find(|queue| pattern.is_match(queue)) else { continue };
        let wrong: Vec<String> = policy
            .definition
            .iter()
            .filter(|(field, value)| breaks(field, value))
            .map(|(field, value)| format!("{field} = {value}"))
            .collect();
        if !wrong.is_empty() {
            let found = format!("policy {} sets {} on {queue}", policy.name, wrong.join(", "));
            let remedy = format!(
                "rabbitmqctl {clear} '{}', or narrow its pattern '{}'",
                policy.name, policy.pattern
            );
            checks.push(Check::failure(name, found, remedy));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(name, "none drops, expires or returns messages of keylane's queues"));
    }
    checks
}

fn concerns_queues(apply_to: &str) -> bool {
    matches!(apply_to, "" | "all" | "queues" | "quorum_queues")
}

/// Whether a field can lose a message, or change its order or its routing key.
fn breaks(field: &str, value: &Value) -> bool {
    match field {
        "message-ttl"
        | "max-length"
        | "max-length-bytes"
        | "expires"
        | "dead-letter-exchange"
        | "dead-letter-routing-key" => true,
        "delivery-limit" => value.as_f64().is_none_or(|limit| limit < DELIVERY_LIMIT),
        "overflow" => value != "reject-publish",
        "dead-letter-strategy" => value != "at-least-once",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use serde_json::json;

    fn policy(pattern: &str, apply_to: &str, definition: &Value) -> Policy {
        let policy = json!({"name": "p", "pattern": pattern, "apply-to": apply_to,
            "definition": definition, "vhost": "/", "priority": 0});
        serde_json::from_value(policy).unwrap()
    }

    fn judged(pattern: &str, apply_to: &str, definition: &Value) -> Check {
        let newest = Newest { generation: 3, partitions: 2, state: "open".into() };
        let queues = queues("keylane", Some(&newest));
        let policies = [policy(pattern, apply_to, definition)];
        judge(POLICIES, &policies, &queues, "clear_policy").remove(0)
    }

    #[test]
    fn a_policy_that_can_lose_or_reorder_messages_is_a_failure() {
        let fields = [
            json!({"message-ttl": 1}),
            json!({"max-length": 1}),
            json!({"max-length-bytes": 1}),
            json!({"expires": 1}),
            json!({"dead-letter-exchange": "x"}),
            json!({"delivery-limit": 20}),
            json!({"delivery-limit": "x"}),
            json!({"overflow": "drop-head"}),
            json!({"dead-letter-strategy": "at-most-once"}),
        ];
        for definition in fields {
            let check = judged("", "all", &definition);
            assert_eq!(check.status, Status::Failure, "{definition}");
        }
        let check = judged(r"^keylane\.4", "quorum_queues", &json!({"expires": 60000}));
        assert_eq!(check.found, "policy p sets expires = 60000 on keylane.4.000");
        let harmless = json!({"delivery-limit": 100_000, "overflow": "reject-publish",
            "dead-letter-strategy": "at-least-once", "max-in-memory-length": 0,
            "queue-leader-locator": "balanced"});
        assert_eq!(judged("", "all", &harmless).status, Status::Ok);
    }

    #[test]
    fn a_policy_for_something_else_is_left_alone() {
        let table = [
            ("^orders", "all", Status::Ok),
            (".*", "exchanges", Status::Ok),
            (".*", "classic_queues", Status::Ok),
            (".*", "streams", Status::Ok),
            (r"^keylane\.dead$", "queues", Status::Failure),
            (r"^(?!keylane)", "queues", Status::Warning),
        ];
        for (pattern, apply_to, status) in table {
            let check = judged(pattern, apply_to, &json!({"message-ttl": 5}));
            assert_eq!(check.status, status, "{pattern} {apply_to}");
        }
    }
}
