//! Looks at the line of turns: does something stand in it, and who serves what.

use time::{Duration, OffsetDateTime};

use super::Check;
use crate::operate::resize::stands;
use crate::operate::routing::{Line, Routing};

const TURNS: &str = "routing.turns";
const ROLL: &str = "routing.roll";
const SPREAD: &str = "routing.spread";

/// A turn that ended so long ago and is not closed is worth a look.
const DRAINED_MAX: Duration = Duration::minutes(10);

/// Every check of them; `None`: no worker was ever started.
pub(super) fn examine(routing: Option<&Routing>) -> Vec<Check> {
    let Some((routing, first)) = routing.and_then(|of| Some((of, of.first()?))) else {
        let remedy = "start a worker once: it makes the first ring";
        return vec![Check::warning(TURNS, "there is no ring yet", remedy)];
    };
    vec![turns(routing, first), roll(routing), spread(routing, first)]
}

fn turns(routing: &Routing, first: &Line) -> Check {
    let open = routing.lines.iter().filter(|line| line.is_open()).count();
    if open > 1 {
        let since = first.ended_at.map_or(Duration::ZERO, |ended| routing.now - ended);
        let found = format!("{}; {open} turns are open", stands(routing));
        if since < DRAINED_MAX {
            return Check::ok(TURNS, found);
        }
        let found = format!("{found}, the first of them since {}", ago(since));
        let remedy = "see with `keylane generations` whether less is left than before; if not, ask \
                      /readyz of the worker that has the partition (at three in the morning: a \
                      roll does not end)";
        return Check::warning(TURNS, found, remedy);
    }
    if first.generation == 0 {
        let found = format!("writes go through held since {}", ago(since(routing, first.since)));
        let remedy = "workers make a ring within seconds: if none does, read a worker's log";
        return Check::warning(TURNS, found, remedy);
    }
    let Line { generation, partitions, .. } = first;
    Check::ok(TURNS, format!("generation {generation} has the turn, {partitions} partitions"))
}

fn roll(routing: &Routing) -> Check {
    if let Some(worker) = &routing.roller {
        return Check::ok(ROLL, format!("{worker} rolls just now"));
    }
    let ring = routing.last().filter(|line| line.generation > 0);
    match ring {
        Some(ring) if ring.partitions != routing.wanted => {
            let (wanted, partitions) = (routing.wanted, ring.partitions);
            let found = format!("{wanted} partitions are wanted, not {partitions}; nobody rolls");
            Check::warning(ROLL, found, "start a worker, or read the log of one that runs")
        }
        _ => Check::ok(ROLL, "nobody rolls"),
    }
}

fn spread(routing: &Routing, first: &Line) -> Check {
    let claimed: i64 = first.workers.values().sum();
    let unclaimed = i64::from(first.partitions) - first.closed - claimed;
    let each = first.by().unwrap_or_else(|| "nobody has one".to_owned());
    let more = match unclaimed {
        ..=0 => String::new(),
        many => format!("; {many} not claimed yet: no write came"),
    };
    let found = format!("partitions of {} by worker: {each}{more}", name(first));
    if routing.workers {
        return Check::ok(SPREAD, found);
    }
    let found = format!("{found}; no worker is connected to the database");
    Check::warning(SPREAD, found, "start a worker")
}

fn name(line: &Line) -> String {
    if line.generation == 0 { "held".into() } else { format!("generation {}", line.generation) }
}

fn since(routing: &Routing, moment: OffsetDateTime) -> Duration {
    routing.now - moment
}

fn ago(duration: Duration) -> String {
    let (minutes, seconds) = (duration.whole_minutes(), duration.whole_seconds());
    if minutes > 1 { format!("{minutes} minutes") } else { format!("{seconds} seconds") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Status;
    use super::*;
    use crate::operate::routing::Does;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn line(turn: i64, generation: i32, does: Does, ended_minutes: i64) -> Line {
        Line {
            turn: Some(turn),
            generation,
            state: "open".into(),
            does,
            partitions: 4,
            closed: 0,
            left_about: None,
            since: NOW - Duration::minutes(30),
            ended_at: (ended_minutes > 0).then(|| NOW - Duration::minutes(ended_minutes)),
            workers: BTreeMap::from([("a".into(), 2), ("b".into(), 1)]),
        }
    }

    fn routing(lines: Vec<Line>) -> Routing {
        let broker = "//keylane".into();
        Routing { broker, wanted: 4, roller: None, workers: true, lines, now: NOW }
    }

    #[test]
    fn a_turn_that_is_not_closed_for_long_is_named_with_its_workers() {
        let drained = |minutes| {
            routing(vec![
                line(2, 1, Does::Drained, minutes),
                line(3, 0, Does::Waits, minutes),
                line(4, 2, Does::Receives, 0),
            ])
        };
        assert_eq!(examine(Some(&drained(2)))[0].status, Status::Ok);
        let check = examine(Some(&drained(12))).remove(0);
        assert_eq!(check.status, Status::Warning);
        assert_eq!(
            check.found,
            "generation 1 is drained, 0 of 4 partitions closed (by a 2, b 1); 3 turns are open, \
             the first of them since 12 minutes"
        );
    }

    #[test]
    fn a_ring_that_nobody_makes_is_a_warning() {
        let held = routing(vec![line(1, 0, Does::Current, 0)]);
        let check = examine(Some(&held)).remove(0);
        assert_eq!(check.found, "writes go through held since 30 minutes");
        let other = Routing { wanted: 9, ..routing(vec![line(2, 1, Does::Current, 0)]) };
        assert_eq!(examine(Some(&other))[1].status, Status::Warning);
        let rolls = Routing { roller: Some("a".into()), ..other };
        assert_eq!(examine(Some(&rolls))[1].found, "a rolls just now");
        assert_eq!(examine(None)[0].status, Status::Warning);
    }

    #[test]
    fn the_spread_counts_what_nobody_has_claimed_and_misses_workers() {
        let mut routing = routing(vec![line(2, 1, Does::Current, 0)]);
        let found = |routing: &Routing| examine(Some(routing)).remove(2);
        assert_eq!(
            found(&routing).found,
            "partitions of generation 1 by worker: a 2, b 1; 1 not claimed yet: no write came"
        );
        assert_eq!(found(&routing).status, Status::Ok);
        routing.workers = false;
        assert_eq!(found(&routing).status, Status::Warning);
    }
}
