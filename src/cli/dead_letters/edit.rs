//! `keylane dead-letters edit ID`: changes what a dead letter asks for.

use std::fs;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;
use sqlx::PgConnection;

use super::editor::Text;
use super::{bounded, unknown};
use crate::cli::actor::ActorArgs;
use crate::cli::output::printable;
use crate::core::edit::{Step, edited};
use crate::core::pretty::pretty;
use crate::operate::dead_letters::edit::{self, Edit, Edited};
use crate::operate::dead_letters::{DeadLetter, letter};
use crate::settings::Settings;

/// What `dead-letters edit` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its number, from the list
    #[arg(value_name = "ID")]
    id: i64,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    because: String,
    /// Put what this file holds in place of the body
    #[arg(long, value_name = "FILE", conflicts_with_all = ["set", "unset"])]
    body_file: Option<PathBuf>,
    /// Set a column of the body, or what a JSON pointer names; VALUE is JSON, or else text
    #[arg(long, value_name = "PATH=VALUE", value_parser = Step::parse_set)]
    set: Vec<Step>,
    /// Take a column out of the body, or what a JSON pointer names; after every --set
    #[arg(long, value_name = "PATH", value_parser = Step::parse_unset)]
    unset: Vec<Step>,
    /// Ask for another change; the entity stays, where there is one
    #[arg(long = "type", value_name = "ENTITY.CHANGE")]
    kind: Option<String>,
    /// Give a write id to a message that came without one
    #[arg(long, value_name = "ID")]
    write_id: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Edits it; without a flag that says how, in an editor.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut connection = bounded(settings).await?;
    let letter = letter::load(&mut connection, args.id).await.context("read the dead letter")?;
    let letter = letter.ok_or_else(|| unknown(args.id))?;
    edit::check_state(&letter).map_err(anyhow::Error::msg)?;
    let (body, text) = new_body(&letter, &args)?;
    let stored = store(&mut connection, settings, &letter, (body, args), out).await;
    if let (Err(_), Some(text)) = (&stored, text) {
        writeln!(stderr(), "what you wrote is kept in {}", text.keep().display())?;
    }
    stored.map(|()| ExitCode::SUCCESS)
}

/// The body that is asked for, `None` if it stays; and the file that an editor left.
fn new_body(letter: &DeadLetter, args: &Args) -> anyhow::Result<(Option<Vec<u8>>, Option<Text>)> {
    if let Some(file) = &args.body_file {
        let body = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        return Ok((Some(body.trim_ascii().to_vec()), None));
    }
    let steps: Vec<Step> = args.set.iter().chain(&args.unset).cloned().collect();
    if !steps.is_empty() {
        let body = edited(&letter.body.0, &steps).map_err(anyhow::Error::msg)?;
        return Ok((Some(body), None));
    }
    if args.kind.is_some() || args.write_id.is_some() {
        return Ok((None, None));
    }
    let Ok(old) = str::from_utf8(&letter.body.0) else {
        bail!("the body is not text: give a new one with --body-file");
    };
    let json = serde_json::from_str::<serde::de::IgnoredAny>(old).is_ok();
    let shown = if json { pretty(old) } else { old.to_owned() };
    let text = Text::edit(&format!("dead-letter-{}", letter.id), format!("{shown}\n").as_bytes())?;
    let body = text.read().context("read what the editor left")?;
    let body = body.trim_ascii();
    let untouched = body == shown.trim_ascii().as_bytes();
    let body = if untouched { letter.body.0.clone() } else { body.to_vec() };
    Ok((Some(body), (!untouched).then_some(text)))
}

async fn store(
    connection: &mut PgConnection,
    settings: &Settings,
    letter: &DeadLetter,
    (body, args): (Option<Vec<u8>>, Args),
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let edit = Edit { body, kind: args.kind, write_id: args.write_id };
    let edited = edit::prepare(letter, edit).map_err(anyhow::Error::msg)?;
    for line in edited.changes.lines() {
        writeln!(out, "{}", printable(&line))?;
    }
    let revision = letter.revision.saturating_add(1);
    if args.dry_run {
        writeln!(stderr(), "nothing was changed")?;
    } else {
        let by = (&args.actor.into(), args.because.as_str());
        edit::store(connection, letter, &edited, by).await?;
        writeln!(stderr(), "dead letter {} is at revision {revision}", letter.id)?;
    }
    say_verdict(connection, settings, &edited).await
}

/// Whether it would get further now; no more than a hint, so that its failure is none.
async fn say_verdict(
    connection: &mut PgConnection,
    settings: &Settings,
    edited: &Edited,
) -> anyhow::Result<()> {
    let mut talk = stderr();
    match edit::judge(connection, settings, &edited.message).await {
        Ok(Ok(())) => writeln!(talk, "it would be accepted now (the table's own rules not asked)")?,
        Ok(Err(rejection)) => {
            let place = rejection.pointer.map(|pointer| format!(" at {pointer}"));
            let (reason, place) = (rejection.reason.label(), place.unwrap_or_default());
            let detail = printable(&rejection.detail);
            writeln!(talk, "it would be rejected again: {reason}{place}: {detail}")?;
        }
        Err(error) => writeln!(talk, "whether it would be accepted is not known: {error:#}")?,
    }
    Ok(())
}
