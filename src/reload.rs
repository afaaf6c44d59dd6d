//! What changes at a SIGHUP, without a restart.
//!
//! Owns: the log filter, and saying which other settings have changed in vain. Whoever uses the
//! files of tokens and certificates looks at them by itself.
//! Never: ends a process, or takes settings that are wrong.

use std::path::PathBuf;

use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::{Settings, load};
use crate::telemetry::Filter;

/// The one setting that is taken over; its name as an operator writes it.
const LOG: &str = "telemetry.log";

/// Waits for SIGHUP.
pub struct Reload {
    /// As the process runs with them.
    settings: Settings,
    /// What `--config` named.
    file: Option<PathBuf>,
    filter: Filter,
    hangup: Signal,
}

impl Reload {
    /// From now on SIGHUP ends this process no more.
    pub fn new(settings: Settings, file: Option<PathBuf>, filter: Filter) -> std::io::Result<Self> {
        Ok(Self { settings, file, filter, hangup: signal(SignalKind::hangup())? })
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = self.hangup.recv() => self.reload(),
            }
        }
    }

    fn reload(&mut self) {
        let fresh = match load(self.file.clone()) {
            Ok(fresh) => fresh,
            Err(error) => {
                warn!("The settings stay as they are: {:#}", anyhow::Error::from(error));
                return;
            }
        };
        if fresh.telemetry.log != self.settings.telemetry.log {
            match self.filter.set(&fresh.telemetry.log) {
                Ok(()) => {
                    info!(filter = fresh.telemetry.log, "What is logged has changed");
                    self.settings.telemetry.log.clone_from(&fresh.telemetry.log);
                }
                Err(failure) => warn!("What is logged stays as it is: {failure:#}"),
            }
        }
        let in_vain = differences(&self.settings, &fresh);
        if in_vain.is_empty() {
            info!("Settings are read again");
        } else {
            warn!(settings = in_vain.join(", "), "Changed settings need a restart");
        }
    }
}

/// The names of the settings that differ, but for what is taken over.
fn differences(ours: &Settings, fresh: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &ours.shown(), &fresh.shown(), &mut found);
    // Shown, two passwords are one.
    let secrets = [
        ("amqp.url", &ours.amqp.url, &fresh.amqp.url),
        ("amqp.management_url", &ours.amqp.management_url, &fresh.amqp.management_url),
        ("database.url", &ours.database.url, &fresh.database.url),
    ];
    for (name, ours, fresh) in secrets {
        if ours.expose_secret() != fresh.expose_secret() {
            found.push(name.to_owned());
        }
    }
    found.retain(|name| name != LOG);
    found.sort_unstable();
    found.dedup();
    found
}

fn compare(path: &str, ours: &Value, fresh: &Value, found: &mut Vec<String>) {
    let (Value::Object(here), Value::Object(there)) = (ours, fresh) else {
        if ours != fresh {
            found.push(path.to_owned());
        }
        return;
    };
    let below = |name: &str| if path.is_empty() { name.into() } else { format!("{path}.{name}") };
    let member = |of: &Map<String, Value>, name: &str| of.get(name).cloned().unwrap_or_default();
    for name in here.keys().chain(there.keys().filter(|name| !here.contains_key(*name))) {
        compare(&below(name), &member(here, name), &member(there, name), found);
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn what_has_changed_is_named_and_a_password_is_not_shown() {
        let mut ours = Settings::default();
        ours.amqp.url = SecretString::from("amqp://keylane:one@localhost/%2f");
        let mut fresh = ours.clone();
        assert_eq!(differences(&ours, &fresh), [""; 0]);
        fresh.telemetry.log = "debug".to_owned();
        assert_eq!(differences(&ours, &fresh), [""; 0], "that one is taken over");
        fresh.amqp.url = SecretString::from("amqp://keylane:two@localhost/%2f");
        fresh.http.wait_ms += 1;
        fresh.http.tokens_file = Some("tokens.toml".to_owned());
        let customer = serde_json::json!({"table": "customers", "key": ["id"]});
        fresh.entities.insert("customer".to_owned(), serde_json::from_value(customer).unwrap());
        let expected = ["amqp.url", "entities.customer", "http.tokens_file", "http.wait_ms"];
        assert_eq!(differences(&ours, &fresh), expected);
        assert_eq!(differences(&fresh, &ours), expected);
    }
}
