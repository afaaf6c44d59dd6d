//! The audit: what operators did, written in the transaction that did it.

use serde_json::Value;
use sqlx::PgConnection;

/// One action of an operator.
#[derive(Debug, Clone)]
pub struct Action<'a> {
    /// Who: the flag `--as`, else `KEYLANE_OPERATOR`, else the user of the operating system.
    pub actor: &'a str,
    /// What, for example `discard`.
    pub action: &'static str,
    /// With what: `dead letter 17`, `customer CUST-1`, `replay 3`.
    pub target: &'a str,
    /// Why, in the operator's words.
    pub reason: Option<&'a str>,
    /// What was asked for, where it was more than one thing.
    pub filter: Option<Value>,
    /// How many things were touched.
    pub count: i64,
    /// What came of it.
    pub result: &'a str,
}

/// Notes an action; returns its number.
pub async fn note(connection: &mut PgConnection, action: &Action<'_>) -> Result<i64, sqlx::Error> {
    const SQL: &str = "
        insert into keylane.operator_actions (actor, action, target, reason, filter, count, result)
        values ($1, $2, $3, $4, $5, $6, $7) returning id";
    sqlx::query_scalar(SQL)
        .bind(action.actor)
        .bind(action.action)
        .bind(action.target)
        .bind(action.reason)
        .bind(&action.filter)
        .bind(action.count)
        .bind(action.result)
        .fetch_one(connection)
        .await
}
