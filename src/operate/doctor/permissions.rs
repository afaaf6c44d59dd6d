//! Judges who may do what on the broker, by the three roles of docs/PERMISSIONS.md.

use regex::Regex;

use super::management::{Findings, Permission, unanswered};
use super::{Check, Status};
use crate::rabbit::probe::Address;

pub(super) const PERMISSIONS: &str = "broker.permissions";

/// What a permission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Configure,
    Write,
    Read,
}

impl Act {
    const fn label(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// What somebody uses the broker for.
struct Role {
    name: &'static str,
    needs: Vec<(Act, String)>,
}

/// One example of each kind of name: a pattern that takes these takes all of them.
fn roles(prefix: &str) -> [Role; 3] {
    let name = |name: &str| format!("{prefix}.{name}");
    let every = ["writes", "held", "dead", "ring.1", "1.000", "12.345"];
    let acts = [Act::Configure, Act::Write, Act::Read];
    let mut worker: Vec<(Act, String)> =
        acts.iter().flat_map(|act| every.iter().map(|part| (*act, name(part)))).collect();
    // Replies and markers go through the default exchange.
    worker.push((Act::Write, "amq.default".into()));
    [
        Role { name: "sender", needs: vec![(Act::Write, name("writes"))] },
        Role { name: "worker", needs: worker },
        Role {
            name: "operator",
            needs: vec![(Act::Write, name("writes")), (Act::Configure, name("doctor.x"))],
        },
    ]
}

pub(super) fn examine(prefix: &str, address: &Address, findings: &Findings) -> Check {
    let all = findings.permissions.as_ref().or(findings.own_permissions.as_ref());
    let everybody = match all {
        Ok(permissions) => permissions,
        Err(why) => return unanswered(PERMISSIONS, why),
    };
    let here: Vec<&Permission> = everybody
        .iter()
        .filter(|permission| permission.vhost.is_empty() || permission.vhost == address.vhost)
        .collect();
    judge(prefix, &address.user, &here)
}

fn judge(prefix: &str, user: &str, permissions: &[&Permission]) -> Check {
    let roles = roles(prefix);
    let Some(own) = permissions.iter().find(|permission| permission.user == user) else {
        let found = format!("{user} has no permissions in this virtual host");
        return Check::failure(PERMISSIONS, found, how_to(user));
    };
    let others: Vec<String> = permissions
        .iter()
        .filter(|permission| permission.user != user)
        .map(|permission| format!("{} is {}", permission.user, listed(&roles, permission)))
        .collect();
    let others = if others.is_empty() { String::new() } else { format!("; {}", others.join(", ")) };
    let missing: Vec<String> = roles
        .iter()
        .filter(|role| role.name == "worker")
        .flat_map(|role| missing(role, own))
        .collect();
    let own = listed(&roles, own);
    if missing.is_empty() {
        return Check::ok(PERMISSIONS, format!("{user} may be {own}{others}"));
    }
    // These settings may be a sender's or an operator's: only who can be nothing fails.
    let status = if own == NOBODY { Status::Failure } else { Status::Warning };
    let found =
        format!("{user} may be {own}, but no worker: it lacks {}{others}", missing.join(", "));
    Check::bad(PERMISSIONS, status, found, how_to(user))
}

const NOBODY: &str = "nobody";

fn listed(roles: &[Role], permission: &Permission) -> String {
    let able: Vec<&str> = roles
        .iter()
        .filter(|role| missing(role, permission).is_empty())
        .map(|role| role.name)
        .collect();
    if able.is_empty() { NOBODY.to_owned() } else { able.join(" and ") }
}

/// What a role needs and somebody may not, one text for each kind of permission.
fn missing(role: &Role, permission: &Permission) -> Vec<String> {
    let acts = [
        (Act::Configure, &permission.configure),
        (Act::Write, &permission.write),
        (Act::Read, &permission.read),
    ];
    let lacking = acts.into_iter().map(|(act, pattern)| {
        let names = role
            .needs
            .iter()
            .filter(|(needed, name)| *needed == act && !allows(pattern, name))
            .map(|(_, name)| name.as_str());
        (act, names.collect::<Vec<_>>())
    });
    lacking
        .filter(|(_, names)| !names.is_empty())
        .map(|(act, names)| format!("{} on {}", act.label(), names.join(" ")))
        .collect()
}

/// The broker takes an empty pattern for one that matches nothing.
fn allows(pattern: &str, name: &str) -> bool {
    !pattern.is_empty() && Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

fn how_to(user: &str) -> String {
    format!(
        "rabbitmqctl set_permissions -p <vhost> {user} … (docs/PERMISSIONS.md has the patterns)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(user: &str, [configure, write, read]: [&str; 3]) -> Permission {
        Permission {
            user: user.into(),
            vhost: "/".into(),
            configure: configure.into(),
            write: write.into(),
            read: read.into(),
        }
    }

    #[test]
    fn the_documented_patterns_make_the_documented_roles() {
        let table = [
            ([".*", ".*", ".*"], "sender and worker and operator"),
            (
                [r"^keylane\.", r"^(keylane\..*|amq\.default)$", r"^keylane\."],
                "sender and worker and operator",
            ),
            (["", r"^keylane\.writes$", ""], "sender"),
            ([r"^keylane\.doctor\.", r"^keylane\.writes$", ""], "sender and operator"),
            ([r"^keylane\.", r"^keylane\.", r"^keylane\."], "sender and operator"),
            (["", "", ""], "nobody"),
            (["^$", "^$", "^$"], "nobody"),
            (["", "(", ""], "nobody"),
        ];
        for (patterns, expected) in table {
            assert_eq!(listed(&roles("keylane"), &permission("u", patterns)), expected);
        }
    }

    #[test]
    fn a_user_who_cannot_be_a_worker_is_told_what_is_missing() {
        let own = permission("app", [r"^keylane\.", r"^keylane\.", r"^keylane\."]);
        let sender = permission("shop", ["", r"^keylane\.writes$", ""]);
        let check = judge("keylane", "app", &[&own, &sender]);
        assert_eq!(check.status, Status::Warning);
        assert_eq!(
            check.found,
            "app may be sender and operator, but no worker: it lacks write on amq.default; \
             shop is sender"
        );
        assert_eq!(judge("keylane", "other", &[&own]).status, Status::Failure);
        let nobody = permission("app", ["", "", ".*"]);
        assert_eq!(judge("keylane", "app", &[&nobody]).status, Status::Failure);
    }
}
