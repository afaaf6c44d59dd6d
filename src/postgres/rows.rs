//! The statements on a user's table, made once an entity, and the conversion of its rows.
//!
//! Owns: what is bound to them. Values travel as the texts that the core has checked; a byte a
//! column says what to do with each ([`Code`]). Their text is made in `rows_sql`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use time::OffsetDateTime;

use crate::core::batch::WantedRows;
use crate::core::entity::Entity;
use crate::core::failure::Failure;
use crate::core::key::Key;
use crate::core::row::{Image, Row, RowChange, Value};

use super::error::{Blame, failure};
use super::rows_sql::{Code, delete_sql, holders_sql, insert_sql, load_sql, update_sql};

/// The statements of one entity.
pub(super) struct Statements {
    entity: Arc<Entity>,
    load: Arc<str>,
    load_numbers: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    delete: Arc<str>,
}

impl Statements {
    pub(super) fn new(entity: Arc<Entity>) -> Self {
        let load = |numbers| Arc::from(load_sql(&entity, numbers));
        Self {
            load: load(false),
            load_numbers: load(true),
            insert: Arc::from(insert_sql(&entity)),
            update: Arc::from(update_sql(&entity)),
            delete: Arc::from(delete_sql(&entity)),
            entity,
        }
    }

    /// Whether they were made for this very description of the table.
    pub(super) fn are_of(&self, entity: &Arc<Entity>) -> bool {
        Arc::ptr_eq(&self.entity, entity)
    }

    /// Locks and reads the rows that are there, by routing key; without patience only those that
    /// nobody else holds.
    pub(super) async fn load(
        &self,
        connection: &mut PgConnection,
        wanted: &WantedRows,
        patient: bool,
    ) -> Result<HashMap<String, Row>, sqlx::Error> {
        let base = if wanted.numbers { &self.load_numbers } else { &self.load };
        let lock = if wanted.deletes { " for update of t" } else { " for no key update of t" };
        let skip = if patient { "" } else { " skip locked" };
        let keys: Vec<&Key> = wanted.keys.iter().collect();
        let mut query = sqlx::query(AssertSqlSafe(format!("{base}{lock}{skip}")));
        for part in 0..self.entity.key.len() {
            query = query.bind(key_part(&keys, part));
        }
        let mut rows = HashMap::with_capacity(keys.len());
        for found in query.fetch_all(connection).await? {
            let position: i64 = found.try_get(0)?;
            let key = usize::try_from(position - 1).ok().and_then(|position| keys.get(position));
            if let Some(key) = key {
                rows.insert(key.as_str().to_owned(), self.row(&found, wanted.numbers)?);
            }
        }
        Ok(rows)
    }

    /// Of the rows that are there and were not locked: who holds them, as far as the server tells.
    pub(super) async fn holders(
        &self,
        connection: &mut PgConnection,
        wanted: &WantedRows,
        loaded: &HashMap<String, Row>,
    ) -> Result<Vec<(String, String)>, sqlx::Error> {
        let missing = wanted.keys.iter().filter(|key| !loaded.contains_key(key.as_str()));
        let keys: Vec<&Key> = missing.collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = sqlx::query(AssertSqlSafe(holders_sql(&self.entity)));
        for part in 0..self.entity.key.len() {
            query = query.bind(key_part(&keys, part));
        }
        let mut holders = Vec::new();
        for found in query.fetch_all(connection).await? {
            let position: i64 = found.try_get(0)?;
            let key = usize::try_from(position - 1).ok().and_then(|position| keys.get(position));
            if let Some(key) = key {
                holders.push((key.as_str().to_owned(), found.try_get(1)?));
            }
        }
        Ok(holders)
    }

    pub(super) fn row(&self, found: &PgRow, numbers: bool) -> Result<Row, sqlx::Error> {
        let texts: Vec<Option<String>> = if numbers { found.try_get(4)? } else { Vec::new() };
        let columns = self.entity.columns.iter().enumerate();
        let positions =
            columns.filter(|(_, column)| column.kind.is_number()).map(|(index, _)| index);
        Ok(Row {
            version: found.try_get(1)?,
            occurred_at: found.try_get(2)?,
            deleted: found.try_get(3)?,
            numbers: positions.zip(texts).collect(),
        })
    }

