//! Takes exported dead letters in, all of a file or nothing.
//!
//! Owns: that a letter keeps its number where that is free, and is never taken in twice.

use std::io::{self, BufRead, Read, Seek};

use anyhow::{Context, bail};
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, PgTransaction, Row};

use super::IN_LINE;
use super::letter::{DeadLetter, bytes};
use super::line::Line;
use super::show::StoredRevision;
use crate::operate::actions::{self, Action};
use crate::operate::actor::Actor;

/// The longest line: the largest message of a broker in hexadecimal, and revisions.
const LINE_BYTES_MAX: u64 = 1 << 30;
/// Lines that are named when a file is refused; the others are counted.
const BAD_LINES_NAMED_MAX: usize = 10;
/// A worker that takes the same number at the same time makes one try in vain.
const TRIES_MAX: usize = 3;

/// What a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    pub letters: u64,
    /// The largest number among them.
    pub id_max: i64,
}

/// What became of its dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    pub imported: u64,
    /// Were there already.
    pub skipped: u64,
    /// Of the imported ones: got another number, because theirs was taken.
    pub renumbered: u64,
}

/// Reads the file through; an error names the lines that are no dead letters.
pub fn check(file: &mut (impl BufRead + Seek)) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let (mut bad, mut named): (u64, Vec<String>) = (0, Vec::new());
    each_line(file, |number, line| {
        match Line::parse(line) {
            Ok((letter, _)) => {
                checked.letters += 1;
                checked.id_max = checked.id_max.max(letter.id);
            }
            Err(why) => {
                bad += 1;
                if named.len() < BAD_LINES_NAMED_MAX {
                    named.push(format!("line {number}: {why}"));
                }
            }
        }
        Ok(())
    })?;
    if bad > 0 {
        bail!(
            "not what `dead-letters export` writes, in {bad} of its lines; nothing was imported\n{}",
            named.join("\n")
        );
    }
    Ok(checked)
}

/// Calls `each` with the number and the text of each line that is not empty.
fn each_line(
    file: &mut (impl BufRead + Seek),
    mut each: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    file.rewind().context("read the file from its beginning")?;
    let mut lines = Lines::new(file);
    while let Some(number) = lines.advance()? {
        each(number, &lines.text)?;
    }
    Ok(())
}

/// The lines of a file, one at a time.
struct Lines<'a, File> {
    file: &'a mut File,
    number: u64,
    text: Vec<u8>,
}

impl<'a, File: BufRead> Lines<'a, File> {
    const fn new(file: &'a mut File) -> Self {
        Self { file, number: 0, text: Vec::new() }
    }

    /// Reads the next line that is not empty; its number.
    fn advance(&mut self) -> io::Result<Option<u64>> {
        loop {
            self.text.clear();
            let read = self.file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.text.truncate(self.text.trim_ascii_end().len());
            if !self.text.is_empty() {
                return Ok(Some(self.number));
            }
        }
    }
}

/// Imports a file that was checked, in one transaction; `name` is for the audit.
pub async fn import(
    connection: &mut PgConnection,
    file: &mut (impl BufRead + Seek),
    checked: Checked,
    (actor, name): (&Actor, &str),
) -> anyhow::Result<Imported> {
    if checked.letters > 0 {
        reserve(connection, checked.id_max).await.context("reserve the numbers of the file")?;
    }
    file.rewind().context("read the file from its beginning")?;
    let mut tx = connection.begin().await?;
    let mut imported = Imported::default();
    let mut lines = Lines::new(file);
    while let Some(number) = lines.advance().context("read the file")? {
        let place = || format!("line {number} (nothing was imported)");
        let (letter, revisions) =
            Line::parse(&lines.text).map_err(anyhow::Error::msg).with_context(place)?;
        if letter.id > checked.id_max {
            bail!("the file changed while it was read; nothing was imported");
        }
        match insert(&mut tx, &letter).await.with_context(place)? {
            None => imported.skipped += 1,
            Some(id) => {
                imported.imported += 1;
                imported.renumbered += u64::from(id != letter.id);
                insert_revisions(&mut tx, id, &revisions).await.with_context(place)?;
            }
        }
    }
    park(&mut tx).await.context("note which keys stand still")?;
    let action = Action {
        actor: actor.name(),
        action: "import",
        target: "dead letters",
        reason: None,
        filter: Some(json!({ "file": name })),
        count: i64::try_from(imported.imported)?,
        result: &format!("{} imported, {} there already", imported.imported, imported.skipped),
    };
    actions::note(&mut tx, &action).await.context("note the action")?;
    tx.commit().await?;
    Ok(imported)
}

/// Moves the sequence behind the numbers of the file. The lock waits for those who took a number
/// and have not committed, so that no worker's dead letter meets a number of the file.
async fn reserve(connection: &mut PgConnection, id_max: i64) -> Result<(), sqlx::Error> {
    const BEHIND: &str = "
        select setval(pg_get_serial_sequence('keylane.dead_letters', 'id'), $1)
          from keylane.dead_letters_id_seq
         where last_value < $1 or not is_called";
    let mut tx = connection.begin().await?;
    sqlx::query("lock table keylane.dead_letters in share row exclusive mode")
        .execute(&mut *tx)
        .await?;
    sqlx::query(BEHIND).bind(id_max).execute(&mut *tx).await?;
    tx.commit().await
}

