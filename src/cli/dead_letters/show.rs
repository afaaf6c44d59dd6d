//! `keylane dead-letters show ID`: all that helps to decide about one.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use super::{bounded, moment, unknown};
use crate::cli::output::{self, Output, printable};
use crate::core::pretty::pretty;
use crate::operate::dead_letters::row::CurrentRow;
use crate::operate::dead_letters::show::{Report, show};
use crate::operate::dead_letters::{DeadLetter, Encoding};
use crate::settings::Settings;

/// So much of a body that is no JSON is shown to people.
const BODY_CHARACTERS_MAX: usize = 2000;

/// What `dead-letters show` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its number, from the list
    #[arg(value_name = "ID")]
    id: i64,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Prints it.
pub async fn run(
    settings: &Settings,
    args: &Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let mut connection = bounded(settings).await?;
    let report = show(&mut connection, settings, args.id).await.context("read the dead letter")?;
    let report = report.ok_or_else(|| unknown(args.id))?;
    match args.output {
        Output::Json => output::json(out, &report)?,
        Output::Ndjson => output::json_line(out, &report)?,
        Output::Table => print(out, &report)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    print_letter(out, &report.letter)?;
    print_body(out, report)?;
    for revision in &report.revisions {
        let stored = &revision.stored;
        let (by, why) = (printable(&stored.replaced_by), printable(&stored.reason));
        let number = stored.revision.saturating_add(1);
        let at = moment(stored.replaced_at);
        writeln!(out, "\nrevision {number}, by {by} at {at}: {why}")?;
        for line in revision.changes.lines() {
            writeln!(out, "  {}", printable(&line))?;
        }
    }
    match &report.row {
        None => {}
        Some(CurrentRow::Absent) => writeln!(out, "\nrow now: there is none")?,
        Some(CurrentRow::Unknown(why)) => {
            writeln!(out, "\nrow now: not known: {}", printable(why))?;
        }
        Some(CurrentRow::Is(row)) => {
            writeln!(out, "\nrow now")?;
            indented(out, &pretty(&row.to_string()))?;
        }
    }
    if report.letter.entity_and_key().is_none() {
        return Ok(());
    }
    writeln!(out, "\nwrites of its key that wait behind it: {}", report.behind.count)?;
    if !report.behind.first.is_empty() {
        output::table(out, &report.behind.first)?;
    }
    let applied = match report.applied_since {
        None => "unknown (the ledger is too large to count them)".to_owned(),
        Some(0) => "none".to_owned(),
        Some(count) => format!("{count}; a replay comes after them"),
    };
    writeln!(out, "writes of its key that were applied since: {applied}")
}

fn print_letter(out: &mut dyn Write, letter: &DeadLetter) -> io::Result<()> {
    let stops = if letter.stops { ", its key stands still behind it" } else { "" };
    let since = moment(letter.dead_at);
    writeln!(out, "dead letter {}: {} since {since}{stops}", letter.id, letter.state)?;
    let changed = letter.state_changed_at.map(|at| {
        let by = letter.state_changed_by.as_deref().unwrap_or("nobody");
        format!("{} by {by}", moment(at))
    });
    let result = letter.result.as_ref().map(|result| result.0.to_string());
    let queue = format!("{}.{:03}", letter.generation, letter.partition);
    let attempts = letter.attempts.to_string();
    let fields = [
        ("entity", letter.entity.as_deref()),
        ("key", letter.key.as_deref()),
        ("routing key", Some(letter.routing_key.as_str())),
        ("write id", letter.write_id.as_deref()),
        ("reason", Some(letter.reason.as_str())),
        ("pointer", letter.pointer.as_deref()),
        ("detail", letter.detail.as_deref()),
        ("attempts", Some(attempts.as_str())),
        ("partition", Some(queue.as_str())),
        ("state changed", changed.as_deref()),
        ("note", letter.note.as_deref()),
        ("result", result.as_deref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            writeln!(out, "  {name:<14}{}", printable(value))?;
        }
    }
    writeln!(out, "\nproperties")?;
    let Value::Object(properties) = &letter.properties.0 else { return Ok(()) };
    let headers = properties.get("headers").and_then(Value::as_object);
    let headers =
        headers.into_iter().flatten().map(|(name, value)| (format!("header {name}"), value));
    let plain = properties.iter().filter(|(name, _)| *name != "headers");
    for (name, value) in plain.map(|(name, value)| (name.clone(), value)).chain(headers) {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        writeln!(out, "  {}: {}", printable(&name), printable(&value))?;
    }
    Ok(())
}

fn print_body(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let bytes = report.letter.body.0.len();
    if let Some(json) = &report.json {
        writeln!(out, "\nbody ({bytes} bytes, JSON)")?;
        return indented(out, &pretty(json.get()));
    }
    let (encoding, body) = report.letter.body.shown();
    let how = match encoding {
        Encoding::Utf8 => "text that is no JSON",
        Encoding::Hex => "in hexadecimal",
    };
    writeln!(out, "\nbody ({bytes} bytes, {how})")?;
    writeln!(out, "  {}", printable(&output::shortened(&body, BODY_CHARACTERS_MAX)))
}

fn indented(out: &mut dyn Write, text: &str) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "  {}", printable(line)))
}
