//! The line of turns: what a roll reads and writes, and what a marker closes.
//!
//! Owns: that a turn is added only behind the last one, under markers that nobody took back.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use crate::core::partition::PartitionId;
use crate::core::roll::{Passing, Source, Standing, Turn, pass};

/// What a worker sees of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The last turn; none: there never was one.
    pub last: Option<Turn>,
    /// How many turns are not closed.
    pub open: i64,
    /// Partitions of the last turn's ring; 1 for held.
    pub partitions: i32,
    /// Partitions that somebody wants.
    pub wanted: i32,
    /// The newest generation.
    pub newest: i32,
    /// An operator has given the last turn's ring up.
    pub abandoned: bool,
}

/// Reads the line.
pub async fn line(pool: &PgPool) -> Result<Line, sqlx::Error> {
    const SQL: &str = "
        select r.partitions as wanted, t.turn, t.generation, t.marker,
               t.ended_at is not null as ended, coalesce(g.partitions, 1) as partitions,
               coalesce(r.abandoned = t.generation, false) as abandoned,
               (select count(*) from keylane.turns where closed_at is null) as open,
               coalesce((select max(generation) from keylane.turns), 0) as newest
          from keylane.routing r
          left join (select * from keylane.turns order by turn desc limit 1) t on true
          left join keylane.generations g using (generation)";
    let row = sqlx::query(SQL).fetch_one(pool).await?;
    let last = match row.try_get::<Option<i64>, _>("turn")? {
        None => None,
        Some(number) => Some(Turn {
            number,
            source: Source::from_generation(row.try_get("generation")?),
            marker: row.try_get("marker")?,
            ended: row.try_get("ended")?,
        }),
    };
    Ok(Line {
        last,
        open: row.try_get("open")?,
        partitions: row.try_get("partitions")?,
        wanted: row.try_get("wanted")?,
        newest: row.try_get("newest")?,
        abandoned: row.try_get("abandoned")?,
    })
}

/// A ring whose queues are to be consumed.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Consumed {
    pub generation: i32,
    pub partitions: i32,
    /// How long it has been since a turn ended and the next one's came.
    pub since_ms: i64,
}

/// The rings whose queues are to be consumed: the one whose turn it is, and those whose turn is
/// over, for what comes late. One whose turn has not come is left alone.
pub async fn consumed(pool: &PgPool) -> Result<Vec<Consumed>, sqlx::Error> {
    const SQL: &str = "
        select g.generation, g.partitions,
               (extract(epoch from clock_timestamp()
                  - (select coalesce(max(closed_at), min(began_at)) from keylane.turns))
                * 1000)::bigint as since_ms
          from keylane.generations g
         where g.state in ('open', 'closed')
           and not exists (select from keylane.turns t
                            where t.generation = g.generation and t.closed_at is null
                              and t.turn > (select min(turn) from keylane.turns
                                             where closed_at is null))
         order by 1";
    sqlx::query_as(SQL).fetch_all(pool).await
}

/// Notes which markers are to end a turn; false: it has ended already.
pub async fn intend(pool: &PgPool, turn: i64, marker: Uuid) -> Result<bool, sqlx::Error> {
    const SQL: &str = "update keylane.turns set marker = $2 where turn = $1 and ended_at is null";
    let done = sqlx::query(SQL).bind(turn).bind(marker).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}

/// Adds the first turn of all: held has it.
pub async fn begin(pool: &PgPool) -> Result<bool, sqlx::Error> {
    const SQL: &str = "
        insert into keylane.turns (turn, generation) values (1, 0) on conflict do nothing";
    Ok(sqlx::query(SQL).execute(pool).await?.rows_affected() == 1)
}

