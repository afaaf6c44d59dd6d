//! Gives dead letters out, one after the other.

use std::io;

use futures_util::TryStreamExt;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::Filter;
use super::letter::{Body, COLUMNS, DeadLetter};
use super::line::{Line, RevisionLine};
use super::show::StoredRevision;

/// A dead letter and one of its revisions, if it has any.
#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    letter: DeadLetter,
    old_revision: Option<i32>,
    old_properties: Option<Json<serde_json::Value>>,
    old_body: Option<Vec<u8>>,
    replaced_at: Option<OffsetDateTime>,
    replaced_by: Option<String>,
    replaced_why: Option<String>,
}

impl Row {
    fn split(self) -> (DeadLetter, Option<RevisionLine>) {
        let revision = (|| {
            Some(StoredRevision {
                revision: self.old_revision?,
                properties: self.old_properties?,
                body: Body(self.old_body?),
                replaced_at: self.replaced_at?,
                replaced_by: self.replaced_by?,
                reason: self.replaced_why?,
            })
        })();
        (self.letter, revision.map(RevisionLine::from))
    }
}

/// Hands each dead letter that matches to `each`, the oldest first, as of one moment; returns how
/// many. No more than one is held at a time.
pub async fn export(
    connection: &mut PgConnection,
    filter: &Filter,
    mut each: impl FnMut(&Line) -> io::Result<()>,
) -> anyhow::Result<u64> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new("select ");
    query.push(COLUMNS);
    query.push(
        ", r.revision as old_revision, r.properties as old_properties, r.body as old_body,
           r.replaced_at, r.replaced_by, r.reason as replaced_why
         from keylane.dead_letters d
         left join keylane.dead_letter_revisions r on r.dead_letter = d.id
        where true",
    );
    filter.append(&mut query);
    query.push(" order by d.id, r.revision");
    let mut rows = query.build_query_as::<Row>().fetch(connection);
    let (mut count, mut open): (u64, Option<Line>) = (0, None);
    while let Some(row) = rows.try_next().await? {
        let (letter, revision) = row.split();
        if open.as_ref().is_none_or(|line| line.id != letter.id) {
            if let Some(done) = open.replace(letter.into()) {
                each(&done)?;
            }
            count += 1;
        }
        if let Some(line) = &mut open {
            line.revisions.extend(revision);
        }
    }
    if let Some(last) = open {
        each(&last)?;
    }
    Ok(count)
}
