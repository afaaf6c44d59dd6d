//! `keylane dead-letters`: what could not be applied.

pub mod filter;
pub mod list;
pub mod replay;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use time::OffsetDateTime;

use super::output;
use crate::operate::connect;
use crate::operate::dead_letters;
use crate::settings::Settings;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, the newest first
    List(list::Args),
    /// Show everything about one, as JSON
    Show {
        /// Its number, from the list
        #[arg(value_name = "ID")]
        id: i64,
    },
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
        Command::Replay(args) => Box::pin(replay::run(settings, *args, out)).await,
        Command::Show { id } => {
            let timeout_ms = settings.database.statement_timeout_ms.get();
            let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
            let found =
                dead_letters::show(&mut connection, id).await.context("read the dead letter")?;
            let Some(letter) = found else {
                bail!("no dead letter {id}; `keylane dead-letters list` shows what is there");
            };
            output::json(out, &letter)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A time for a table: to the second, in UTC.
pub fn moment(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = time.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}
