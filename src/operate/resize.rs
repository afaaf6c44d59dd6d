//! Asks for another number of partitions, and watches until every key has its place in them.
//!
//! Owns: what counts as done, and when it is said that nobody works.
//! Never: does a step of the roll, or undoes a request: workers roll by themselves.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::actions::{self, Action};
use super::routing::{self, Routing};

/// How often it is looked how far the roll is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long no worker may be there before that is said: one that starts anew is soon back.
const NOBODY_MAX: Duration = Duration::from_secs(3);

/// Who wants how many.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub partitions: i32,
    pub actor: &'a str,
    /// Why, in the operator's words.
    pub because: Option<&'a str>,
}

/// What a watch ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing is drained any more, and the ring is as it is wanted.
    Settled(Routing),
    /// The operator wanted to stop.
    Interrupted,
    /// The time was over.
    TimedOut,
    /// No worker is connected to the database.
    Nobody,
    /// Somebody else wants so many partitions.
    Overruled(i32),
}

/// Reads how writes are routed, for a command that is about to change it.
pub async fn look(connection: &mut PgConnection) -> anyhow::Result<Routing> {
    let routing = routing::read(connection).await.context("read how writes are routed")?;
    routing.context(
        "no worker was ever started on this database: set amqp.partitions, the first one takes it",
    )
}

/// Stores the request, unless a roll is running or somebody else wants another number by now.
///
/// True: it is stored, and workers will see it.
pub async fn request(
    connection: &mut PgConnection,
    request: Request<'_>,
    seen: i32,
) -> anyhow::Result<bool> {
    // Holds back a worker that is about to begin a roll.
    const LOCK: &str = "select partitions from keylane.routing for update";
    const WANT: &str = "update keylane.routing set partitions = $1";
    let mut tx = connection.begin().await.context("open a transaction")?;
    let wanted: i32 = sqlx::query_scalar(LOCK)
        .fetch_one(&mut *tx)
        .await
        .context("lock routing (the grant is in docs/PERMISSIONS.md)")?;
    if wanted != seen || look(&mut tx).await?.rolling() {
        return Ok(false);
    }
    let Request { partitions, actor, because } = request;
    sqlx::query(WANT).bind(partitions).execute(&mut *tx).await.context("store the request")?;
    let result = format!("from {wanted} to {partitions} partitions requested");
    let noted = Action {
        actor,
        action: "resize",
        target: "routing",
        reason: because,
        filter: None,
        count: 1,
        result: &result,
    };
    actions::note(&mut tx, &noted).await.context("note the action")?;
    tx.commit().await.context("commit")?;
    Ok(true)
}

/// Watches until nothing is drained, and `wanted` partitions are there.
pub async fn watch(
    connection: &mut PgConnection,
    wanted: i32,
    (until, stop): (Option<Instant>, &CancellationToken),
    mut progress: impl FnMut(&str),
) -> anyhow::Result<End> {
    let mut somebody_at = Instant::now();
    loop {
        let routing = look(connection).await?;
        // Whoever waited for this may have asked for more by now.
        let overruled = routing.wanted != wanted;
        if routing.settled() && !overruled || overruled && routing.stood_at(wanted) {
            return Ok(End::Settled(routing));
        }
        if overruled {
            return Ok(End::Overruled(routing.wanted));
        }
        let now = Instant::now();
        if routing.workers {
            somebody_at = now;
        }
        if now - somebody_at > NOBODY_MAX {
            return Ok(End::Nobody);
        }
        if until.is_some_and(|until| now >= until) {
            return Ok(End::TimedOut);
        }
        progress(&stands(&routing));
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(End::Interrupted),
        }
    }
}

/// Where a roll stands, in a line.
pub fn stands(routing: &Routing) -> String {
    let mut parts = Vec::new();
    if let (Some(first), Some(last)) = (routing.first(), routing.last())
        && first.turn != last.turn
    {
        let name = if first.generation == 0 {
            "held".to_owned()
        } else {
            format!("generation {}", first.generation)
        };
        let (closed, all, by) = (first.closed, first.partitions, first.by());
        let by = by.unwrap_or_else(|| "nobody".to_owned());
        parts.push(format!("{name} is drained, {closed} of {all} partitions closed (by {by})"));
    }
    match (&routing.roller, routing.prepared()) {
        (Some(worker), Some(next)) => {
            let (generation, many) = (next.generation, next.partitions);
            parts.push(format!("{worker} makes generation {generation}, {many} partitions"));
        }
        (Some(worker), None) => parts.push(format!("{worker} rolls")),
        (None, _) if parts.is_empty() => parts.push("nobody has begun to roll yet".to_owned()),
        (None, _) => {}
    }
    parts.join("; ")
}

