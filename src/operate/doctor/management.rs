//! Asks the broker's management API what AMQP does not tell.
//!
//! Owns: the calls, their bound, and what an answer that is refused means.
//! Never: changes anything there.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Check, Newest, permissions, policies, topology};
use crate::rabbit::error::BrokerError;
use crate::rabbit::probe::Address;
use crate::rabbit::tls;
use crate::settings::Amqp;

/// What was answered, or why not.
pub type Answer<T> = Result<T, String>;

/// A policy, or an operator's policy.
#[derive(Debug, Clone, Deserialize)]
pub struct Policy {
    pub name: String,
    pub pattern: String,
    /// Older brokers may leave it out: then it is for everything.
    #[serde(rename = "apply-to", default)]
    pub apply_to: String,
    #[serde(default)]
    pub definition: Map<String, Value>,
}

/// What a user may do in a virtual host.
#[derive(Debug, Clone, Deserialize)]
pub struct Permission {
    pub user: String,
    #[serde(default)]
    pub vhost: String,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// A queue or an exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct Declared {
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    pub durable: bool,
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

#[derive(Debug, Clone, Deserialize)]
struct FeatureFlag {
    name: String,
    #[serde(default)]
    state: String,
}

/// Everything that the management API said.
#[derive(Debug, Clone)]
pub struct Findings {
    overview: Answer<Overview>,
    feature_flags: Answer<Vec<FeatureFlag>>,
    pub policies: Answer<Vec<Policy>>,
    pub operator_policies: Answer<Vec<Policy>>,
    /// Of everybody in the virtual host.
    pub permissions: Answer<Vec<Permission>>,
    /// Of the user of `amqp.url`, in every virtual host.
    pub own_permissions: Answer<Vec<Permission>>,
    pub queues: Answer<Vec<Declared>>,
    pub exchanges: Answer<Vec<Declared>>,
}

impl Findings {
    /// Asks everything, on a thread that may wait.
    pub async fn gather(amqp: &Amqp, address: &Address) -> Self {
        let api = match Api::new(amqp) {
            Ok(api) => Arc::new(api),
            Err(why) => return Self::unknown(&why.to_string()),
        };
        let (vhost, user) = (in_path(&address.vhost), in_path(&address.user));
        let asking = tokio::task::spawn_blocking(move || Self {
            overview: api.get("overview"),
            feature_flags: api.get("feature-flags"),
            policies: api.get(&format!("policies/{vhost}")),
            operator_policies: api.get(&format!("operator-policies/{vhost}")),
            permissions: api.get(&format!("vhosts/{vhost}/permissions")),
            own_permissions: api.get(&format!("users/{user}/permissions")),
            queues: api.get(&format!("queues/{vhost}?columns=name,type,durable,arguments")),
            exchanges: api.get(&format!("exchanges/{vhost}?columns=name,type,durable,arguments")),
        });
        asking.await.unwrap_or_else(|error| Self::unknown(&error.to_string()))
    }

    fn unknown(why: &str) -> Self {
        Self {
            overview: Err(why.to_owned()),
            feature_flags: Err(why.to_owned()),
            policies: Err(why.to_owned()),
            operator_policies: Err(why.to_owned()),
            permissions: Err(why.to_owned()),
            own_permissions: Err(why.to_owned()),
            queues: Err(why.to_owned()),
            exchanges: Err(why.to_owned()),
        }
    }

    /// The broker's version.
    pub fn version(&self) -> Option<String> {
        self.overview.as_ref().ok().map(|overview| overview.rabbitmq_version.clone())
    }

    /// Whether metadata is kept by Khepri; unknown where the broker does not have the flag or does
    /// not tell this user.
    pub fn khepri(&self) -> Option<bool> {
        let flags = self.feature_flags.as_ref().ok()?;
        let flag = flags.iter().find(|flag| flag.name == "khepri_db");
        flag.map(|flag| flag.state == "enabled")
    }
}

/// The checks that need the management API.
pub fn examine(
    prefix: &str,
    address: &Address,
    newest: Option<&Newest>,
    findings: Option<&Findings>,
) -> Vec<Check> {
    const NAMES: [&str; 4] = [
        topology::ARGUMENTS,
        policies::POLICIES,
        policies::OPERATOR_POLICIES,
        permissions::PERMISSIONS,
    ];
    let Some(findings) = findings else {
        let remedy = "set amqp.management_url to http://user:password@host:15672 \
                      (plugin rabbitmq_management)";
        let skipped = |name| Check::skipped(name, "the management API is not asked", remedy);
        return NAMES.into_iter().map(skipped).collect();
    };
    let mut checks = topology::examine(prefix, newest, findings);
    checks.extend(policies::examine(prefix, newest, findings));
    checks.push(permissions::examine(prefix, address, findings));
    checks
}

/// What an unanswered question becomes.
pub(super) fn unanswered(name: &'static str, why: &str) -> Check {
    let remedy = "see that amqp.management_url is right and its user has the tag administrator \
                  (or monitoring, policymaker)";
    Check::skipped(name, why, remedy)
}

struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    /// Trusts whom the connections to the broker trust.
    fn new(amqp: &Amqp) -> Result<Self, BrokerError> {
        let authorities = tls::authorities(amqp)?;
        let roots = authorities.iter().map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).build();
        let answer_max = Duration::from_millis(amqp.timeout_ms.get().into());
        let config =
            ureq::Agent::config_builder().timeout_global(Some(answer_max)).tls_config(tls).build();
        let base = format!("{}/api", amqp.management_url.expose_secret().trim_end_matches('/'));
        Ok(Self { agent: config.new_agent(), base })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        let asked = self.agent.get(format!("{}/{path}", self.base)).call();
        let mut answer = asked.map_err(|error| refused(path, &error))?;
        answer.body_mut().read_json().map_err(|error| refused(path, &error))
    }
}

/// The address is left out of it: it holds a password.
fn refused(path: &str, error: &ureq::Error) -> String {
    let call = path.split('?').next().unwrap_or_default();
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            format!("/api/{call} is refused to the user of amqp.management_url ({status})")
        }
        ureq::Error::StatusCode(status) => format!("/api/{call} answered {status}"),
        ureq::Error::BadUri(_) => "amqp.management_url is no address".into(),
        other => format!("/api/{call}: {other}"),
    }
}

/// A name as a segment of a path: `/` is the usual virtual host.
fn in_path(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        for (name, segment) in [("/", "%2F"), ("a b+c", "a%20b%2Bc"), ("shop", "shop")] {
            assert_eq!(in_path(name), segment);
        }
    }

    #[test]
    fn without_an_address_the_checks_are_skipped_with_how_to_set_it() {
        let address = Address {
            host: "h".into(),
            port: 5672,
            tls: false,
            user: "u".into(),
            vhost: "/".into(),
        };
        let checks = examine("keylane", &address, None, None);
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(|check| check.status == Status::Skipped));
        let unanswered = examine("keylane", &address, None, Some(&Findings::unknown("401")));
        assert!(unanswered.iter().all(|check| check.status == Status::Skipped));
    }
}
