//! `keylane key show`: what is known of one business key.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::Named;
use crate::cli::dead_letters::moment;
use crate::cli::output::{self, Cells, Output};
use crate::core::partition::PartitionId;
use crate::operate::keys::{self, InLine, KeyReport, LedgerLine};
use crate::settings::Settings;

/// What `key show` is given.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    named: Named,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Reads and prints it.
pub async fn run(settings: &Settings, args: Show, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Show { named, output } = args;
    let (mut connection, entity, key) = named.find(settings).await?;
    let report = keys::show(&mut connection, &entity, &key).await.context("read the key")?;
    print(out, output, &report).context("write the key")?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut dyn Write, output: Output, report: &KeyReport) -> std::io::Result<()> {
    match output {
        Output::Json => return output::json(out, report),
        Output::Ndjson => return output::json_line(out, report),
        Output::Table => {}
    }
    writeln!(out, "{} {}: {}", report.entity, output::printable(&report.key), row(report))?;
    if let Some(standing) = &report.standing {
        let (why, since) = (output::printable(&standing.why()), moment(standing.since));
        writeln!(out, "stands still: {why}, since {since}, {} resting", standing.resting)?;
    }
    if let Some(lane) = &report.lane {
        let id = PartitionId { generation: lane.generation, partition: lane.partition };
        let worker = lane.worker.as_deref().unwrap_or("nobody");
        writeln!(out, "partition {id}, served by {}", output::printable(worker))?;
    }
    if let Some(writes) = report.hot {
        writeln!(out, "busy: at most {writes} writes in the last one to two minutes")?;
    }
    writeln!(out)?;
    if report.outcomes.is_empty() {
        writeln!(out, "no outcomes remembered")?;
    } else {
        output::table(out, &report.outcomes)?;
    }
    if !report.line.is_empty() {
        writeln!(out)?;
        writeln!(out, "the line, in order:")?;
        output::table(out, &report.line)?;
    }
    writeln!(out)?;
    if report.dead_letters.is_empty() {
        writeln!(out, "no open dead letters")
    } else {
        output::table(out, &report.dead_letters)
    }
}

fn row(report: &KeyReport) -> String {
    let Some(row) = &report.row else { return "no row".into() };
    let version = match row.version {
        Some(version) => format!("version {version}"),
        None => "there is a row".into(),
    };
    let occurred_at = row.occurred_at.map(|time| format!(", as of {}", moment(time)));
    let deleted_at = row.deleted_at.map(|time| format!(", deleted at {}", moment(time)));
    format!("{version}{}{}", occurred_at.unwrap_or_default(), deleted_at.unwrap_or_default())
}

impl Cells for LedgerLine {
    const HEADINGS: &'static [&'static str] =
        &["APPLIED AT", "WRITE ID", "OUTCOME", "EFFECT OR REASON", "VERSION"];

    fn cells(&self) -> Vec<String> {
        let why = self.effect.clone().or_else(|| self.reason.clone());
        vec![
            moment(self.applied_at),
            self.write_id.clone(),
            self.outcome.clone(),
            why.unwrap_or_else(|| "-".into()),
            self.version.map_or_else(|| "-".into(), |version| version.to_string()),
        ]
    }
}

impl Cells for InLine {
    const HEADINGS: &'static [&'static str] = &["ID", "STATE", "WRITE ID", "REASON", "DEAD AT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.state.clone(),
            self.write_id.clone().unwrap_or_else(|| "-".into()),
            self.reason.clone(),
            moment(self.dead_at),
        ]
    }
}
