//! Reads the user's tables into [`Entities`], or says what has to be mended first.
//!
//! Owns: the demands on a configured table, and the statement that would meet each.
//! Never: changes a table.

mod columns;
pub mod current;
mod fold;
mod keys;
mod queries;
mod table;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sqlx::postgres::types::Oid;
use sqlx::{Connection, PgConnection};
use tracing::debug;

use self::queries::{ColumnRow, IndexRow, TableRow};
use self::table::{Described, Table};
use self::types::Types;
use crate::core::entity::{Column, Entities, Entity};
use crate::settings::{EntitySettings, Fold, OnReject};

/// Why the configured entities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The catalogue could not be read; it may be later.
    #[error("read the catalogue")]
    Database(#[from] sqlx::Error),
    /// Somebody has to change the database or the settings.
    #[error("{}", lines(.0))]
    Entities(Vec<Trouble>),
}

/// What is wrong with an entity, and what would mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The entity's name in the settings.
    pub entity: String,
    /// What is wrong.
    pub problem: String,
    /// The statement to run, or the setting to change.
    pub remedy: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entity {}: {}; to mend it: {}", self.entity, self.problem, self.remedy)
    }
}

fn lines(troubles: &[Trouble]) -> String {
    troubles.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads every configured entity from the catalogue; all troubles at once.
pub async fn load(
    connection: &mut PgConnection,
    settings: &BTreeMap<String, EntitySettings>,
) -> Result<Entities, CatalogueError> {
    let found = Catalogue::read(connection, settings).await?;
    let mut troubles = table::shared(&found.tables);
    let mut entities = Entities::new();
    for row in &found.tables {
        let Some(settings) = settings.get(&row.entity) else { continue };
        let rest = (found.indexes.as_slice(), &found.types);
        let table = Table::new(row, settings, &found.columns, rest);
        let wrong = troubles_of(&table);
        if wrong.is_empty() {
            entities.insert(row.entity.clone(), Arc::new(entity(&table)));
        }
        troubles.extend(wrong);
    }
    if troubles.is_empty() { Ok(entities) } else { Err(CatalogueError::Entities(troubles)) }
}

/// What the catalogue says about all configured tables.
struct Catalogue {
    tables: Vec<TableRow>,
    columns: Vec<ColumnRow>,
    indexes: Vec<IndexRow>,
    types: Types,
}

impl Catalogue {
    async fn read(
        connection: &mut PgConnection,
        settings: &BTreeMap<String, EntitySettings>,
    ) -> Result<Self, sqlx::Error> {
        let mut tx = connection.begin().await?;
        sqlx::query("set local search_path = pg_catalog").execute(&mut *tx).await?;
        let tables = queries::tables(&mut tx, settings).await?;
        let oids: Vec<Oid> = tables.iter().filter_map(|table| table.oid).collect();
        let columns = queries::columns(&mut tx, &oids).await?;
        let indexes = queries::indexes(&mut tx, &oids).await?;
        let types: Vec<Oid> = columns.iter().map(|column| column.type_oid).collect();
        let types = Types::new(queries::types(&mut tx, &types).await?);
        // Nothing was changed but the search path, and that must not outlive this.
        tx.rollback().await?;
        Ok(Self { tables, columns, indexes, types })
    }
}

fn troubles_of(table: &Table<'_>) -> Vec<Trouble> {
    if let Some(missing) = table.missing() {
        return vec![missing];
    }
    let mut troubles = table.troubles();
    troubles.extend(columns::troubles(table));
    troubles.extend(keys::trouble(table));
    troubles
}

fn entity(table: &Table<'_>) -> Entity {
    let settings = table.settings;
    let (schema, name) = settings.schema_and_table();
    let key = settings.key.iter().filter_map(|name| table.column(name)).map(column).collect();
    let writable = table.columns.iter().filter(|column| table.is_writable(column));
    let mut columns: Vec<Column> = writable.map(column).collect();
    columns.sort_by(|one, other| one.name.cmp(&other.name));
    let obstacle = fold::obstacle(table);
    debug!(entity = table.row.entity, obstacle, fold = ?settings.fold, "Table read");
    let mut entity = Entity {
        name: table.row.entity.clone(),
        table: format!("{}.{}", quoted(schema), quoted(name)),
        key,
        columns,
        version: settings.version.clone(),
        occurred_at: settings.occurred_at.clone(),
        deleted_at: settings.deleted_at.clone(),
        fold: settings.fold == Fold::Always || obstacle.is_none(),
        user_triggers: table.row.has_triggers,
        parks: settings.on_reject == OnReject::Park,
    };
    // Also with `always`: a sum cannot be folded onto a default that only the database computes.
    entity.fold &= entity.has_constant_numbers();
    entity
}

fn column(described: &Described<'_>) -> Column {
    let Described { row, of } = described;
    Column {
        name: row.name.clone(),
        kind: of.kind.clone(),
        sql_type: of.sql_type.clone(),
        not_null: described.not_null(),
        default: row.default_sql.clone().or_else(|| of.default.clone()),
    }
}

/// A name as SQL, whatever characters are in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
