//! Reads the catalogue again on behalf of requests that name what it did not have.
//!
//! Owns: that they share one read and that there is at most one a second, however many senders are
//! wrong; and that a database that hangs holds none of them up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::postgres::catalogue::current::Catalogue;

/// At most one read in so long.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the database.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Requests that wait for one read; more go on with what is known.
const WAITING_MAX: usize = 10_000;

/// The asking side.
pub(super) struct Refreshes {
    questions: mpsc::Sender<oneshot::Sender<()>>,
    began: Arc<Mutex<Option<Instant>>>,
}

/// The reading side: [`Reads::run`] must run beside.
pub(super) struct Reads {
    catalogue: Arc<Catalogue>,
    questions: mpsc::Receiver<oneshot::Sender<()>>,
    /// When the last read began that was tried.
    began: Arc<Mutex<Option<Instant>>>,
}

impl Refreshes {
    /// Both sides.
    pub(super) fn new(catalogue: Arc<Catalogue>) -> (Self, Reads) {
        let (sender, questions) = mpsc::channel(WAITING_MAX);
        let began = Arc::<Mutex<Option<Instant>>>::default();
        let reads = Reads { catalogue, questions, began: Arc::clone(&began) };
        (Self { questions: sender, began }, reads)
    }

    /// Waits for a read of the catalogue that began at most `age` ago, or for one that was tried.
    pub(super) async fn no_older(&self, age: Duration) {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.is_some_and(|began| began.elapsed() < age) {
            return;
        }
        let (told, done) = oneshot::channel();
        if self.questions.try_send(told).is_ok() {
            // It is not told but dropped.
            drop(done.await);
        }
    }
}

impl Reads {
    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.questions.recv_many(&mut waiting, WAITING_MAX).await > 0 {
            let before = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = before {
                sleep_until(before + REFRESH_EVERY).await;
            }
            // Whoever came meanwhile asked before the read, too.
            while let Ok(question) = self.questions.try_recv() {
                waiting.push(question);
            }
            let now = Instant::now();
            match timeout(ANSWER_MAX, self.catalogue.refresh()).await {
                Ok(Ok(_entities)) => {}
                Ok(Err(failure)) => debug!(?failure, "failed to read the catalogue again"),
                Err(_elapsed) => debug!("the catalogue was not read again in time"),
            }
            *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            waiting.clear();
        }
    }
}
