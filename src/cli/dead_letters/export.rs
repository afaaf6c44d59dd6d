//! `keylane dead-letters export`: dead letters for a file, or for another database.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use sqlx::PgConnection;

use super::filter::FilterArgs;
use crate::cli::output::json_line;
use crate::operate::connect;
use crate::operate::dead_letters::Filter;
use crate::operate::dead_letters::export::export;
use crate::settings::Settings;

/// What `dead-letters export` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write to this file, which takes its place when all is written; default: standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes them.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // No bound on the statement: it lasts as long as somebody reads.
    let mut connection = connect(&settings.database, None).await?;
    let filter = args.filter.into();
    let count = match &args.file {
        None => write(&mut connection, &filter, out).await?,
        Some(file) => {
            let part = beside(file);
            let mut open = create(&part).with_context(|| format!("create {}", part.display()))?;
            let count = write(&mut connection, &filter, &mut open).await?;
            open.sync_all().context("write the file to disk")?;
            fs::rename(&part, file).with_context(|| format!("rename to {}", file.display()))?;
            count
        }
    };
    writeln!(stderr(), "exported {count} dead letters")?;
    Ok(ExitCode::SUCCESS)
}

async fn write(
    connection: &mut PgConnection,
    filter: &Filter,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(out);
    let count = export(connection, filter, |line| json_line(&mut out, line)).await?;
    out.flush()?;
    Ok(count)
}

fn beside(file: &Path) -> PathBuf {
    let mut name: OsString = file.into();
    name.push(".part");
    name.into()
}

/// Bodies may be personal data: only the owner may read them.
fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
