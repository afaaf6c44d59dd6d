//! Asks the ledger, for many requests at once.
//!
//! Owns: that a look-up costs a share of a statement, not a statement of its own, and that a
//! database that is away costs no request more than a short wait: the ingress does not need it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::debug;
use uuid::Uuid;

use crate::core::plan::Recorded;
use crate::postgres::ledger;

/// Look-ups that wait for the statement before theirs.
const WAITING_MAX: usize = 10_000;
/// Ids in one statement.
const IDS_MAX: usize = 1_000;
/// Longest wait for the database.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// After a failure nobody asks for so long.
const REST: Duration = Duration::from_secs(1);

/// What the ledger knows of an id; nothing if the database could not be asked.
type Found = Option<Vec<Recorded>>;

struct Question {
    id: Uuid,
    answer: oneshot::Sender<Found>,
}

/// The asking side.
pub(super) struct Lookups {
    questions: mpsc::Sender<Question>,
    rests_until: Mutex<Option<Instant>>,
}

/// The answering side: [`Answers::run`] must run beside.
pub(super) struct Answers {
    pool: PgPool,
    questions: mpsc::Receiver<Question>,
}

impl Lookups {
    /// Both sides.
    pub(super) fn new(pool: PgPool) -> (Self, Answers) {
        let (sender, questions) = mpsc::channel(WAITING_MAX);
        (Self { questions: sender, rests_until: Mutex::new(None) }, Answers { pool, questions })
    }

    /// What the ledger knows of an id; `None` when the database is away. A write that rests is not
    /// in it: a repeat is published, and the worker finds it.
    pub(super) async fn find(&self, id: Uuid) -> Found {
        let rests_until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        if rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let (answer, found) = oneshot::channel();
        self.questions.try_send(Question { id, answer }).ok()?;
        let found = timeout(ANSWER_MAX, found).await.ok().and_then(Result::ok).flatten();
        let rest = found.is_none().then(|| Instant::now() + REST);
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = rest;
        found
    }
}

impl Answers {
    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut questions = Vec::with_capacity(IDS_MAX);
        while self.questions.recv_many(&mut questions, IDS_MAX).await > 0 {
            questions.retain(|question| !question.answer.is_closed());
            let ids: Vec<Uuid> = questions.iter().map(|question| question.id).collect();
            let mut found = match timeout(ANSWER_MAX, self.ask(&ids)).await {
                Ok(Ok(found)) => Some(found),
                Ok(Err(error)) => {
                    debug!(%error, "failed to ask the ledger");
                    None
                }
                Err(_elapsed) => None,
            };
            for Question { id, answer } in questions.drain(..) {
                // The same id may be asked for twice.
                let lines = found.as_mut().map(|found| found.get(&id).cloned().unwrap_or_default());
                drop(answer.send(lines));
            }
        }
    }

    async fn ask(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<Recorded>>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.pool.acquire().await?;
        ledger::load(&mut connection, ids).await
    }
}
