//! The ingress's line to the broker: one connection, published on in confirm mode, answers back on
//! the same channel.
//!
//! Owns: reconnecting, and telling everybody whether there is a line.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::probes::Check;
use crate::rabbit::connection::Connection;
use crate::rabbit::publisher::{Options, Publisher};
use crate::rabbit::replies::Replies;
use crate::settings::Settings;
use crate::wire::OutcomeBody;

use super::waiters::Waiters;

/// Pause before the broker is tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Why there is no line although there is a connection.
const BLOCKED: &str = "an alarm of the broker stops publishing";

/// A connection that can publish now.
pub struct Line {
    pub publisher: Publisher,
    /// Cancelled when it is gone: no answer comes back on it any more.
    pub lost: CancellationToken,
}

/// The line, while there is one; else why not.
pub(super) struct Broker {
    state: RwLock<Result<Arc<Line>, String>>,
}

impl Default for Broker {
    fn default() -> Self {
        Self { state: RwLock::new(Err("not connected yet".to_owned())) }
    }
}

impl Broker {
    /// The line, or why there is none.
    pub(super) fn line(&self) -> Result<Arc<Line>, String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        if state.publisher.ended() || state.lost.is_cancelled() {
            return Err("the connection was lost".to_owned());
        }
        if state.publisher.blocked() {
            return Err(BLOCKED.to_owned());
        }
        Ok(state)
    }

    /// What readiness looks at: the connection, and whether something may be published on it.
    pub(super) fn checks(&self) -> [Check; 2] {
        let why = self.line().err();
        let blocked = why.as_deref() == Some(BLOCKED);
        let (broker, publisher) = if blocked { (None, why) } else { (why, None) };
        [Check::of("broker", broker), Check::of("publisher", publisher)]
    }

    fn set(&self, state: Result<Arc<Line>, String>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Keeps a line open until `closed`.
    pub(super) async fn run(
        &self,
        settings: &Settings,
        waiters: &Waiters,
        closed: CancellationToken,
    ) {
        let mut said = None;
        while !closed.is_cancelled() {
            let why = match self.serve(settings, waiters, &closed, &mut said).await {
                Ok(()) => "the connection was lost".to_owned(),
                Err(failure) => format!("{failure:#}"),
            };
            self.set(Err(why.clone()));
            if closed.is_cancelled() {
                return;
            }
            // Once for each kind of trouble, not once for each try.
            if said.as_deref() != Some(why.as_str()) {
                warn!("Waiting for the broker: {why}");
                said = Some(why);
            }
            tokio::select! {
                () = sleep(RECONNECT_AFTER) => {}
                () = closed.cancelled() => {}
            }
        }
    }

    async fn serve(
        &self,
        settings: &Settings,
        waiters: &Waiters,
        closed: &CancellationToken,
        said: &mut Option<String>,
    ) -> anyhow::Result<()> {
        let amqp = &settings.amqp;
        let answer_max = Duration::from_millis(amqp.timeout_ms.get().into());
        let connection = Connection::open(amqp, "keylane ingress", answer_max).await;
        let connection = connection.context("connect to the broker")?;
        let options = Options {
            confirm_timeout: Duration::from_millis(settings.http.confirm_max_ms.get().into()),
            window_max: settings.http.requests_max.get(),
        };
        let opened = Publisher::open_with_replies(connection, &options).await;
        let (publisher, confirms, replies) = opened.context("open a channel")?;
        let exchange = format!("{}.writes", amqp.prefix);
        let is_there = publisher.has_exchange(&exchange).await.context("look for the exchange")?;
        anyhow::ensure!(is_there, "exchange {exchange} does not exist; a worker declares it");
        let lost = closed.child_token();
        let watch = publisher.watch(lost.clone());
        let line = Arc::new(Line { publisher, lost: lost.clone() });
        self.set(Ok(Arc::clone(&line)));
        info!("Connected to the broker");
        *said = None;
        tokio::select! {
            () = watch => {}
            () = confirms.run() => {}
            () = hand_out(replies, waiters) => {}
        }
        lost.cancel();
        line.publisher.close().await;
        Ok(())
    }
}

/// Gives answers to whoever waits for them.
async fn hand_out(mut replies: Replies, waiters: &Waiters) {
    while let Some(answer) = replies.next().await {
        let number = answer.correlation_id.parse::<u64>();
        let outcome = serde_json::from_slice::<OutcomeBody>(&answer.body);
        if let (Ok(number), Ok(outcome)) = (number, outcome) {
            waiters.answer(number, outcome);
        } else {
            warn!("An answer that is none of a worker's was left unread");
        }
    }
}
