//! `keylane dead-letters list`: the newest first, a page at a time.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Context;

use super::filter::FilterArgs;
use super::{bounded, moment};
use crate::cli::output::{self, Cells, Output};
use crate::operate::dead_letters::{self, Page, Summary};
use crate::settings::Settings;

/// So much of a detail stands in a table; `show` has all of it.
const DETAIL_CHARACTERS_MAX: usize = 60;

/// What `dead-letters list` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those older than this one: the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints a page of the list.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Args { after, limit, output, filter } = args;
    let mut connection = bounded(settings).await?;
    let found = dead_letters::list(&mut connection, &filter.into(), Page { after, limit })
        .await
        .context("read the dead letters")?;
    output::list(out, output, &found)?;
    if i64::try_from(found.len()).is_ok_and(|length| length == limit)
        && let Some(last) = found.last()
    {
        writeln!(stderr(), "there may be more: --after {}", last.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Cells for Summary {
    const HEADINGS: &'static [&'static str] =
        &["ID", "STATE", "ENTITY", "KEY", "WRITE ID", "REASON", "DEAD AT", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            self.id.to_string(),
            self.state.clone(),
            text(&self.entity),
            text(&self.key),
            text(&self.write_id),
            self.reason.clone(),
            moment(self.dead_at),
            output::shortened(&text(&self.detail), DETAIL_CHARACTERS_MAX),
        ]
    }
}
