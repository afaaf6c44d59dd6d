//! `keylane dead-letters`: what could not be applied.

pub mod change;
pub mod edit;
pub mod editor;
pub mod export;
pub mod filter;
pub mod import;
pub mod list;
pub mod replay;
pub mod show;
pub mod stats;

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::operate::connect;
use crate::operate::dead_letters::change::Change;
use crate::settings::Settings;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, the newest first
    List(list::Args),
    /// Show everything about one: message, fault, row, what waits behind it
    Show(show::Args),
    /// Count them by entity, reason and state
    Stats(stats::Args),
    /// Close dead letters for good; `restore` takes it back
    Discard(change::Args),
    /// Take back a discard
    Restore(change::Args),
    /// Change what a dead letter asks for; its identity stays
    Edit(edit::Args),
    /// Write dead letters as newline-delimited JSON, the oldest first
    Export(export::Args),
    /// Take in what `export` wrote: all of it, or nothing
    Import(import::Args),
    /// Try dead letters again, each in the order of its key
    Replay(Box<replay::Args>),
}

/// Runs one of them.
pub async fn run(
    settings: &Settings,
    command: Command,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list::run(settings, args, out).await,
        Command::Show(args) => show::run(settings, &args, out).await,
        Command::Stats(args) => stats::run(settings, args, out).await,
        Command::Discard(args) => change::run(settings, Change::Discard, args, out).await,
        Command::Restore(args) => change::run(settings, Change::Restore, args, out).await,
        Command::Edit(args) => edit::run(settings, args, out).await,
        Command::Export(args) => export::run(settings, args, out).await,
        Command::Import(args) => import::run(settings, args).await,
        Command::Replay(args) => Box::pin(replay::run(settings, *args, out)).await,
    }
}

/// A connection whose statements end in time.
async fn bounded(settings: &Settings) -> anyhow::Result<PgConnection> {
    let timeout_ms = settings.database.statement_timeout_ms.get();
    connect(&settings.database, Some(timeout_ms)).await
}

/// There is no dead letter with this number.
fn unknown(id: i64) -> anyhow::Error {
    anyhow!("no dead letter {id}; `keylane dead-letters list` shows what is there")
}

/// A time for a table: to the second, in UTC.
pub fn moment(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = time.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}
