//! Who changes something: the name that the audit keeps.

use std::os::unix::fs::MetadataExt;

/// The name of whoever gave a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// The name that was given, else that of the operating system's user.
    pub fn new(given: Option<String>) -> Self {
        let unnamed = || variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(uid);
        Self(given.filter(|name| !name.is_empty()).unwrap_or_else(unnamed))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

#[expect(clippy::disallowed_methods, reason = "it says who is logged in, which is no setting")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A process without these variables is a service: its number is what the system knows.
fn uid() -> String {
    let own = std::fs::metadata("/proc/self").map(|process| process.uid());
    own.map_or_else(|_no_proc| "unknown".into(), |uid| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_name_counts_and_nobody_is_without_one() {
        assert_eq!(Actor::new(Some("ada".into())).name(), "ada");
        assert_eq!(Actor::new(Some(String::new())), Actor::new(None));
        assert_ne!(Actor::new(None).name(), "");
        assert!(uid().starts_with("uid ") || uid() == "unknown");
    }
}
