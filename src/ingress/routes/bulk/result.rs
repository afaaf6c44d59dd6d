//! What became of one item of a bulk request, as the caller gets it.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::core::outcome::Rejection;
use crate::ingress::problem::Problem;
use crate::wire::OutcomeBody;
use crate::wire::line::Names;

/// What became of one item.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum ItemResult {
    /// Its outcome.
    Outcome(Arc<OutcomeBody>),
    /// It has none, or none yet.
    Other(NoOutcome),
}

/// An item without an outcome.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::ingress) struct NoOutcome {
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    /// `pending`: accepted, ask `/v1/writes/{entity}/{write_id}` · `rejected`: never accepted ·
    /// `not_accepted`: send it again · `not_sent`: an earlier item of its key was not accepted.
    #[schema(schema_with = labels)]
    pub outcome: &'static str,
    /// The code of what is wrong.
    pub reason: Option<String>,
    pub detail: Option<String>,
    /// Into `body`, where the reason is one of its members; else into the item.
    pub pointer: Option<String>,
}

fn labels() -> utoipa::openapi::Object {
    crate::wire::schemas::labels(["pending", "rejected", "not_accepted", "not_sent"])
}

impl ItemResult {
    /// It can never be applied as it is.
    pub(super) fn rejected(names: &Names, rejection: &Rejection) -> Self {
        Self::problem(names, "rejected", &Problem::rejected(rejection))
    }

    /// The same may be accepted later.
    pub(super) fn not_accepted(names: &Names, problem: &Problem) -> Self {
        Self::problem(names, "not_accepted", problem)
    }

    fn problem(names: &Names, outcome: &'static str, problem: &Problem) -> Self {
        let pointer = problem.errors.first().map(|fault| fault.pointer.clone());
        Self::Other(NoOutcome {
            reason: Some(problem.code.to_owned()),
            detail: Some(problem.detail.clone()),
            pointer,
            ..NoOutcome::new(names, outcome)
        })
    }

    /// It was held back.
    pub(super) fn not_sent(names: &Names) -> Self {
        let why = "an earlier item of the same key was not accepted; send both again, in order";
        let detail = Some(why.to_owned());
        Self::Other(NoOutcome { detail, ..NoOutcome::new(names, "not_sent") })
    }

    /// It is accepted, and its outcome is not known yet.
    pub(super) fn pending(names: &Names) -> Self {
        Self::Other(NoOutcome::new(names, "pending"))
    }
}

impl NoOutcome {
    fn new(names: &Names, outcome: &'static str) -> Self {
        Self {
            entity: names.entity.clone(),
            key: names.key.clone(),
            write_id: names.id.clone(),
            outcome,
            reason: None,
            detail: None,
            pointer: None,
        }
    }
}