/// Ends `turn` at its markers, and adds the next: the one point of no return of a roll.
///
/// False: the markers were taken back, the next ring was given up, or somebody else was first.
/// `gone` are partitions of the turn whose queues are not there any more: nothing ends them but
/// this.
pub async fn end(
    pool: &PgPool,
    turn: &Turn,
    marker: Uuid,
    next: Source,
    gone: &[PartitionId],
) -> Result<bool, sqlx::Error> {
    const END: &str = "
        update keylane.turns set ended_at = clock_timestamp()
         where turn = $1 and marker = $2 and ended_at is null";
    const OPEN: &str = "
        update keylane.generations set state = 'open', state_changed_at = clock_timestamp()
         where generation = $1 and state = 'declared'";
    const ADD: &str = "
        insert into keylane.turns (turn, generation) values ($1, $2) on conflict do nothing";
    const GONE: &str = "
        insert into keylane.partitions as p
               (generation, partition, epoch, owner, backend_pid, backend_start, closed_at)
        values ($1, $2, 1, 'nobody', 0, clock_timestamp(), clock_timestamp())
        on conflict (generation, partition) do update
           set epoch = p.epoch + 1, owner = excluded.owner, closed_at = clock_timestamp()
         where p.closed_at is null";
    let mut tx = pool.begin().await?;
    let ended = sqlx::query(END).bind(turn.number).bind(marker).execute(&mut *tx).await?;
    let mut done = ended.rows_affected() == 1;
    if let (true, Source::Ring(generation)) = (done, next) {
        let opened = sqlx::query(OPEN).bind(generation).execute(&mut *tx).await?;
        done = opened.rows_affected() == 1;
    }
    if done {
        let added = sqlx::query(ADD).bind(turn.number + 1).bind(next.generation());
        done = added.execute(&mut *tx).await?.rows_affected() == 1;
    }
    if !done {
        tx.rollback().await?;
        return Ok(false);
    }
    for id in gone {
        sqlx::query(GONE).bind(id.generation).bind(id.partition).execute(&mut *tx).await?;
    }
    if !gone.is_empty() {
        close_if_complete(&mut tx, turn).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Judges the marker at a lane's head and carries the judgement out, in the transaction that holds
/// the lane's fence.
pub(super) async fn pass_marker(
    connection: &mut PgConnection,
    partition: PartitionId,
    marker: Uuid,
    standing: Standing,
    waited: Duration,
) -> Result<Passing, sqlx::Error> {
    // Locked: the last two partitions of a ring must not overlook each other.
    const TURN: &str = "
        select turn, marker, ended_at is not null as ended from keylane.turns
         where generation = $1 and closed_at is null order by turn limit 1 for update";
    const CLOSE: &str = "
        update keylane.partitions set closed_at = clock_timestamp()
         where generation = $1 and partition = $2";
    const WITHDRAW: &str = "update keylane.turns set marker = null where turn = $1";
    const FAREWELL: &str = "
        update keylane.partitions p
           set emptied_at = clock_timestamp(), closed_at = coalesce(closed_at, clock_timestamp())
          from keylane.generations g
         where p.generation = $1 and p.partition = $2 and g.generation = p.generation
           and g.farewell = $3";
    let Some(source) = Source::of(partition) else { return Ok(Passing::Skip) };
    let row = sqlx::query(TURN).bind(partition.generation).fetch_optional(&mut *connection).await?;
    let turn = match row {
        None => None,
        Some(row) => Some(Turn {
            number: row.try_get("turn")?,
            source,
            marker: row.try_get("marker")?,
            ended: row.try_get("ended")?,
        }),
    };
    let passing = pass(marker, turn.as_ref(), standing, waited);
    match (passing, &turn) {
        (Passing::Close, Some(turn)) => {
            if source != Source::Held {
                let close = sqlx::query(CLOSE).bind(partition.generation).bind(partition.partition);
                close.execute(&mut *connection).await?;
            }
            close_if_complete(connection, turn).await?;
        }
        (Passing::Withdraw, Some(turn)) => {
            sqlx::query(WITHDRAW).bind(turn.number).execute(connection).await?;
        }
        (Passing::Skip, _) if standing == Standing::Over => {
            let farewell = sqlx::query(FAREWELL).bind(partition.generation);
            farewell.bind(partition.partition).bind(marker).execute(connection).await?;
        }
        (Passing::Close | Passing::Withdraw | Passing::Wait | Passing::Skip, _) => {}
    }
    Ok(passing)
}

/// Closes a turn when the last of its partitions is. The turn's row is locked.
async fn close_if_complete(connection: &mut PgConnection, turn: &Turn) -> Result<(), sqlx::Error> {
    const TURN: &str = "
        update keylane.turns t set closed_at = clock_timestamp()
         where t.turn = $1
           and (t.generation = 0 or not exists (
                select from keylane.generations g
                 cross join generate_series(0, g.partitions - 1) as n (partition)
                  left join keylane.partitions p
                         on p.generation = g.generation and p.partition = n.partition
                 where g.generation = t.generation and p.closed_at is null))
        returning t.generation";
    const GENERATION: &str = "
        update keylane.generations set state = 'closed', state_changed_at = clock_timestamp()
         where generation = $1";
    let closed: Option<i32> =
        sqlx::query_scalar(TURN).bind(turn.number).fetch_optional(&mut *connection).await?;
    if let Some(generation) = closed {
        sqlx::query(GENERATION).bind(generation).execute(connection).await?;
    }
    Ok(())
}
