//! The table at the end.

use std::io::Write;

use crate::http::Asked;

/// What was measured; absent where it was not asked for.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) publish: Option<f64>,
    pub(crate) null: Option<f64>,
    pub(crate) naive: Option<f64>,
    pub(crate) clients: Option<f64>,
    pub(crate) runs: Vec<Run>,
    /// p50, p99 and p99.9 in milliseconds.
    pub(crate) latency: Option<[f64; 3]>,
    pub(crate) http: Vec<Asked>,
    /// After so many requests, so many MiB.
    pub(crate) memory: Vec<(u64, f64)>,
}

/// A drained shape.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) rate: f64,
    pub(crate) memory_mib: f64,
}

/// What the worker should reach, as shares of what was measured in the same run.
const OF_NULL_MIN: f64 = 0.4;
const OF_NAIVE_MIN: f64 = 5.0;
const MEMORY_MIB_MAX: f64 = 100.0;
const P99_MS_MAX: f64 = 15.0;

impl Report {
    /// Prints everything.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let over = |rate: f64, base: Option<f64>| {
            base.map_or_else(|| "-".to_owned(), |base| format!("{:.2}", rate / base))
        };
        writeln!(
            out,
            "\n{:<44}{:>10}{:>9}{:>9}{:>10}",
            "", "writes/s", "x null", "x naive", "peak MiB"
        )?;
        let plain = [
            ("published with confirms, window 2000", self.publish),
            ("null consumer: consume and acknowledge", self.null),
            ("naive consumer: an upsert and an ack a message", self.naive),
            ("16 clients of the database, no queue", self.clients),
        ];
        for (name, rate) in plain {
            let Some(rate) = rate else { continue };
            let (null, naive) = (over(rate, self.null), over(rate, self.naive));
            writeln!(out, "{name:<46}{rate:>8.0}{null:>9}{naive:>9}")?;
        }
        for Run { name, rate, memory_mib } in &self.runs {
            let (null, naive) = (over(*rate, self.null), over(*rate, self.naive));
            writeln!(out, "{name:<46}{rate:>8.0}{null:>9}{naive:>9}{memory_mib:>10.1}")?;
        }
        if let Some([p50, p99, p999]) = self.latency {
            let offered = crate::latency::OFFERED;
            writeln!(
                out,
                "latency at {offered}/s: p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms"
            )?;
        }
        self.print_http(out)?;
        for (requests, mib) in &self.memory {
            writeln!(out, "VmRSS after {requests:>9} requests{mib:>10.1} MiB")?;
        }
        self.print_aims(out)
    }

    fn print_http(&self, out: &mut impl Write) -> std::io::Result<()> {
        if self.http.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<44}{:>8}{:>12}{:>10}{:>9}{:>9}",
            "", "callers", "answers/s", "x direct", "p50 ms", "p99 ms"
        )?;
        for Asked { name, callers, rate, latency: [p50, p99] } in &self.http {
            // The first contender is the direct one, with the same numbers of callers.
            let direct = self.http.iter().find(|asked| asked.callers == *callers);
            let share = direct.map_or(f64::NAN, |direct| rate / direct.rate);
            writeln!(out, "{name:<44}{callers:>8}{rate:>12.0}{share:>10.2}{p50:>9.1}{p99:>9.1}")?;
        }
        Ok(())
    }

    fn print_aims(&self, out: &mut impl Write) -> std::io::Result<()> {
        let uniform = self.runs.first().map(|run| run.rate);
        let hottest = self.runs.iter().skip(1).map(|run| run.rate).reduce(f64::min);
        let ratio = |over: Option<f64>, base: Option<f64>| Some(over? / base?);
        let memory = self.runs.iter().map(|run| run.memory_mib).reduce(f64::max);
        let p99 = self.latency.map(|[_, p99, _]| p99);
        let at_least = [
            ("uniform keys, share of the null consumer", ratio(uniform, self.null), OF_NULL_MIN),
            ("uniform keys, times the naive consumer", ratio(uniform, self.naive), OF_NAIVE_MIN),
            ("hot keys, times uniform keys", ratio(hottest, uniform), 1.0),
        ];
        let at_most = [
            ("peak memory of the worker, MiB", memory, MEMORY_MIB_MAX),
            ("p99 latency, ms", p99, P99_MS_MAX),
        ];
        let least = at_least.map(|(name, got, aim)| (name, got, "at least", aim, got >= Some(aim)));
        let most = at_most.map(|(name, got, aim)| (name, got, "at most", aim, got <= Some(aim)));
        writeln!(out)?;
        for (name, got, bound, aim, reached) in least.into_iter().chain(most) {
            let Some(got) = got else { continue };
            let verdict = if reached { "reached" } else { "missed" };
            writeln!(out, "{verdict:<9}{name:<44}{got:>8.2}   {bound} {aim}")?;
        }
        Ok(())
    }
}
