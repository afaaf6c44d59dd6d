//! Which dead letters are meant: one form for every command, for SQL and for the audit.

use serde::{Deserialize, Serialize};
use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;

use crate::core::message::escape;

/// Which dead letters are meant; what is `None` or empty does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Their numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The business key; where a dead letter has none, its routing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Dead at that time or later.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub since: Option<OffsetDateTime>,
    /// Dead before that time.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub until: Option<OffsetDateTime>,
    /// Stands in the body, the detail, the write id or the key, in this spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Filter {
    /// Whether every dead letter is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the conditions, each with `and` before it, behind a `where` that has one already.
    /// The statement calls the table `d`.
    pub fn append(&self, query: &mut QueryBuilder<Postgres>) {
        if !self.ids.is_empty() {
            query.push(" and d.id = any(").push_bind(self.ids.clone()).push(")");
        }
        if let Some(key) = &self.key {
            query.push(" and (d.key = ").push_bind(key.clone());
            query.push(" or d.key is null and d.routing_key = ").push_bind(escape(key)).push(")");
        }
        let names = [("entity", &self.entity), ("reason", &self.reason), ("state", &self.state)];
        for (column, name) in names {
            if let Some(name) = name {
                query.push(" and d.").push(column).push(" = ").push_bind(name.clone());
            }
        }
        for (compared, time) in [(">=", self.since), ("<", self.until)] {
            if let Some(time) = time {
                query.push(" and d.dead_at ").push(compared).push(" ").push_bind(time);
            }
        }
        if let Some(text) = &self.text {
            query.push(" and (position(").push_bind(text.clone().into_bytes());
            query.push(" in d.body) > 0");
            for column in ["d.detail", "d.write_id", "coalesce(d.key, d.routing_key)"] {
                query.push(" or strpos(").push(column).push(", ").push_bind(text.clone());
                query.push(") > 0");
            }
            query.push(")");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    fn sql(filter: &Filter) -> String {
        let mut query = QueryBuilder::new("where true");
        filter.append(&mut query);
        query.sql().as_str().to_owned()
    }

    #[test]
    fn nothing_asked_for_is_no_condition() {
        assert!(Filter::default().is_empty());
        assert_eq!(sql(&Filter::default()), "where true");
    }

    #[test]
    fn every_field_is_a_condition_with_its_value_bound() {
        let some = |text: &str| Some(text.to_owned());
        let table = [
            (Filter { ids: vec![1, 2], ..Filter::default() }, "d.id = any($1)"),
            (Filter { entity: some("'"), ..Filter::default() }, "d.entity = $1"),
            (Filter { reason: some("r"), ..Filter::default() }, "d.reason = $1"),
            (Filter { state: some("dead"), ..Filter::default() }, "d.state = $1"),
            (
                Filter { key: some("k"), ..Filter::default() },
                "(d.key = $1 or d.key is null and d.routing_key = $2)",
            ),
            (
                Filter { since: Some(datetime!(2026-11-21 0:00 UTC)), ..Filter::default() },
                "d.dead_at >= $1",
            ),
            (
                Filter { until: Some(datetime!(2026-11-21 0:00 UTC)), ..Filter::default() },
                "d.dead_at < $1",
            ),
            (
                Filter { text: some("t"), ..Filter::default() },
                "(position($1 in d.body) > 0 or strpos(d.detail, $2) > 0 \
                 or strpos(d.write_id, $3) > 0 or strpos(coalesce(d.key, d.routing_key), $4) > 0)",
            ),
        ];
        for (filter, condition) in table {
            assert!(!filter.is_empty());
            assert_eq!(sql(&filter), format!("where true and {condition}"));
        }
    }

    #[test]
    fn the_audit_keeps_what_was_asked_for_and_it_is_read_back() {
        let filter = Filter {
            ids: vec![7],
            entity: Some("customer".into()),
            since: Some(datetime!(2026-11-21 2:00 UTC)),
            ..Filter::default()
        };
        let kept = serde_json::to_value(&filter).unwrap();
        let expected = json!({"ids": [7], "entity": "customer", "since": "2026-11-21T02:00:00Z"});
        assert_eq!(kept, expected);
        assert_eq!(serde_json::from_value::<Filter>(kept).unwrap(), filter);
    }
}