/// Refuses numbers that no ring can have.
pub fn partitions(text: &str) -> anyhow::Result<i32> {
    /// Their numbers have three digits.
    const MOST: i32 = 1000;
    let number: i32 = text.parse().context("must be a number from 1 to 1000")?;
    if number < 1 {
        bail!("a ring without partitions would take no write: at least 1");
    }
    if number > MOST {
        bail!(
            "at most {MOST}: partition numbers have three digits, and each partition is a quorum \
             queue, a consumer and at times a database connection"
        );
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use time::OffsetDateTime;

    use super::super::routing::{Does, Line};
    use super::*;

    fn line(turn: i64, generation: i32, does: Does) -> Line {
        Line {
            turn: Some(turn),
            generation,
            state: "open".into(),
            does,
            partitions: 4,
            closed: 1,
            left_about: None,
            since: OffsetDateTime::UNIX_EPOCH,
            ended_at: None,
            workers: BTreeMap::from([("a".into(), 2), ("b".into(), 1)]),
        }
    }

    fn routing(roller: Option<&str>, lines: Vec<Line>) -> Routing {
        Routing {
            broker: "//keylane".into(),
            wanted: 4,
            roller: roller.map(Into::into),
            workers: true,
            lines,
            now: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_one_whole_ring_without_a_roller_is_settled() {
        let current = |generation| vec![line(3, generation, Does::Current)];
        assert!(routing(None, current(2)).settled());
        assert!(!routing(Some("a"), current(2)).settled());
        assert!(!routing(None, current(0)).settled(), "held is no ring");
        assert!(!routing(None, vec![]).settled());
        let other = Routing { wanted: 5, ..routing(None, current(2)) };
        assert!(!other.settled());
        let drained = vec![line(2, 1, Does::Drained), line(3, 2, Does::Receives)];
        assert!(!routing(None, drained).settled());
    }

    #[test]
    fn what_is_left_without_workers_is_not_a_running_roll() {
        let drained = vec![line(2, 1, Does::Drained), line(3, 2, Does::Receives)];
        let running = routing(Some("a"), drained);
        assert!(running.rolling());
        let left = Routing { workers: false, ..running };
        assert!(!left.rolling());
        assert!(!left.settled());
        assert!(routing(None, vec![line(1, 0, Does::Current)]).rolling(), "held hands over");
        assert!(!routing(None, vec![line(1, 1, Does::Current)]).rolling());
    }

    #[test]
    fn progress_names_what_is_drained_by_whom_and_who_rolls() {
        let lines = vec![line(2, 1, Does::Drained), line(3, 2, Does::Receives)];
        let expected = "generation 1 is drained, 1 of 4 partitions closed (by a 2, b 1)";
        assert_eq!(stands(&routing(None, lines)), expected);
        let next = Line { turn: None, ..line(0, 2, Does::Prepared) };
        let lines = vec![line(2, 1, Does::Current), next];
        assert_eq!(stands(&routing(Some("a"), lines)), "a makes generation 2, 4 partitions");
        let held = vec![line(1, 0, Does::Drained), line(2, 1, Does::Receives)];
        assert!(stands(&routing(Some("a"), held)).ends_with("(by a 2, b 1); a rolls"));
        let current = vec![line(2, 1, Does::Current)];
        assert_eq!(stands(&routing(None, current)), "nobody has begun to roll yet");
    }

    #[test]
    fn a_number_that_no_ring_can_have_is_refused_with_the_reason() {
        for (text, why) in [
            ("0", "would take no write"),
            ("-3", "would take no write"),
            ("1001", "three digits"),
            ("many", "must be a number"),
            ("99999999999", "must be a number"),
        ] {
            let refused = partitions(text).unwrap_err().to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        assert_eq!(partitions("1000").unwrap(), 1000);
    }
}
