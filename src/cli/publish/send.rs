//! Sends checked lines in their order, and holds back what may not overtake.
//!
//! Owns: the order rule: once a write of a key is not confirmed, later writes of that key that
//! are not yet sent stay unsent. Sending them would apply them before it is sent again.
//! Never: retries.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, Interval, interval, sleep_until};

use super::read::Checked;
use super::report::{Problem, Report};
use crate::clock;
use crate::operate::chain;
use crate::rabbit::error::BrokerError;
use crate::rabbit::publisher::{Confirmed, Outgoing, PendingConfirm, Publisher, Slot};
use crate::wire::line::Write;

/// How often it is looked whether an alarm stops the broker.
const ALARM_CHECK_EVERY: Duration = Duration::from_millis(200);

/// An entity and a routing key: what must stay in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    entity: String,
    routing_key: String,
}

/// A line that waits for its confirm.
struct Done {
    line: u64,
    row: Row,
    confirmed: Confirmed,
}

/// Sends the lines of one file.
pub struct Sender<'run> {
    publisher: &'run Publisher,
    exchange: String,
    report: Report<'run>,
    pace: Option<Pace>,
    unconfirmed: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    alarm_checks: Interval,
    blocked: bool,
    /// The line that was not confirmed, of each row whose later lines are held back.
    held: HashMap<Row, u64>,
    /// Why nothing can be sent any more.
    lost: Option<String>,
}

impl<'run> Sender<'run> {
    pub fn new(
        publisher: &'run Publisher,
        exchange: String,
        report: Report<'run>,
        rate: Option<NonZeroU32>,
    ) -> Self {
        Self {
            publisher,
            exchange,
            report,
            pace: rate.map(Pace::new),
            unconfirmed: FuturesUnordered::new(),
            alarm_checks: interval(ALARM_CHECK_EVERY),
            blocked: false,
            held: HashMap::new(),
            lost: None,
        }
    }

    /// Sends every line, and waits for every confirm.
    pub async fn send_all(
        mut self,
        mut bundles: Receiver<Vec<Checked>>,
    ) -> io::Result<Report<'run>> {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.unconfirmed.next(), if !self.unconfirmed.is_empty() => {
                    self.note(done)?;
                }
                _ = self.alarm_checks.tick() => self.tell_of_alarms()?,
                bundle = bundles.recv() => match bundle {
                    Some(bundle) => for checked in bundle {
                        self.take(checked).await?;
                    },
                    None => break,
                },
            }
        }
        while !self.unconfirmed.is_empty() {
            tokio::select! {
                biased;
                Some(done) = self.unconfirmed.next() => self.note(done)?,
                _ = self.alarm_checks.tick() => self.tell_of_alarms()?,
            }
        }
        Ok(self.report)
    }

    async fn take(&mut self, checked: Checked) -> io::Result<()> {
        let Checked { line, write } = checked;
        let write = match write {
            Ok(write) => write,
            Err(detail) => return self.report.failed(line, Problem::Refused, &detail),
        };
        // Whatever is answered by now is known when the window has room.
        let slot = if self.lost.is_none() { self.room().await? } else { None };
        let row = Row { entity: write.entity().to_owned(), routing_key: write.routing_key.clone() };
        if let Some(earlier) = self.held.get(&row) {
            let detail = format!("line {earlier} of the same key was not confirmed");
            return self.report.failed(line, Problem::NotSent, &detail);
        }
        let Some(slot) = slot else {
            let detail = self.lost.get_or_insert_with(|| "the connection is gone".into());
            return self.report.failed(line, Problem::NotSent, detail);
        };
        if let Some(pace) = &mut self.pace {
            pace.sent(Instant::now());
        }
        match slot.publish(outgoing(&self.exchange, write)) {
            Ok(confirm) => {
                self.unconfirmed.push(Box::pin(wait(confirm, line, row)));
                Ok(())
            }
            // Lengths were checked: the prefix alone may still make a name too long.
            Err(error) => self.report.failed(line, Problem::Refused, &chain(&error)),
        }
    }

    /// Waits for the pace and for room in the window, and meanwhile takes in what is answered.
    async fn room(&mut self) -> io::Result<Option<Slot<'run>>> {
        loop {
            let publisher = self.publisher;
            let next_at = self.pace.as_ref().map(|pace| pace.next_at);
            let room = async {
                if let Some(next_at) = next_at {
                    sleep_until(next_at).await;
                }
                publisher.reserve().await
            };
            tokio::select! {
                biased;
                Some(done) = self.unconfirmed.next(), if !self.unconfirmed.is_empty() => {
                    self.note(done)?;
                }
                _ = self.alarm_checks.tick() => self.tell_of_alarms()?,
                slot = room => return Ok(slot),
            }
        }
    }

    fn note(&mut self, done: Done) -> io::Result<()> {
        let Done { line, row, confirmed } = done;
        let detail = match confirmed {
            Confirmed::Accepted => {
                self.report.published();
                return Ok(());
            }
            Confirmed::Returned { code, text } => format!("no queue took it ({code} {text})"),
            Confirmed::Refused => "the broker could not keep it, and said so".into(),
            Confirmed::Silent { within } => {
                format!("no confirm within {within:?}; it may be there or not")
            }
            Confirmed::Lost(error) => {
                let why = self.why(&error);
                self.lost.get_or_insert_with(|| why.clone());
                format!("{why}; it may be there or not")
            }
        };
        self.held.entry(row).or_insert(line);
        self.report.failed(line, Problem::NotConfirmed, &detail)
    }

    fn why(&self, error: &BrokerError) -> String {
        match error {
            BrokerError::Missing { .. } => {
                let exchange = &self.exchange;
                format!("exchange {exchange} is gone; start a worker once, it declares it")
            }
            BrokerError::Refused { .. } => {
                format!("{}; see docs/PERMISSIONS.md, role sender", chain(error))
            }
            other => format!("the connection ended: {}", chain(other)),
        }
    }

    fn tell_of_alarms(&mut self) -> io::Result<()> {
        let blocked = self.publisher.blocked();
        if std::mem::replace(&mut self.blocked, blocked) == blocked {
            return Ok(());
        }
        self.report.say(if blocked {
            "the broker takes nothing just now (an alarm: memory or disk); waiting until it does"
        } else {
            "the broker takes messages again"
        })
    }
}

