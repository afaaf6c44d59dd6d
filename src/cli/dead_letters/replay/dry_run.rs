//! `keylane dead-letters replay --dry-run`.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::report::Pages;
use crate::cli::output::Output;
use crate::operate::connect;
use crate::operate::dead_letters::Filter;
use crate::operate::replay::Counts;
use crate::operate::replay::dry_run::{DryRun, query};
use crate::postgres::catalogue;
use crate::settings::Settings;

/// Says what would become of each; the exit code is 0 if all would be resolved.
pub(super) async fn run(
    settings: &Settings,
    filter: &Filter,
    limit: Option<i64>,
    form: Output,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut rows = connect(&settings.database, Some(timeout_ms)).await?;
    // It is one statement from the first letter to the last.
    let mut letters = connect(&settings.database, None).await?;
    let entities = catalogue::load(&mut rows, &settings.entities)
        .await
        .context("read the entities' tables")?;
    let mut query = query(filter, limit);
    let mut dry_run = DryRun::new((settings, &entities), &mut rows, &mut letters, &mut query);
    let (mut pages, mut counts) = (Pages::new(form), Counts::default());
    loop {
        let lines = dry_run.next().await?;
        if lines.is_empty() {
            break;
        }
        for line in &lines {
            counts.add(line);
        }
        pages.print(out, &lines).context("write the results")?;
    }
    if counts.total == 0 {
        bail!("no dead letter matches; `keylane dead-letters list --state dead` shows them");
    }
    pages.end(out).context("write the results")?;
    let (total, resolved, dead) = (counts.total, counts.resolved, counts.dead);
    writeln!(
        stderr(),
        "nothing was changed; of {total} dead letters {resolved} would be resolved, {dead} dead \
         again, {} skipped, unless the table refuses: only the database can judge constraints and \
         triggers",
        counts.skipped
    )?;
    let well = counts.resolved == counts.total;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
