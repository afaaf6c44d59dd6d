//! Brings the tables of schema `keylane` to the state that this binary knows.
//!
//! Owns: which migrations there are, and where it is kept which were applied.
//! Never: touches a table of the user's.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use sqlx::migrate::{Migrate, MigrateError, Migrator};

/// Where it is kept what was applied: beside what it made, not in the user's schema.
const TABLE: &str = "keylane.migrations";

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Version and description of what was applied, in order; empty: there was nothing to do.
    pub migrations: Vec<(i64, String)>,
    /// The newest version that the database has now.
    pub version: i64,
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(TABLE);
    // Taken around everything in `migrate`, so that nobody reports what another one did.
    migrator.set_locking(false);
    migrator
}

/// Applies what is missing. Two at once wait for each other; a second run does nothing.
pub async fn migrate(connection: &mut PgConnection) -> Result<Applied, MigrateError> {
    connection.lock().await?;
    let run = run(connection).await;
    let unlocked = connection.unlock().await;
    let applied = run?;
    unlocked?;
    Ok(applied)
}

async fn run(connection: &mut PgConnection) -> Result<Applied, MigrateError> {
    const THERE: &str = "select to_regnamespace('keylane') is not null";
    let mut migrator = migrator();
    let there: bool = sqlx::query_scalar(THERE).fetch_one(&mut *connection).await?;
    if !there {
        // Even `if not exists` asks for a privilege on the database, which may be gone by the
        // second time.
        migrator.create_schema("keylane");
    }
    let before = applied(connection).await?;
    migrator.run_direct(None, connection, false).await?;
    let news = migrator.iter().filter(|migration| !before.contains(&migration.version));
    let migrations =
        news.map(|migration| (migration.version, migration.description.to_string())).collect();
    let version = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    Ok(Applied { migrations, version })
}

/// Whether this binary needs a migration that the database does not have: a worker then says
/// "run `keylane migrate`". A newer database is none of its business (expand, then contract).
pub async fn pending(connection: &mut PgConnection) -> Result<bool, MigrateError> {
    let applied = applied(connection).await?;
    Ok(migrator().iter().any(|migration| !applied.contains(&migration.version)))
}

async fn applied(connection: &mut PgConnection) -> Result<BTreeSet<i64>, MigrateError> {
    const THERE: &str = "select to_regclass('keylane.migrations') is not null";
    let there: bool = sqlx::query_scalar(THERE).fetch_one(&mut *connection).await?;
    if !there {
        return Ok(BTreeSet::new());
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    Ok(applied.into_iter().map(|migration| migration.version).collect())
}