async fn wait(confirm: PendingConfirm, line: u64, row: Row) -> Done {
    Done { line, row, confirmed: confirm.wait().await }
}

fn outgoing(exchange: &str, write: Write) -> Outgoing {
    let mut headers = Vec::new();
    headers.extend(write.if_version.map(|version| ("if-version", version)));
    headers.extend(write.occurred_at.map(|time| ("occurred-at", time)));
    Outgoing {
        exchange: exchange.to_owned(),
        routing_key: write.routing_key,
        message_id: write.id,
        kind: write.kind,
        content_type: "application/json",
        published_at: clock::now(),
        correlation_id: None,
        reply_to: None,
        headers,
        body: write.body.into_bytes(),
    }
}

/// Spreads sending evenly over time.
struct Pace {
    every: Duration,
    next_at: Instant,
}

impl Pace {
    /// What a late timer or a full window held up is made up for, but not more than this.
    const BEHIND_MAX: Duration = Duration::from_millis(100);

    fn new(rate: NonZeroU32) -> Self {
        Self::starting(rate, Instant::now())
    }

    fn starting(rate: NonZeroU32, now: Instant) -> Self {
        Self { every: Duration::from_secs(1) / rate.get(), next_at: now }
    }

    fn sent(&mut self, now: Instant) {
        let earliest = now.checked_sub(Self::BEHIND_MAX).unwrap_or(now);
        self.next_at = self.next_at.max(earliest) + self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_and_a_long_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::starting(NonZeroU32::new(100).unwrap(), start);
        for _ in 0..50 {
            pace.sent(pace.next_at);
        }
        assert_eq!(pace.next_at - start, Duration::from_millis(500));
        let resumed = start + Duration::from_secs(10);
        let mut sent_at_once = 0;
        while pace.next_at <= resumed {
            pace.sent(resumed);
            sent_at_once += 1;
        }
        assert_eq!(sent_at_once, 11, "100 ms are made up for");
    }

    #[test]
    fn guards_travel_as_text_headers() {
        let line = br#"{"entity":"e","change":"update","key":"k","id":"w","body":{"a":1},
            "if_version":7,"occurred_at":"2026-11-21T02:00:00Z"}"#;
        let message = outgoing("keylane.writes", Write::parse(line).unwrap());
        let expected =
            [("if-version", "7".to_owned()), ("occurred-at", "2026-11-21T02:00:00Z".to_owned())];
        assert_eq!(message.headers, expected);
        assert_eq!((message.kind.as_str(), message.message_id.as_str()), ("e.update", "w"));
        assert_eq!(message.body, br#"{"a":1}"#);
    }
}
