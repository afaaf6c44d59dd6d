//! `keylane settings`: the effective settings, secrets hidden.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::output;
use crate::settings::Settings;

/// Prints them as JSON.
pub fn run(settings: &Settings, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    output::json(out, &settings.shown()).context("write settings")?;
    Ok(ExitCode::SUCCESS)
}
