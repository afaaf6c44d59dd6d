//! Reads what became of letters: decided by their lanes, or why not yet.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::{FromRow, PgConnection};

/// Letters that a page of results has at most.
const PAGE: i64 = 1000;
/// So many letters that wait are named; the others are counted.
const STUCK_SHOWN: i64 = 20;

/// What became of one letter of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Line {
    pub dead_letter: i64,
    pub entity: Option<String>,
    pub key: Option<String>,
    pub write_id: Option<String>,
    /// `waiting`, `requested`, `done` or `skipped`.
    pub state: String,
    pub outcome: Option<String>,
    pub effect: Option<String>,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub version: Option<i64>,
}

/// The results behind letter `after`, in order; an empty page is the end.
pub async fn lines(
    connection: &mut PgConnection,
    replay: i64,
    after: i64,
) -> Result<Vec<Line>, sqlx::Error> {
    const SQL: &str = "
        select r.dead_letter, d.entity, coalesce(d.key, d.routing_key) as key, d.write_id, r.state,
               r.result ->> 'outcome' as outcome, r.result ->> 'effect' as effect,
               r.result ->> 'reason' as reason, r.result ->> 'detail' as detail,
               (r.result ->> 'version')::bigint as version
          from keylane.replay_letters r
          left join keylane.dead_letters d on d.id = r.dead_letter
         where r.replay = $1 and r.dead_letter > $2
         order by r.dead_letter
         limit $3";
    sqlx::query_as(SQL).bind(replay).bind(after).bind(PAGE).fetch_all(connection).await
}

/// A letter that has its result now.
#[derive(Debug, FromRow)]
pub(super) struct Decided {
    /// Dead again.
    pub(super) dead: bool,
    pub(super) reason: Option<String>,
}

/// Takes over the results of letters that were requested and are decided now. None of those above
/// `highest` is asked for.
pub(super) async fn collect(
    connection: &mut PgConnection,
    replay: i64,
    highest: i64,
) -> Result<Vec<Decided>, sqlx::Error> {
    // No join of the set with itself: of a new replay the server has no statistics, and would
    // compare each of its letters with each that was asked for.
    const SQL: &str = "
        update keylane.replay_letters r
           set state = 'done',
               result = coalesce((
                   select case d.state
                       when 'resolved' then coalesce(d.result, '{\"outcome\": \"applied\"}')
                       when 'dead' then
                           jsonb_build_object('outcome', 'rejected', 'reason', d.reason,
                                              'detail', d.detail)
                       else jsonb_build_object('outcome', d.state) end
                     from keylane.dead_letters d where d.id = r.dead_letter),
                   '{\"outcome\": \"gone\"}')
         where r.replay = $1 and r.state = 'requested' and r.dead_letter <= $2
           and not exists (select from keylane.dead_letters d
                            where d.id = r.dead_letter
                              and d.state in ('replaying', 'parked', 'waiting'))
        returning (select d.state from keylane.dead_letters d where d.id = r.dead_letter)
                      is distinct from 'resolved' as dead,
                  r.result ->> 'reason' as reason";
    sqlx::query_as(SQL).bind(replay).bind(highest).fetch_all(connection).await
}

/// The last letter that is asked for; those that are not asked for yet come behind it.
pub(super) async fn highest_asked(
    connection: &mut PgConnection,
    replay: i64,
) -> Result<i64, sqlx::Error> {
    const SQL: &str = "
        select coalesce(max(dead_letter), 0) from keylane.replay_letters
         where replay = $1 and state = 'requested'";
    sqlx::query_scalar(SQL).bind(replay).fetch_one(connection).await
}

/// What the frozen set died of.
pub(super) async fn reasons(
    connection: &mut PgConnection,
    replay: i64,
) -> Result<BTreeSet<String>, sqlx::Error> {
    const SQL: &str = "select distinct reason from keylane.replay_letters where replay = $1";
    let reasons: Vec<String> = sqlx::query_scalar(SQL).bind(replay).fetch_all(connection).await?;
    Ok(reasons.into_iter().collect())
}

/// The keys whose lanes have letters of this replay before them; `after` is a key, in order.
pub(super) async fn asked_keys(
    connection: &mut PgConnection,
    replay: i64,
    after: &str,
) -> Result<Vec<String>, sqlx::Error> {
    const SQL: &str = "
        select distinct d.key
          from keylane.replay_letters r
          join keylane.dead_letters d on d.id = r.dead_letter and d.state = 'replaying'
         where r.replay = $1 and r.state = 'requested' and d.key > $2
         order by d.key
         limit $3";
    sqlx::query_scalar(SQL).bind(replay).bind(after).bind(PAGE).fetch_all(connection).await
}

/// A letter that was requested and has no result.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Stuck {
    pub dead_letter: i64,
    pub entity: Option<String>,
    pub key: Option<String>,
    state: String,
    paused: Option<bool>,
    waits_for: Option<String>,
    behind: Option<i64>,
}

impl Stuck {
    /// What it waits for.
    pub fn why(&self) -> String {
        if self.paused == Some(true) {
            return "its key is paused".into();
        }
        match (self.behind, self.waits_for.as_deref()) {
            (Some(id), _) => format!("it stands behind dead letter {id}"),
            (None, Some("lock")) => "somebody else holds its row".into(),
            (None, Some(_)) => "the row that it refers to is not there yet".into(),
            (None, None) if self.state == "replaying" => {
                "its lane has not looked: does a worker run?".into()
            }
            (None, None) => format!("it is {}", self.state),
        }
    }
}

/// The first letters that were requested and have no result.
pub(super) async fn stuck(
    connection: &mut PgConnection,
    replay: i64,
) -> Result<Vec<Stuck>, sqlx::Error> {
    const SQL: &str = "
        select r.dead_letter, d.entity, d.key, d.state, p.paused, p.waits_for,
               (select min(head.id) from keylane.dead_letters head
                 where head.entity = d.entity and head.key = d.key and head.id < d.id
                   and head.state = 'dead' and head.stops) as behind
          from keylane.replay_letters r
          join keylane.dead_letters d on d.id = r.dead_letter
          left join keylane.parked_keys p on p.entity = d.entity and p.key = d.key
         where r.replay = $1 and r.state = 'requested'
         order by r.dead_letter
         limit $2";
    sqlx::query_as(SQL).bind(replay).bind(STUCK_SHOWN).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_without_a_result_says_what_it_waits_for() {
        let stuck = Stuck {
            dead_letter: 7,
            entity: None,
            key: None,
            state: "replaying".into(),
            paused: None,
            waits_for: None,
            behind: None,
        };
        let table = [
            (Stuck { paused: Some(true), behind: Some(3), ..stuck.clone() }, "paused"),
            (Stuck { behind: Some(3), ..stuck.clone() }, "behind dead letter 3"),
            (Stuck { waits_for: Some("lock".into()), ..stuck.clone() }, "holds its row"),
            (Stuck { waits_for: Some("parent".into()), ..stuck.clone() }, "refers to"),
            (Stuck { state: "parked".into(), ..stuck.clone() }, "parked"),
            (stuck, "does a worker run?"),
        ];
        for (stuck, says) in table {
            assert!(stuck.why().contains(says), "{}", stuck.why());
        }
    }
}
