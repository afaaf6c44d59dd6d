//! `keylane migrate`: brings the tables of schema `keylane` up to date.

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::operate::connect;
use crate::postgres::migrate::migrate;
use crate::settings::Settings;

/// Applies what is missing and says what that was.
pub async fn run(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // No bound on a statement: a migration may take as long as it needs.
    let mut connection = connect(&settings.database, None).await?;
    let applied = migrate(&mut connection).await.map_err(explained)?;
    for (version, description) in &applied.migrations {
        writeln!(out, "applied {version} {description}")?;
    }
    if applied.migrations.is_empty() {
        writeln!(out, "nothing to do, the database is at version {}", applied.version)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// With what a migration that refuses to run says is to be done.
fn explained(error: MigrateError) -> anyhow::Error {
    let MigrateError::ExecuteMigration(sqlx::Error::Database(refused), version) = &error else {
        return anyhow!(error).context("apply migrations");
    };
    let hint = refused.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    anyhow!("migration {version} is not applied, nothing was changed: {refused}{hint}")
}
