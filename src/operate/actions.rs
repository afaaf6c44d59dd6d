//! The audit: what operators did, written in the transaction that did it.

use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

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

/// Adds to an action that is done in several transactions.
pub async fn extend(
    connection: &mut PgConnection,
    id: i64,
    count: i64,
    result: &str,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.operator_actions set count = count + $2, result = $3 where id = $1";
    sqlx::query(SQL).bind(id).bind(count).bind(result).execute(connection).await.map(drop)
}

/// Which actions are asked for; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub actor: Option<String>,
    pub action: Option<String>,
    /// Done at that time or later.
    pub since: Option<OffsetDateTime>,
    /// How many at most.
    pub limit: i64,
}

/// An action as it was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Noted {
    pub id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub acted_at: OffsetDateTime,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub reason: Option<String>,
    pub filter: Option<Value>,
    pub count: Option<i64>,
    pub result: String,
}

/// What was done, the newest first.
pub async fn list(connection: &mut PgConnection, asked: &Asked) -> Result<Vec<Noted>, sqlx::Error> {
    const SQL: &str = "
        select id, acted_at, actor, action, target, reason, filter, count, result
          from keylane.operator_actions
         where ($1::text is null or actor = $1)
           and ($2::text is null or action = $2)
           and ($3::timestamptz is null or acted_at >= $3)
         order by id desc
         limit $4";
    sqlx::query_as(SQL)
        .bind(&asked.actor)
        .bind(&asked.action)
        .bind(asked.since)
        .bind(asked.limit)
        .fetch_all(connection)
        .await
}
