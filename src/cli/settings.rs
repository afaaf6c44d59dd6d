//! `keylane settings`: the effective settings, secrets hidden.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use crate::settings::Settings;

/// Prints them as JSON.
pub fn run(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    serde_json::to_writer_pretty(&mut *out, &settings.shown()).context("write settings")?;
    writeln!(out).context("write settings")?;
    Ok(ExitCode::SUCCESS)
}
