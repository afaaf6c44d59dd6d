//! What became of the letters of a line.

use sqlx::PgConnection;

use crate::core::batch::{Item, Source};
use crate::core::outcome::Outcome;
use crate::core::plan::CommitPlan;

use super::storable;

/// Stores what became of the letters of a look.
pub(in crate::postgres) async fn decide(
    connection: &mut PgConnection,
    items: &[Item],
    plan: &CommitPlan,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        update keylane.dead_letters d
           set state = n.state, stops = n.stops, result = coalesce(n.result, d.result),
               reason = coalesce(n.reason, d.reason),
               detail = case when n.reason is null then d.detail else n.detail end,
               pointer = case when n.reason is null then d.pointer else n.pointer end,
               attempts = d.attempts + 1, state_changed_at = $1
          from unnest($2::bigint[], $3::text[], $4::bool[], $5::jsonb[], $6::text[], $7::text[],
                      $8::text[]) as n (id, state, stops, result, reason, detail, pointer)
         where d.id = n.id";
    let decided: Vec<(i64, &Item, &Outcome)> = plan
        .letters
        .iter()
        .filter_map(|position| {
            let item = items.get(*position)?;
            let Source::Letter { id, .. } = item.source else { return None };
            Some((id, item, &plan.settled.get(*position)?.outcome))
        })
        .collect();
    let outcomes = || decided.iter().map(|(_, _, outcome)| *outcome);
    // What was wrong stays to be read beside the outcome that replaced it.
    let open = |of: fn(&Outcome) -> Option<&str>| -> Vec<Option<String>> {
        outcomes()
            .map(|outcome| if outcome.is_final() { None } else { of(outcome).map(storable) })
            .collect()
    };
    sqlx::query(SQL)
        .bind(plan.now)
        .bind(decided.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
        .bind(outcomes().map(state).collect::<Vec<_>>())
        .bind(decided.iter().map(|(_, item, outcome)| stops(item, outcome)).collect::<Vec<_>>())
        .bind(outcomes().map(result).collect::<Vec<_>>())
        .bind(open(Outcome::reason))
        .bind(open(Outcome::detail))
        .bind(open(Outcome::pointer))
        .execute(connection)
        .await
        .map(drop)
}

/// The state of a dead letter with this outcome.
pub(in crate::postgres) fn state(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied { .. } | Outcome::PreconditionFailed { .. } => "resolved",
        Outcome::Rejected(_) => "dead",
        Outcome::Parked(rest) if rest.passes() => "waiting",
        Outcome::Parked(_) => "parked",
    }
}

/// Whether its key stands still behind it until somebody decides.
pub(in crate::postgres) fn stops(item: &Item, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(rejection) if item.stops_its_key(rejection.reason))
}

fn result(outcome: &Outcome) -> Option<serde_json::Value> {
    outcome.is_final().then(|| {
        serde_json::json!({
            "outcome": outcome.label(),
            "effect": outcome.effect(),
            "reason": outcome.reason(),
            "version": outcome.version(),
        })
    })
}
