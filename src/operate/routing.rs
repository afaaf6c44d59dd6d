//! Reads the line of turns for people: which source is drained, how far, and by whom.
//!
//! Never: decides anything. How much is left is what the broker says, and it may say 0 for a queue
//! that is not empty.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::core::partition::PartitionId;
use crate::postgres::connect::WORKER;
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::probe::{self, Address};
use crate::settings::Amqp;

/// How writes are routed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// Virtual host and prefix that this database is for.
    pub broker: String,
    /// As many partitions as somebody wants.
    pub wanted: i32,
    /// The worker that sees to a roll just now.
    pub roller: Option<String>,
    /// Whether any worker is connected to the database.
    pub workers: bool,
    /// Turns in their order, then generations without one.
    pub lines: Vec<Line>,
    /// The database's time.
    pub now: OffsetDateTime,
}

/// A source of writes: a turn, or a generation that has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Line {
    /// Its place in the line; `null`: it has none yet, or never had one.
    pub turn: Option<i64>,
    /// 0: held.
    pub generation: i32,
    /// `planned`, `declared`, `open`, `closed` or `deleted`.
    pub state: String,
    /// What it is good for just now.
    #[sqlx(skip)]
    pub does: Does,
    pub partitions: i32,
    /// Partitions whose turn is over.
    pub closed: i64,
    /// Messages that wait in its queues, as far as the broker tells.
    #[sqlx(skip)]
    pub left_about: Option<u64>,
    /// In this state since then.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// New writes go elsewhere since then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Workers, and how many of its partitions that are not closed they have claimed.
    #[sqlx(json)]
    pub workers: BTreeMap<String, i64>,
}

/// What a source is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// It receives what is published, and is consumed.
    Current,
    /// It is consumed; new writes go elsewhere.
    Drained,
    /// It was ended, and something before it is drained.
    Waits,
    /// It receives what is published, and something before it is drained.
    Receives,
    /// A roll has planned it, or declared it.
    Prepared,
    /// Its turn is over, or never came.
    #[default]
    Over,
}

impl Does {
    /// The name in tables and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Drained => "drained",
            Self::Waits => "waits",
            Self::Receives => "receives",
            Self::Prepared => "prepared",
            Self::Over => "over",
        }
    }
}

impl Line {
    /// Its name: `held`, or the number of the generation.
    pub fn source(&self) -> String {
        if self.generation == 0 { "held".to_owned() } else { self.generation.to_string() }
    }

    /// Its workers with their partitions, for people; `None`: nobody has claimed one.
    pub fn by(&self) -> Option<String> {
        let each = self.workers.iter().map(|(worker, many)| format!("{worker} {many}"));
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| each.join(", "))
    }

    /// Whether its turn has come and is not over, or is still to come.
    pub const fn is_open(&self) -> bool {
        matches!(self.does, Does::Current | Does::Drained | Does::Waits | Does::Receives)
    }
}

impl Routing {
    /// The source that is consumed.
    pub fn first(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.is_open())
    }

    /// The source that receives what is published.
    pub fn last(&self) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.is_open())
    }

    /// The generation that the roll prepares.
    pub fn prepared(&self) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.does == Does::Prepared)
    }

    /// Workers roll, or drain something, or are about to take over from held. What is left of a
    /// roll while no worker is there is not running.
    pub fn rolling(&self) -> bool {
        let (first, last) = (self.first(), self.last());
        let unfinished = self.roller.is_some()
            || first.map(|line| line.turn) != last.map(|line| line.turn)
            || last.is_some_and(|line| line.generation == 0);
        self.workers && unfinished
    }

    /// Nothing is drained, and the ring has so many partitions.
    pub fn stood_at(&self, partitions: i32) -> bool {
        let (first, last) = (self.first(), self.last());
        first.map(|line| line.turn) == last.map(|line| line.turn)
            && last.is_some_and(|line| line.generation > 0 && line.partitions == partitions)
    }

    /// Nothing is drained, nobody rolls, and the ring has as many partitions as are wanted.
    pub fn settled(&self) -> bool {
        self.roller.is_none() && self.stood_at(self.wanted)
    }
}

/// The broker that these settings name, as the database knows it: virtual host and prefix.
pub fn broker(amqp: &Amqp) -> Option<String> {
    let address = Address::parse(&amqp.url)?;
    Some(format!("{}/{}", address.vhost, amqp.prefix))
}

/// Reads all of it; `None`: no worker was ever started on this database.
pub async fn read(connection: &mut PgConnection) -> Result<Option<Routing>, sqlx::Error> {
    const ROUTING: &str = "
        select broker, partitions,
               case when roller_until > clock_timestamp() then roller end,
               exists (select from pg_catalog.pg_stat_activity
                        where datname = current_database() and application_name = $1),
               clock_timestamp()
          from keylane.routing";
    let found: Option<(String, i32, Option<String>, bool, OffsetDateTime)> =
        sqlx::query_as(ROUTING).bind(WORKER).fetch_optional(&mut *connection).await?;
    let Some((broker, wanted, roller, workers, now)) = found else { return Ok(None) };
    let lines = lines(connection).await?;
    Ok(Some(Routing { broker, wanted, roller, workers, lines, now }))
}

