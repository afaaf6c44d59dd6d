//! Every metric: its name, its help, its labels, and one function an event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::core::batch::Item;
use crate::core::failure::Failure;
use crate::core::outcome::{Effect, Outcome, Reason, Rest, Unmet};
use crate::core::parking::WaitsFor;
use crate::core::partition::PartitionId;
use crate::core::plan::CommitPlan;
use crate::postgres::dead_letters::Tally;
use crate::postgres::parking::Census;
use crate::wire::OutcomeBody;

use super::database;
use super::help::HELP;

/// Bounds of the duration histograms, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0];
/// Bounds of the batch size, in writes.
const WRITES: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];

/// Holders of rows that the page shows the keys of.
const BLOCKERS: u8 = 5;

/// Handles of what is counted a batch.
#[derive(Clone)]
pub struct Metrics {
    deliveries: Counter,
    replayed: Counter,
    row_writes: Counter,
    batch_writes: Histogram,
    batch_seconds: Histogram,
    lag_seconds: Histogram,
    fence_losses: Counter,
    bisections: Counter,
    replies_dropped: Counter,
    partitions_held: Gauge,
    /// Series of `keylane_dead_letters`, by their labels.
    shown: Arc<Mutex<BTreeMap<[String; 3], Gauge>>>,
    /// Partitions that were ever shown.
    partitions: Arc<Mutex<BTreeSet<String>>>,
    connected: Gauge,
}

