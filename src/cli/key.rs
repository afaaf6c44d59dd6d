//! `keylane key`: what is known of one business key.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;

use super::dead_letters::moment;
use super::output::{self, Cells, Output};
use crate::core::entity::Entity;
use crate::core::key::Key;
use crate::operate::connect;
use crate::operate::keys::{self, KeyReport, LedgerLine};
use crate::postgres::catalogue;
use crate::settings::Settings;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a key's row version, its last outcomes, and the dead letters that wait for somebody
    Show(Show),
}

/// What `key show` is given.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The entity, as the settings name it
    #[arg(value_name = "ENTITY")]
    entity: String,
    /// The business key, as it stands in the routing key (`a/b` is one of two parts)
    #[arg(value_name = "KEY")]
    key: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one of them.
pub async fn run(
    settings: &Settings,
    command: Command,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let Command::Show(Show { entity: name, key, output }) = command;
    let Some(configured) = settings.entities.get(&name) else {
        let known: Vec<&str> = settings.entities.keys().map(String::as_str).collect();
        bail!("no entity `{name}` in the settings; there are: {}", known.join(", "));
    };
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    // This one alone: the others' troubles are not asked for here.
    let asked = [(name.clone(), configured.clone())].into();
    let entities =
        catalogue::load(&mut connection, &asked).await.context("read the entity's table")?;
    let entity = entities.get(&name).with_context(|| format!("entity `{name}` was not loaded"))?;
    let key = parse(entity, &key)?;
    let report = keys::show(&mut connection, entity, &key).await.context("read the key")?;
    print(out, output, &report).context("write the key")?;
    Ok(ExitCode::SUCCESS)
}

fn parse(entity: &Entity, key: &str) -> anyhow::Result<Key> {
    Key::parse(entity, key)
        .map_err(|rejection| anyhow!("`{key}` is no key of {}: {}", entity.name, rejection.detail))
}

fn print(out: &mut dyn Write, output: Output, report: &KeyReport) -> std::io::Result<()> {
    match output {
        Output::Json => return output::json(out, report),
        Output::Ndjson => return output::json_line(out, report),
        Output::Table => {}
    }
    writeln!(out, "{} {}: {}", report.entity, output::printable(&report.key), row(report))?;
    writeln!(out)?;
    if report.outcomes.is_empty() {
        writeln!(out, "no outcomes remembered")?;
    } else {
        output::table(out, &report.outcomes)?;
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
