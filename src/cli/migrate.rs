//! `keylane migrate`: brings the tables of schema `keylane` up to date.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use crate::operate::connect;
use crate::postgres::migrate::migrate;
use crate::settings::Settings;

/// Applies what is missing and says what that was.
pub async fn run(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // No bound on a statement: a migration may take as long as it needs.
    let mut connection = connect(&settings.database, None).await?;
    let applied = migrate(&mut connection).await.context("apply migrations")?;
    for (version, description) in &applied.migrations {
        writeln!(out, "applied {version} {description}")?;
    }
    if applied.migrations.is_empty() {
        writeln!(out, "nothing to do, the database is at version {}", applied.version)?;
    }
    Ok(ExitCode::SUCCESS)
}