async fn lines(connection: &mut PgConnection) -> Result<Vec<Line>, sqlx::Error> {
    const SQL: &str = "
        select t.turn, coalesce(g.generation, 0) as generation,
               coalesce(g.state, case when t.closed_at is null then 'open' else 'closed' end)
                   as state,
               coalesce(g.partitions, 1) as partitions,
               case when g.generation is null then (t.closed_at is not null)::integer::bigint
                    else p.closed end as closed,
               coalesce(g.state_changed_at, t.closed_at, t.began_at) as since, t.ended_at,
               case when g.generation is null and t.closed_at is not null then '{}'
                    else p.workers end as workers
          from keylane.turns t
          full join keylane.generations g on g.generation = t.generation
         cross join lateral (
               select coalesce(sum(closed), 0)::bigint as closed,
                      coalesce(jsonb_object_agg(owner, many) filter (where many > 0), '{}')
                          as workers
                 from (select owner, count(closed_at) as closed,
                              count(*) filter (where closed_at is null) as many
                         from keylane.partitions p
                        where p.generation = coalesce(g.generation, 0)
                          and (p.generation > 0 or p.partition = 0)
                        group by owner) each) p
         order by t.turn nulls last, generation";
    let mut lines: Vec<Line> = sqlx::query_as(SQL).fetch_all(connection).await?;
    place(&mut lines);
    Ok(lines)
}

/// Says what each is good for.
fn place(lines: &mut [Line]) {
    let is_open = |line: &Line| line.turn.is_some() && line.state == "open";
    let turns = |lines: &[Line]| -> Vec<i64> {
        lines.iter().filter(|line| is_open(line)).filter_map(|line| line.turn).collect()
    };
    let open = turns(lines);
    let (first, last) = (open.first().copied(), open.last().copied());
    for line in lines {
        line.does = match (is_open(line), line.turn == first, line.turn == last) {
            (true, true, true) => Does::Current,
            (true, true, false) => Does::Drained,
            (true, false, true) => Does::Receives,
            (true, false, false) => Does::Waits,
            (false, ..) if matches!(line.state.as_str(), "planned" | "declared") => Does::Prepared,
            (false, ..) => Does::Over,
        };
    }
}

/// Asks the broker how much waits in the queues of each source that may have some; returns what
/// waits in held, whether it has a turn or not.
pub async fn ask_what_is_left(
    connection: &Connection,
    prefix: &str,
    lines: &mut [Line],
) -> Result<u64, BrokerError> {
    let held = probe::ready(connection, &[PartitionId::HELD.queue(prefix)]).await?;
    for line in lines.iter_mut().filter(|line| line.state != "deleted") {
        line.left_about = match line.generation {
            // Turns of held that are over were in the same queue.
            0 => line.is_open().then_some(held),
            generation => {
                let queues = (0..line.partitions)
                    .map(|partition| PartitionId { generation, partition }.queue(prefix));
                Some(probe::ready(connection, &queues.collect::<Vec<_>>()).await?)
            }
        };
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::Does::{Current, Drained, Over, Prepared, Receives, Waits};
    use super::*;

    #[test]
    fn the_first_open_turn_is_consumed_and_the_last_one_receives() {
        let line = |turn: i64, generation: i32, state: &str| Line {
            turn: (turn > 0).then_some(turn),
            generation,
            state: state.into(),
            does: Does::default(),
            partitions: 1,
            closed: 0,
            left_about: None,
            since: OffsetDateTime::UNIX_EPOCH,
            ended_at: None,
            workers: BTreeMap::new(),
        };
        let placed = |lines: &[(i64, i32, &str)]| -> Vec<Does> {
            let mut lines: Vec<Line> =
                lines.iter().map(|(turn, of, state)| line(*turn, *of, state)).collect();
            place(&mut lines);
            lines.iter().map(|line| line.does).collect()
        };
        let long = [
            (1, 0, "closed"),
            (2, 1, "open"),
            (3, 0, "open"),
            (4, 2, "open"),
            (0, 3, "closed"),
            (0, 4, "declared"),
        ];
        assert_eq!(placed(&long), [Over, Drained, Waits, Receives, Over, Prepared]);
        assert_eq!(placed(&[(1, 0, "closed"), (2, 1, "open")]), [Over, Current]);
        assert_eq!(placed(&[(1, 0, "open"), (0, 1, "planned")]), [Current, Prepared]);
    }
}