/// Inserts a dead letter that is not there yet; its number.
async fn insert(
    tx: &mut PgTransaction<'_>,
    letter: &DeadLetter,
) -> Result<Option<i64>, anyhow::Error> {
    for _ in 0..TRIES_MAX {
        let row = try_insert(tx, letter).await?;
        let (id, there): (Option<i64>, bool) = (row.try_get("id")?, row.try_get("there")?);
        if there || id.is_some() {
            return Ok(id);
        }
    }
    bail!("somebody else imports the same dead letters; try again when that has ended");
}

/// "There already" is the same write, or the same death of the same message.
async fn try_insert(tx: &mut PgTransaction<'_>, letter: &DeadLetter) -> Result<PgRow, sqlx::Error> {
    const SQL: &str = "
        with there as (
            select d.id from keylane.dead_letters d
             where d.entity = $2 and d.key = $3 and d.write_id = $4 and d.fingerprint = $5
            union all
            select d.id from keylane.dead_letters d
             where d.id = $1 and d.reason = $6 and d.routing_key = $9 and d.dead_at = $15
            union all
            select d.id from keylane.dead_letters d
             where $2 is null and exists (select from keylane.dead_letters where id = $1)
               and d.entity is null and d.reason = $6
               and d.state in ('dead', 'parked', 'waiting', 'replaying')
               and d.dead_at = $15 and d.routing_key = $9),
        inserted as (
            insert into keylane.dead_letters
                   (id, entity, key, write_id, fingerprint, reason, detail, pointer, routing_key,
                    properties, body, generation, partition, attempts, dead_at, state,
                    state_changed_at, state_changed_by, note, stops, revision, result)
            overriding system value
            select case when exists (select from keylane.dead_letters where id = $1)
                        then nextval(pg_get_serial_sequence('keylane.dead_letters', 'id'))
                        else $1 end,
                   $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                   $19, $20, $21, $22
             where not exists (select from there)
            on conflict do nothing
            returning id)
        select (select id from inserted) as id, exists (select from there) as there";
    // What a replay asked for in another database, nobody asked for here.
    let state = if letter.state == "replaying" { "dead" } else { &letter.state };
    sqlx::query(SQL)
        .bind(letter.id)
        .bind(&letter.entity)
        .bind(&letter.key)
        .bind(&letter.write_id)
        .bind(letter.fingerprint.0.as_deref().and_then(bytes))
        .bind(&letter.reason)
        .bind(&letter.detail)
        .bind(&letter.pointer)
        .bind(&letter.routing_key)
        .bind(&letter.properties)
        .bind(&letter.body.0)
        .bind(letter.generation)
        .bind(letter.partition)
        .bind(letter.attempts)
        .bind(letter.dead_at)
        .bind(state)
        .bind(letter.state_changed_at)
        .bind(&letter.state_changed_by)
        .bind(&letter.note)
        .bind(letter.stops)
        .bind(letter.revision)
        .bind(&letter.result)
        .fetch_one(&mut **tx)
        .await
}

async fn insert_revisions(
    tx: &mut PgTransaction<'_>,
    id: i64,
    revisions: &[StoredRevision],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "
        insert into keylane.dead_letter_revisions
               (dead_letter, revision, properties, body, replaced_at, replaced_by, reason)
        values ($1, $2, $3, $4, $5, $6, $7)";
    for revision in revisions {
        sqlx::query(SQL)
            .bind(id)
            .bind(revision.revision)
            .bind(&revision.properties)
            .bind(&revision.body.0)
            .bind(revision.replaced_at)
            .bind(&revision.replaced_by)
            .bind(&revision.reason)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Keys of which something rests now stand still. They are due: their lane frees those that need
/// not, and a worker's housekeeping tells it to look.
async fn park(tx: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
    let sql = format!(
        "insert into keylane.parked_keys (entity, key, generation, partition, resting, due_at)
         select d.entity, d.key, (array_agg(d.generation order by d.id))[1],
                (array_agg(d.partition order by d.id))[1],
                count(*) filter (where d.state in ('parked', 'waiting')), clock_timestamp()
           from keylane.dead_letters d
          where d.entity is not null and d.key is not null and {IN_LINE}
            and exists (select from keylane.dead_letters own
                         where own.entity = d.entity and own.key = d.key
                           and own.xmin = pg_current_xact_id()::xid)
          group by d.entity, d.key
          order by d.entity, d.key
         on conflict (entity, key) do update set resting = excluded.resting, woken_at = null,
                due_at = case when parked_keys.paused then null else excluded.due_at end"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut **tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn a_file_with_bad_lines_is_refused_with_their_numbers() {
        let mut file = Cursor::new(b"\n{}\r\n\n[]".to_vec());
        let error = check(&mut file).unwrap_err().to_string();
        assert!(error.contains("in 2 of its lines"), "{error}");
        assert!(error.contains("\nline 2: ") && error.contains("\nline 4: "), "{error}");
        assert_eq!(check(&mut Cursor::new(b"\n \n".to_vec())).unwrap(), Checked::default());
    }
}
