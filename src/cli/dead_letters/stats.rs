//! `keylane dead-letters stats`: how many, of what kind, since when.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::filter::FilterArgs;
use super::{bounded, moment};
use crate::cli::output::{self, Cells, Output};
use crate::operate::dead_letters::stats::{Group, stats};
use crate::settings::Settings;

/// What `dead-letters stats` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints a line for each entity, reason and state.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut connection = bounded(settings).await?;
    let groups =
        stats(&mut connection, &args.filter.into()).await.context("count the dead letters")?;
    output::list(out, args.output, &groups)?;
    Ok(ExitCode::SUCCESS)
}

impl Cells for Group {
    const HEADINGS: &'static [&'static str] =
        &["ENTITY", "REASON", "STATE", "COUNT", "KEYS", "FIRST AT", "LAST AT", "SAMPLE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.entity.clone().unwrap_or_else(|| "-".into()),
            self.reason.clone(),
            self.state.clone(),
            self.count.to_string(),
            self.keys.to_string(),
            moment(self.first_at),
            moment(self.last_at),
            self.sample.to_string(),
        ]
    }
}
