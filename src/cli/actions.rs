//! `keylane actions`: who did what.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use time::OffsetDateTime;

use super::dead_letters::filter::parse_time;
use super::dead_letters::moment;
use super::output::{self, Cells, Output};
use crate::operate::actions::{self, Asked, Noted};
use crate::operate::connect;
use crate::settings::Settings;

/// So much of a reason stands in a table; JSON has all of it.
const REASON_CHARACTERS_MAX: usize = 60;

/// What can be asked of the audit.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what operators did, the newest first
    List(List),
}

/// What `actions list` is given.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only what this one did
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this, for example `discard`
    #[arg(long)]
    action: Option<String>,
    /// Only since then: `2026-11-21T02:00:00Z`, or `30m`, `2h`, `7d` ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one of them.
pub async fn run(
    settings: &Settings,
    command: Command,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let Command::List(List { actor, action, since, limit, output }) = command;
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    let asked = Asked { actor, action, since, limit };
    let found = actions::list(&mut connection, &asked).await.context("read the audit")?;
    output::list(out, output, &found)?;
    Ok(ExitCode::SUCCESS)
}

impl Cells for Noted {
    const HEADINGS: &'static [&'static str] =
        &["ID", "ACTED AT", "ACTOR", "ACTION", "TARGET", "COUNT", "RESULT", "REASON"];

    fn cells(&self) -> Vec<String> {
        let reason = self.reason.as_deref().unwrap_or("-");
        vec![
            self.id.to_string(),
            moment(self.acted_at),
            self.actor.clone(),
            self.action.clone(),
            self.target.clone(),
            self.count.map_or_else(|| "-".into(), |count| count.to_string()),
            self.result.clone(),
            output::shortened(reason, REASON_CHARACTERS_MAX),
        ]
    }
}
