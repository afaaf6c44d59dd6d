//! Says which lines were not confirmed, as soon as that is known, and counts.
//!
//! Owns: the names of the problems, one JSON line each on standard output, and the summary.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::Instant;

/// Why a line is not on the broker for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Problem {
    /// The line is wrong, and was not sent.
    #[serde(rename = "refused")]
    Refused,
    /// It was sent, and the broker did not say that it keeps it.
    #[serde(rename = "not confirmed")]
    NotConfirmed,
    /// It was kept back, so that it cannot overtake an earlier write, or because nothing can be sent.
    #[serde(rename = "not sent")]
    NotSent,
}

#[derive(Serialize)]
struct Failed<'report> {
    line: u64,
    problem: Problem,
    detail: &'report str,
}

/// What became of all lines.
pub struct Report<'out> {
    out: &'out mut dyn Write,
    bar: ProgressBar,
    started_at: Instant,
    published: u64,
    refused: u64,
    not_confirmed: u64,
    not_sent: u64,
}

impl<'out> Report<'out> {
    pub fn new(out: &'out mut dyn Write, bar: ProgressBar) -> Self {
        let started_at = Instant::now();
        Self { out, bar, started_at, published: 0, refused: 0, not_confirmed: 0, not_sent: 0 }
    }

    /// Counts a line that the broker keeps.
    pub fn published(&mut self) {
        self.published += 1;
        // A message a thousand: formatting it for each would cost more than the bar is worth.
        if self.published.is_multiple_of(1000) {
            self.bar.set_message(format!("{} published", self.published));
        }
    }

    /// Reports a line that it does not, or may not.
    pub fn failed(&mut self, line: u64, problem: Problem, detail: &str) -> io::Result<()> {
        match problem {
            Problem::Refused => self.refused += 1,
            Problem::NotConfirmed => self.not_confirmed += 1,
            Problem::NotSent => self.not_sent += 1,
        }
        let mut text = serde_json::to_vec(&Failed { line, problem, detail })?;
        text.push(b'\n');
        // One of both is a terminal, perhaps the same one.
        let Self { bar, out, .. } = self;
        bar.suspend(|| out.write_all(&text))
    }

    /// Talks to whoever waits.
    pub fn say(&self, text: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stderr(), "{text}"))
    }

    /// Whether the broker keeps every line.
    pub const fn all_well(&self) -> bool {
        self.refused == 0 && self.not_confirmed == 0 && self.not_sent == 0
    }

    /// The last line on standard error.
    pub fn summary(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let Self { published, refused, not_confirmed, not_sent, .. } = &*self;
        let took = self.started_at.elapsed();
        let rate = a_second(*published, took);
        self.say(&format!(
            "published {published}, refused {refused}, not confirmed {not_confirmed}, \
             not sent {not_sent} in {:.1} s ({rate}/s)",
            took.as_secs_f64()
        ))
    }
}

fn a_second(count: u64, took: Duration) -> u128 {
    u128::from(count) * 1000 / took.as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_failed_is_one_json_line() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, ProgressBar::hidden());
        report.published();
        assert!(report.all_well());
        report.failed(3, Problem::Refused, "missing \"id\"").unwrap();
        report.failed(4, Problem::NotSent, "x").unwrap();
        report.failed(5, Problem::NotConfirmed, "x").unwrap();
        assert!(!report.all_well());
        drop(report);
        let expected = r#"{"line":3,"problem":"refused","detail":"missing \"id\""}
{"line":4,"problem":"not sent","detail":"x"}
{"line":5,"problem":"not confirmed","detail":"x"}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_rate_needs_no_time_to_have_passed() {
        assert_eq!(a_second(5, Duration::ZERO), 5000);
        assert_eq!(a_second(5, Duration::from_secs(2)), 2);
    }
}
