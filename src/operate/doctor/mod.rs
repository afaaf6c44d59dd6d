//! Named checks of database, broker and entities, each with what to do about it.
//!
//! Owns: the form of a check, and which are made in which order.
//! Never: changes anything. The one thing it makes, a throw-away exchange, it deletes.

pub mod broker;
pub mod database;
pub mod management;
mod permissions;
mod policies;
mod routing;
mod topology;

use secrecy::ExposeSecret;
use serde::Serialize;

use self::management::Findings;
use crate::rabbit::probe::Address;
use crate::settings::Settings;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, but there is something to know.
    Warning,
    /// Breaks a promise, or stops a worker.
    Failure,
    /// Could not be looked at.
    Skipped,
}

impl Status {
    /// The name in tables and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// What is the case.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), remedy: None }
    }

    fn bad(
        name: &'static str,
        status: Status,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, status, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn failure(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(name, Status::Failure, found, remedy)
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(name, Status::Warning, found, remedy)
    }

    fn skipped(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(name, Status::Skipped, found, remedy)
    }
}

/// The newest generation that the database knows of this broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    pub generation: i32,
    pub partitions: i32,
    pub state: String,
}

/// Makes every check; what cannot be looked at is skipped, with the reason.
pub async fn examine(settings: &Settings) -> Vec<Check> {
    let amqp = &settings.amqp;
    let Some(address) = Address::parse(&amqp.url) else {
        return vec![Check::failure(
            "broker.reachable",
            "amqp.url is no AMQP address",
            "set amqp.url to amqp://user:password@host:port/vhost",
        )];
    };
    let identity = format!("{}/{}", address.vhost, amqp.prefix);
    let (mut checks, newest) = database::examine(settings, &identity).await;
    let findings = if amqp.management_url.expose_secret().is_empty() {
        None
    } else {
        Some(Findings::gather(amqp, &address).await)
    };
    checks.extend(broker::examine(amqp, &address, newest.as_ref(), findings.as_ref()).await);
    checks.extend(management::examine(&amqp.prefix, &address, newest.as_ref(), findings.as_ref()));
    checks
}