/// Installs the recorder; the handle renders the page.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full("keylane_batch_writes".into()), &WRITES)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("install the metrics recorder")?;
    for (name, help) in HELP {
        match *name {
            name if name.ends_with("_total") => describe_counter!(name, *help),
            "keylane_batch_writes" | "keylane_batch_seconds" | "keylane_lag_seconds" => {
                describe_histogram!(*name, *help);
            }
            name => describe_gauge!(name, *help),
        }
    }
    // Every page names every metric, whatever the process does.
    drop(Ingress::new());
    database::shown(false);
    gauge!("keylane_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

impl Metrics {
    /// Registers every series at 0.
    pub fn new() -> Self {
        for effect in Effect::ALL {
            writes("applied", effect.label()).increment(0);
        }
        for unmet in Unmet::ALL {
            writes("precondition_failed", unmet.label()).increment(0);
        }
        for reason in Reason::ALL {
            writes("rejected", reason.label()).increment(0);
            dead_letters_total(reason.label()).increment(0);
        }
        for rest in Rest::ALL {
            writes("parked", rest.label()).increment(0);
        }
        for outcome in ["applied", "precondition_failed", "rejected"] {
            letters(outcome).increment(0);
        }
        for cause in Failure::CAUSES {
            retries(cause).increment(0);
        }
        Self {
            deliveries: counter!("keylane_deliveries_total"),
            replayed: counter!("keylane_writes_replayed_total"),
            row_writes: counter!("keylane_row_writes_total"),
            batch_writes: histogram!("keylane_batch_writes"),
            batch_seconds: histogram!("keylane_batch_seconds"),
            lag_seconds: histogram!("keylane_lag_seconds"),
            fence_losses: counter!("keylane_fence_losses_total"),
            bisections: counter!("keylane_bisections_total"),
            replies_dropped: counter!("keylane_replies_dropped_total"),
            partitions_held: gauge!("keylane_partitions_held"),
            shown: Arc::default(),
            partitions: Arc::default(),
            connected: gauge!("keylane_connected"),
        }
    }

    /// A batch was collected.
    pub fn received(&self, deliveries: usize) {
        self.deliveries.increment(wide(deliveries));
    }

    /// A batch was committed.
    pub fn committed(&self, items: &[Item], plan: &CommitPlan, took: Duration) {
        if items.is_empty() {
            return;
        }
        self.batch_writes.record(precise(items.len()));
        self.batch_seconds.record(took.as_secs_f64());
        self.row_writes.increment(wide(plan.row_writes()));
        let mut tally: Vec<(&'static str, &'static str, u64)> = Vec::new();
        for (item, settled) in items.iter().zip(&plan.settled) {
            let (outcome, reason) = labels(&settled.outcome);
            if item.is_letter() {
                letters(outcome).increment(u64::from(outcome != "parked"));
                continue;
            }
            if settled.replayed {
                self.replayed.increment(1);
                continue;
            }
            match tally.iter_mut().find(|line| line.0 == outcome && line.1 == reason) {
                Some(line) => line.2 += 1,
                None => tally.push((outcome, reason, 1)),
            }
        }
        for (outcome, reason, count) in tally {
            writes(outcome, reason).increment(count);
            if outcome == "rejected" {
                dead_letters_total(reason).increment(count);
            }
        }
    }

    /// How long a write waited from publish to commit.
    pub fn lagged(&self, seconds: f64) {
        self.lag_seconds.record(seconds);
    }

    /// A claim was superseded.
    pub fn fenced(&self) {
        self.fence_losses.increment(1);
    }

    /// A batch was cut in two.
    pub fn bisected(&self) {
        self.bisections.increment(1);
    }

    /// A batch is tried again.
    pub fn retried(&self, cause: &'static str) {
        retries(cause).increment(1);
    }

    /// An outcome could not be sent.
    pub fn reply_dropped(&self) {
        self.replies_dropped.increment(1);
    }

    /// The broker came or went.
    pub fn connected(&self, connected: bool) {
        self.connected.set(if connected { 1.0 } else { 0.0 });
    }

    /// What the status board shows. A partition's series is that of its number in all generations:
    /// each roll would add a ring of them otherwise.
    pub fn board(&self, held: usize, full: usize, ages: &[(PartitionId, f64)]) {
        self.partitions_held.set(precise(held));
        gauge!("keylane_partitions_full").set(precise(full));
        let mut shown = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend(ages.iter().map(|(partition, _)| partition.place()));
        for place in &*shown {
            let of = ages.iter().filter(|(partition, _)| partition.place() == *place);
            let oldest = of.map(|(_, seconds)| *seconds).fold(0.0, f64::max);
            gauge!("keylane_oldest_unsettled_seconds", "partition" => place.clone()).set(oldest);
        }
    }

    /// Which share each of the busiest keys has, the busiest first. Keys are no labels.
    pub fn hot(&self, shares: &[f64]) {
        for (rank, share) in (1_u32..).zip(shares) {
            gauge!("keylane_hot_key_share", "rank" => rank.to_string()).set(*share);
        }
    }

    /// Dead letters in the table. What was counted before and is no more becomes 0.
    pub fn dead_letters(&self, tallies: &[Tally]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gauge in shown.values() {
            gauge.set(0.0);
        }
        if tallies.is_empty() && shown.is_empty() {
            gauge!("keylane_dead_letters", "entity" => "", "reason" => "", "state" => "dead")
                .set(0.0);
        }
        let mut oldest: BTreeMap<&str, f64> =
            ["dead", "parked", "waiting", "replaying"].map(|state| (state, 0.0)).into();
        for Tally { entity, reason, state, count, oldest_age } in tallies {
            let entity = entity.clone().unwrap_or_default();
            let labels = [entity, reason.clone(), state.clone()];
            let gauge = shown.entry(labels).or_insert_with_key(|[entity, reason, state]| {
                gauge!("keylane_dead_letters", "entity" => entity.clone(),
                       "reason" => reason.clone(), "state" => state.clone())
            });
            gauge.set(precise(usize::try_from(*count).unwrap_or(0)));
            if let Some(age) = oldest.get_mut(state.as_str()) {
                *age = age.max(*oldest_age);
            }
        }
        for (state, age) in oldest {
            gauge!("keylane_dead_letters_oldest_seconds", "state" => state.to_owned()).set(age);
        }
    }

    /// Keys that stand still, and how many of them each holder of rows keeps waiting, the worst
    /// first. Who they are is no label: it is free text, and may be personal data.
    pub fn census(&self, census: &Census, blockers: &[(String, i64)]) {
        let keys = blockers.iter().map(|(_, keys)| *keys).chain(std::iter::repeat(0));
        for (rank, keys) in (1..=BLOCKERS).zip(keys) {
            let keys = precise(usize::try_from(keys).unwrap_or(0));
            gauge!("keylane_blocked_keys", "rank" => rank.to_string()).set(keys);
        }
        let count = |count: i64| precise(usize::try_from(count).unwrap_or(0));
        gauge!("keylane_parked_keys").set(count(census.keys));
        gauge!("keylane_paused_keys").set(count(census.paused));
        gauge!("keylane_parked_writes").set(count(census.resting));
        let waiting = [(WaitsFor::Parent, census.for_parents), (WaitsFor::Lock, census.for_locks)];
        for (waits_for, keys) in waiting {
            gauge!("keylane_waiting_keys", "for" => waits_for.label()).set(count(keys));
        }
    }
}

/// The label of a write whose outcome is told later.
const ACCEPTED: &str = "accepted";

/// What the ingress counts.
#[derive(Clone)]
pub struct Ingress {
    in_hand: Gauge,
    awaited: Gauge,
}

impl Ingress {
    /// Registers every series at 0.
    pub fn new() -> Self {
        for outcome in Outcome::LABELS.into_iter().chain([ACCEPTED]) {
            http_answers(outcome).increment(0);
        }
        http_problems("broker_unavailable").increment(0);
        Self {
            in_hand: gauge!("keylane_http_requests_in_hand"),
            awaited: gauge!("keylane_http_outcomes_awaited"),
        }
    }

    /// A write was answered with its outcome.
    pub fn answered(&self, outcome: &OutcomeBody) {
        let label = Outcome::LABELS.into_iter().find(|label| *label == outcome.outcome);
        http_answers(label.unwrap_or("applied")).increment(1);
    }

    /// A write was answered before its outcome was known.
    pub fn accepted(&self) {
        http_answers(ACCEPTED).increment(1);
    }

    /// A request was answered with a problem. Codes are a closed set.
    pub fn problem(&self, code: &'static str) {
        http_problems(code).increment(1);
    }

    /// What is under way.
    pub fn gauges(&self, in_hand: usize, awaited: usize) {
        self.in_hand.set(precise(in_hand));
        self.awaited.set(precise(awaited));
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self::new()
    }
}

fn http_answers(outcome: &'static str) -> Counter {
    counter!("keylane_http_answers_total", "outcome" => outcome)
}

fn http_problems(code: &'static str) -> Counter {
    counter!("keylane_http_problems_total", "code" => code)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const fn labels(outcome: &Outcome) -> (&'static str, &'static str) {
    match (outcome.effect(), outcome.reason()) {
        (Some(label), _) | (None, Some(label)) => (outcome.label(), label),
        (None, None) => (outcome.label(), ""),
    }
}

fn writes(outcome: &'static str, reason: &'static str) -> Counter {
    counter!("keylane_writes_total", "outcome" => outcome, "reason" => reason)
}

fn retries(cause: &'static str) -> Counter {
    counter!("keylane_retries_total", "cause" => cause)
}

fn letters(outcome: &'static str) -> Counter {
    counter!("keylane_letters_total", "outcome" => outcome)
}

fn dead_letters_total(reason: &'static str) -> Counter {
    counter!("keylane_dead_letters_total", "reason" => reason)
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles; counts stay far below 2^53")]
const fn precise(count: usize) -> f64 {
    count as f64
}
