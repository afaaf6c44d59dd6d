//! `keylane dead-letters import FILE`: takes in what `export` wrote.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write, stderr, stdin};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use uuid::Uuid;

use super::bounded;
use crate::cli::actor::ActorArgs;
use crate::operate::dead_letters::import::{Imported, check, import};
use crate::settings::Settings;

/// What `dead-letters import` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Newline-delimited JSON, as `export` writes it; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check every line, and import nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Imports the file.
pub async fn run(settings: &Settings, args: Args) -> anyhow::Result<ExitCode> {
    let given = args.file.display().to_string();
    let name = if given == "-" { "standard input" } else { given.as_str() };
    // It is read twice: a bad line at its end must not have kept a transaction open.
    let file = if given == "-" {
        kept(&std::env::temp_dir()).context("keep standard input in a file")?
    } else {
        File::open(&args.file).with_context(|| format!("open {name}"))?
    };
    let mut file = BufReader::new(file);
    let checked = check(&mut file).with_context(|| format!("check {name}"))?;
    if args.dry_run {
        writeln!(stderr(), "{} dead letters, all well; nothing was imported", checked.letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut connection = bounded(settings).await?;
    let by = (&args.actor.into(), name);
    let imported = import(&mut connection, &mut file, checked, by)
        .await
        .with_context(|| format!("import {name}"))?;
    let Imported { imported, skipped, renumbered } = imported;
    writeln!(
        stderr(),
        "imported {imported} dead letters ({renumbered} under another number), \
         skipped {skipped} that are there already"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input as a file without a name, which goes with the process.
fn kept(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("keylane-import-{}", Uuid::new_v4()));
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    io::copy(&mut stdin().lock(), &mut file)?;
    Ok(file)
}
