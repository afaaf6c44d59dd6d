//! `keylane key list`: the keys that stand still, and the busiest ones.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Context;

use crate::cli::dead_letters::moment;
use crate::cli::output::{self, Cells, Output};
use crate::core::partition::PartitionId;
use crate::operate::connect;
use crate::operate::standing::{self, HotKey, Page, Standing};
use crate::settings::Settings;

/// So much of a reason stands in a table; `key show` has all of it.
const WHY_CHARACTERS_MAX: usize = 80;

/// What `key list` is given.
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// Only those of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only those behind this one: the last of the page before
    #[arg(long, value_name = "ENTITY/KEY", value_parser = parse_after, conflicts_with = "hot")]
    after: Option<(String, String)>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Those that stand still, and why
    #[arg(long)]
    parked: bool,
    /// Those with the most writes in the last minutes
    #[arg(long)]
    hot: bool,
}

/// Reads and prints them.
pub async fn run(settings: &Settings, args: List, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let List { which, entity, after, limit, output } = args;
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    if which.hot {
        let found = standing::hot(&mut connection, entity.as_deref(), None, limit)
            .await
            .context("read the busiest keys")?;
        output::list(out, output, &found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let page = Page { entity, after, limit };
    let found =
        standing::list(&mut connection, &page).await.context("read the keys that stand still")?;
    output::list(out, output, &found)?;
    if i64::try_from(found.len()).is_ok_and(|length| length == limit)
        && let Some(last) = found.last()
    {
        let key = output::printable(&last.key);
        writeln!(stderr(), "there may be more: --after '{}/{key}'", last.entity)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_after(text: &str) -> Result<(String, String), String> {
    let (entity, key) = text.split_once('/').ok_or("must be an entity and a key: customer/C-1")?;
    Ok((entity.to_owned(), key.to_owned()))
}

impl Cells for Standing {
    const HEADINGS: &'static [&'static str] =
        &["ENTITY", "KEY", "RESTING", "WHY", "SINCE", "PARTITION", "WORKER"];

    fn cells(&self) -> Vec<String> {
        let lane = PartitionId { generation: self.generation, partition: self.partition };
        vec![
            self.entity.clone(),
            self.key.clone(),
            self.resting.to_string(),
            output::shortened(&self.why(), WHY_CHARACTERS_MAX),
            moment(self.since),
            lane.to_string(),
            self.worker.clone().unwrap_or_else(|| "-".into()),
        ]
    }
}

impl Cells for HotKey {
    const HEADINGS: &'static [&'static str] = &["ENTITY", "KEY", "WRITES AT MOST", "WORKERS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.entity.clone(),
            self.key.clone(),
            self.writes.to_string(),
            self.workers.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_behind_an_entity_and_a_key_of_several_parts() {
        assert_eq!(parse_after("order/a/b"), Ok(("order".into(), "a/b".into())));
        assert!(parse_after("order").is_err());
    }
}