    /// Writes one round of changes; returns how many rows it wrote and how many it should have.
    pub(super) async fn write<'a>(
        &self,
        connection: &mut PgConnection,
        changes: impl Iterator<Item = (&'a Key, &'a RowChange)> + Clone,
    ) -> Result<(u64, u64), Failure> {
        let refused = |blame| move |error: sqlx::Error| failure(&error, blame);
        let deletes: BTreeSet<&Key> = changes
            .clone()
            .filter(|(_, change)| matches!(change, RowChange::Delete | RowChange::Recreate(_)))
            .map(|(key, _)| key)
            .collect();
        let updates = changes.clone().filter_map(|(key, change)| match change {
            RowChange::Update(image) => Some((key, image)),
            RowChange::Insert(_) | RowChange::Delete | RowChange::Recreate(_) => None,
        });
        let inserts = changes.filter_map(|(key, change)| match change {
            RowChange::Insert(image) | RowChange::Recreate(image) => Some((key, image)),
            RowChange::Update(_) | RowChange::Delete => None,
        });
        let mut count = (0, 0);
        let mut add = |(written, planned)| count = (count.0 + written, count.1 + planned);
        let rows = self.delete_rows(connection, &deletes).await;
        add(rows.map_err(refused(Blame::ADelete))?);
        let rows = self.put(connection, &self.update, updates.collect(), Code::Keep).await;
        add(rows.map_err(refused(Blame::AWrite))?);
        let rows = self.put(connection, &self.insert, inserts.collect(), Code::Default).await;
        add(rows.map_err(refused(Blame::AWrite))?);
        Ok(count)
    }

    async fn delete_rows(
        &self,
        connection: &mut PgConnection,
        keys: &BTreeSet<&Key>,
    ) -> Result<(u64, u64), sqlx::Error> {
        if keys.is_empty() {
            return Ok((0, 0));
        }
        let keys: Vec<&Key> = keys.iter().copied().collect();
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.delete)));
        for part in 0..self.entity.key.len() {
            query = query.bind(key_part(&keys, part));
        }
        let done = query.execute(connection).await?;
        Ok((done.rows_affected(), count(keys.len())))
    }

    /// `rest` is the code of columns that an image neither names nor resets.
    async fn put(
        &self,
        connection: &mut PgConnection,
        sql: &Arc<str>,
        images: Vec<(&Key, &Image)>,
        rest: Code,
    ) -> Result<(u64, u64), sqlx::Error> {
        if images.is_empty() {
            return Ok((0, 0));
        }
        let keys: Vec<&Key> = images.iter().map(|(key, _)| *key).collect();
        let images: Vec<&Image> = images.iter().map(|(_, image)| *image).collect();
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(sql)));
        for part in 0..self.entity.key.len() {
            query = query.bind(key_part(&keys, part));
        }
        for column in 0..self.entity.columns.len() {
            let texts: Vec<Option<&str>> = images.iter().map(|image| text(image, column)).collect();
            query = query.bind(texts);
        }
        let columns = self.entity.columns.len();
        let codes: Vec<Vec<u8>> = images.iter().map(|image| codes(image, columns, rest)).collect();
        query = query.bind(codes);
        query = query.bind(images.iter().map(|image| image.version).collect::<Vec<i64>>());
        let occurred_at = images.iter().map(|image| image.occurred_at);
        query = query.bind(occurred_at.collect::<Vec<Option<OffsetDateTime>>>());
        let deleted_at = images.iter().map(|image| image.deleted_at);
        query = query.bind(deleted_at.collect::<Vec<Option<OffsetDateTime>>>());
        let done = query.execute(connection).await?;
        Ok((done.rows_affected(), count(keys.len())))
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

pub(super) fn key_part<'a>(keys: &[&'a Key], part: usize) -> Vec<Option<&'a str>> {
    keys.iter().map(|key| key.parts().get(part).map(String::as_str)).collect()
}

fn text(image: &Image, column: usize) -> Option<&str> {
    match image.named.get(&column)? {
        Value::Set(text) => text.as_deref(),
        Value::Add(delta) => Some(delta),
    }
}

fn codes(image: &Image, columns: usize, rest: Code) -> Vec<u8> {
    let defaults = image.reset || matches!(rest, Code::Default);
    let code = |column| match image.named.get(&column) {
        Some(Value::Set(_)) => Code::Set,
        Some(Value::Add(_)) if defaults => Code::AddToDefault,
        Some(Value::Add(_)) => Code::Add,
        None if defaults => Code::Default,
        None => Code::Keep,
    };
    (0..columns).map(|column| code(column) as u8).collect()
}
