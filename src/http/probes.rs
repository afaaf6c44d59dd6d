//! The pages for probes and metrics.
//!
//! Liveness never asks broker or database: a restart would not bring them back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// What readiness looks at, under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub found: Found,
}

/// What a check found. The words are whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Fine,
    /// Somebody should know, and the work goes on.
    Told(String),
    /// The process is not ready.
    Missing(String),
}

impl Check {
    /// Not ready where there is a reason.
    pub fn of(name: &'static str, why: Option<String>) -> Self {
        let found = why.map_or(Found::Fine, |why| Found::Missing(format!("{name}: {why}")));
        Self { name, found }
    }

    /// The process is about to stop.
    pub fn draining() -> Self {
        Self::of("draining", Some("the process is about to stop".to_owned()))
    }
}

/// `/livez`, `/startupz`, `/readyz` and `/metrics`; `checks` are those of every role.
pub fn router(page: PrometheusHandle, checks: Arc<dyn Fn() -> Vec<Check> + Send + Sync>) -> Router {
    let readiness = Arc::new(Readiness { checks, was_ready: AtomicBool::new(false) });
    let starting = Arc::clone(&readiness);
    let started = move || {
        let answer = starting.started();
        async move { answer }
    };
    let ready = move |RawQuery(query): RawQuery| {
        let answer = readiness.ready(query.as_deref().is_some_and(is_verbose));
        async move { answer }
    };
    let metrics = move || {
        let text = page.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn is_verbose(query: &str) -> bool {
    let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    names.into_iter().any(|name| name == "verbose")
}

struct Readiness {
    checks: Arc<dyn Fn() -> Vec<Check> + Send + Sync>,
    /// Some answer was that the process is ready.
    was_ready: AtomicBool,
}

impl Readiness {
    fn started(&self) -> (StatusCode, String) {
        if self.was_ready.load(Ordering::Relaxed) {
            return (StatusCode::OK, "started\n".to_owned());
        }
        match self.ready(false) {
            (StatusCode::OK, _) => (StatusCode::OK, "started\n".to_owned()),
            not_yet => not_yet,
        }
    }

    fn ready(&self, verbose: bool) -> (StatusCode, String) {
        let found = (self.checks)();
        let is_ready = !found.iter().any(|check| matches!(check.found, Found::Missing(_)));
        self.was_ready.fetch_or(is_ready, Ordering::Relaxed);
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let page = match (verbose, is_ready) {
            (true, _) => all(&found),
            (false, true) => "ready\n".to_owned(),
            (false, false) => missing(&found),
        };
        (status, page)
    }
}

/// What is missing. Two roles of one process may lack the same.
fn missing(checks: &[Check]) -> String {
    let lines: BTreeSet<&String> = checks
        .iter()
        .filter_map(|check| match &check.found {
            Found::Missing(line) => Some(line),
            Found::Fine | Found::Told(_) => None,
        })
        .collect();
    lines.into_iter().fold(String::new(), |page, line| page + line + "\n")
}

/// A line for each check, and for each thing that one of them found.
fn all(checks: &[Check]) -> String {
    let mut lines = BTreeMap::<&str, BTreeSet<&String>>::new();
    for check in checks {
        let found = lines.entry(check.name).or_default();
        if let Found::Told(line) | Found::Missing(line) = &check.found {
            found.insert(line);
        }
    }
    let found = lines.into_iter().flat_map(|(name, found)| {
        let fine = found.is_empty().then(|| format!("{name}: ok"));
        fine.into_iter().chain(found.into_iter().cloned())
    });
    found.fold(String::new(), |page, line| page + &line + "\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn readiness(checks: &Arc<Mutex<Vec<Check>>>) -> Readiness {
        let checks = Arc::clone(checks);
        let checks = Arc::new(move || checks.lock().unwrap().clone());
        Readiness { checks, was_ready: AtomicBool::new(false) }
    }

    #[test]
    fn a_start_is_over_with_the_first_readiness_and_stays_over() {
        let away = vec![Check::of("database", Some("away".to_owned()))];
        let checks = Arc::new(Mutex::new(away.clone()));
        let readiness = readiness(&checks);
        assert_eq!(
            readiness.started(),
            (StatusCode::SERVICE_UNAVAILABLE, "database: away\n".into())
        );
        *checks.lock().unwrap() = vec![Check::of("database", None)];
        assert_eq!(readiness.started(), (StatusCode::OK, "started\n".into()));
        *checks.lock().unwrap() = away;
        assert_eq!(readiness.started(), (StatusCode::OK, "started\n".into()));
        assert_eq!(
            readiness.ready(false),
            (StatusCode::SERVICE_UNAVAILABLE, "database: away\n".into())
        );
    }

    #[test]
    fn every_check_has_its_line_and_only_what_is_missing_counts() {
        let told = |name, found| Check { name, found };
        let checks = Arc::new(Mutex::new(vec![
            Check::of("broker", None),
            Check::of("broker", None),
            told("roll", Found::Told("roll: slow".to_owned())),
            Check::of("database", None),
        ]));
        let readiness = readiness(&checks);
        let page = "broker: ok\ndatabase: ok\nroll: slow\n";
        assert_eq!(readiness.ready(true), (StatusCode::OK, page.into()));
        assert_eq!(readiness.ready(false), (StatusCode::OK, "ready\n".into()));
        checks.lock().unwrap().extend([
            Check::of("broker", Some("away".to_owned())),
            Check::of("broker", Some("away".to_owned())),
            told("partitions", Found::Missing("partition 1.000: full".to_owned())),
            told("partitions", Found::Missing("partition 1.001: full".to_owned())),
        ]);
        let page = "broker: away\npartition 1.000: full\npartition 1.001: full\n";
        assert_eq!(readiness.ready(false), (StatusCode::SERVICE_UNAVAILABLE, page.into()));
        let page = "broker: away\ndatabase: ok\npartition 1.000: full\npartition 1.001: full\nroll: slow\n";
        assert_eq!(readiness.ready(true), (StatusCode::SERVICE_UNAVAILABLE, page.into()));
    }

    #[test]
    fn it_is_verbose_when_it_is_asked_to() {
        for (query, verbose) in [
            ("verbose", true),
            ("verbose=", true),
            ("a=1&verbose=1", true),
            ("verbosely", false),
            ("", false),
        ] {
            assert_eq!(is_verbose(query), verbose, "{query}");
        }
    }
}
