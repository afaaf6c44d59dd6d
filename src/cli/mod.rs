//! The command line: what is asked becomes a call, what comes back is printed.
//!
//! Owns: names and arguments of the commands, and their exit codes: 0 done, 1 failed (2, wrong
//! usage, is clap's). Data goes to the writer that is handed in, talk to standard error.
//! Never: decides anything about writes.
#![expect(
    clippy::future_not_send,
    reason = "the writer may be a locked terminal; `main` awaits a command where it stands"
)]

pub mod actions;
pub mod actor;
pub mod completions;
pub mod confirm;
pub mod dead_letters;
pub mod doctor;
pub mod generations;
pub mod interrupt;
pub mod key;
pub mod migrate;
pub mod output;
pub mod publish;
pub mod resize;
pub mod settings;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::core::entity::Entities;
use crate::ingress::openapi::document;
use crate::reload::Reload;
use crate::service::{self, Roles};
use crate::settings::Settings;
use crate::settings::load::load;
use crate::telemetry;

/// One ordered line of writes a business key, each applied exactly once to your tables.
#[derive(Debug, Parser)]
#[command(name = "keylane", version, about, propagate_version = true)]
pub struct Cli {
    /// Settings in TOML; default: the file that `KEYLANE_CONFIG` names, else `config/keylane.toml`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring keylane's own tables up to date; harmless again
    Migrate,
    /// Apply writes to your tables until told to stop
    Worker,
    /// Take writes over HTTP until told to stop
    Ingress,
    /// Worker and ingress in one process
    Run,
    /// Send writes to the broker, and say which it confirmed
    Publish(publish::Args),
    /// Change the number of partitions, in order, while senders go on
    Resize(resize::Args),
    /// Show which rings there are, what is drained, how far and by whom
    Generations(generations::Args),
    /// Look at broker, database and entities, and say what to mend
    Doctor(doctor::Args),
    /// Print the HTTP API as `OpenAPI`, in its general form; a running one names your entities
    Openapi,
    /// Print what makes a shell complete commands and options
    Completions(completions::Args),
    /// Show the effective settings, without secrets
    Settings,
    /// What is known of a business key
    #[command(subcommand)]
    Key(key::Command),
    /// What could not be applied
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// What operators did
    #[command(subcommand)]
    Actions(actions::Command),
}

/// Runs a command; an error is for the caller to print, with the exit code 1.
pub async fn run(cli: Cli, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // These need neither settings nor servers.
    match &cli.command {
        Command::Openapi => return openapi(out),
        Command::Completions(args) => return completions::run(args, out),
        _ => {}
    }
    let settings = load(cli.config.clone()).context("load settings")?;
    let serve = |worker, ingress| serve(settings.clone(), Roles { worker, ingress }, cli.config);
    match cli.command {
        Command::Migrate => migrate::run(&settings, out).await,
        Command::Worker => serve(true, false).await,
        Command::Ingress => serve(false, true).await,
        Command::Run => serve(true, true).await,
        Command::Publish(args) => publish::run(&settings, &args, out).await,
        Command::Resize(args) => resize::run(&settings, args, out).await,
        Command::Generations(args) => generations::run(&settings, &args, out).await,
        Command::Doctor(args) => doctor::run(&settings, &args, out).await,
        Command::Key(command) => key::run(&settings, command, out).await,
        Command::DeadLetters(command) => dead_letters::run(&settings, command, out).await,
        Command::Actions(command) => actions::run(&settings, command, out).await,
        Command::Openapi => openapi(out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Settings => settings::run(&settings, out),
    }
}

fn openapi(out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let document = document(&Entities::new());
    serde_json::to_writer_pretty(&mut *out, &document).context("write the document")?;
    writeln!(out).context("write the document")?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    settings: Settings,
    roles: Roles,
    file: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let (filter, traces) = telemetry::start(&settings.telemetry).context("start telemetry")?;
    let reload = Reload::new(settings.clone(), file, filter).context("listen for SIGHUP")?;
    let ended = service::run(settings, roles, reload).await;
    // Waits on this thread, for nothing else runs any more.
    traces.stop();
    ended
}
