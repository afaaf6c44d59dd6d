//! `keylane resize`: another number of partitions, while senders go on.
//!
//! Owns: the command's arguments, what is said in between, its summary and its exit code.

use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::PgConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actor::ActorArgs;
use super::confirm::{Answer, ask};
use super::interrupt::Interrupt;
use super::output::{self, Output, printable};
use crate::operate::actor::Actor;
use crate::operate::resize::{self, End, Request, stands};
use crate::operate::routing::Routing;
use crate::operate::{connect, routing};
use crate::settings::Settings;

/// How often a line is written that is like the one before, but for its numbers.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What `resize` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many partitions the next ring has, 1 to 1000
    #[arg(long, value_name = "N", value_parser = parse, allow_negative_numbers = true)]
    partitions: i32,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Store the request and come back at once; while a roll is running, only say so and fail
    #[arg(long)]
    no_wait: bool,
    /// Watch no longer than that; workers go on
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    #[command(flatten)]
    actor: ActorArgs,
    /// How to print what came of it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn parse(text: &str) -> Result<i32, String> {
    resize::partitions(text).map_err(|why| why.to_string())
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
struct Report {
    state: State,
    /// Partitions that were asked for.
    partitions: i32,
    /// Partitions that were wanted before.
    before: i32,
    /// The request stands in the database.
    requested: bool,
    /// The generation whose turn it is, when all is done.
    generation: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Done,
    NothingToDo,
    Requested,
    RollRunning,
    Interrupted,
    TimedOut,
    NoWorker,
    Overruled,
}

/// Asks for it, and watches until it is done.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let form = args.output;
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    let stop = CancellationToken::new();
    let interrupt = Interrupt::new().context("listen for signals")?;
    let resizing = Resizing {
        until: args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into())),
        actor: Actor::from(args.actor.clone()),
        stop: &stop,
        settings,
        args: &args,
    };
    let report = interrupt.during(&stop, resizing.run(&mut connection)).await?;
    match form {
        Output::Json => output::json(out, &report)?,
        Output::Ndjson => output::json_line(out, &report)?,
        Output::Table => {}
    }
    say(&report, (form == Output::Table).then_some(out))?;
    let well = matches!(report.state, State::Done | State::NothingToDo | State::Requested);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Resizing<'a> {
    settings: &'a Settings,
    args: &'a Args,
    actor: Actor,
    until: Option<Instant>,
    stop: &'a CancellationToken,
}

impl Resizing<'_> {
    async fn run(&self, connection: &mut PgConnection) -> anyhow::Result<Report> {
        let wanted = self.args.partitions;
        let mut seen = resize::look(connection).await?;
        let ours = routing::broker(&self.settings.amqp).context("amqp.url is no AMQP address")?;
        if seen.broker != ours {
            bail!("this database is for {}, but the settings name {ours}", seen.broker);
        }
        let mut report = Report {
            state: State::NothingToDo,
            partitions: wanted,
            before: seen.wanted,
            requested: false,
            generation: None,
        };
        if seen.settled() && seen.wanted == wanted {
            return Ok(report.settled(State::NothingToDo, &seen));
        }
        // Somebody asked for the same before, and it is not done.
        report.requested = seen.wanted == wanted;
        if seen.rolling() && self.args.no_wait {
            writeln!(stderr(), "{}", printable(&stands(&seen)))?;
            return Ok(Report { state: State::RollRunning, ..report });
        }
        if !report.requested {
            self.confirm(seen.wanted)?;
        }
        while !report.requested {
            if seen.rolling() {
                writeln!(stderr(), "a roll is running, and is waited for")?;
                match self.watch(connection, seen.wanted).await? {
                    // Without a worker nothing runs that could be waited for.
                    End::Settled(_) | End::Overruled(_) | End::Nobody => {}
                    ended => return Ok(report.ended(ended)),
                }
            }
            seen = resize::look(connection).await?;
            report.before = seen.wanted;
            report.requested = self.request(connection, seen.wanted).await?;
        }
        if self.args.no_wait {
            return Ok(Report { state: State::Requested, ..report });
        }
        let ended = self.watch(connection, wanted).await?;
        Ok(report.ended(ended))
    }

    async fn request(&self, connection: &mut PgConnection, seen: i32) -> anyhow::Result<bool> {
        let Args { partitions, because, .. } = self.args;
        if seen == *partitions {
            return Ok(true);
        }
        let request = Request {
            partitions: *partitions,
            actor: self.actor.name(),
            because: because.as_deref(),
        };
        resize::request(connection, request, seen).await
    }

    /// Warns of what the settings leave undone, and asks.
    fn confirm(&self, before: i32) -> anyhow::Result<()> {
        let partitions = self.args.partitions;
        if !self.settings.worker.partitions.is_empty() {
            writeln!(
                stderr(),
                "warning: worker.partitions is set: see that each of 0 to {} is named by some \
                 worker, or its writes are not applied",
                partitions - 1
            )?;
        }
        if self.args.yes {
            return Ok(());
        }
        match ask(&format!("go from {before} to {}?", many(partitions)))? {
            Answer::Yes => Ok(()),
            Answer::No => bail!("nothing was changed"),
            Answer::Nobody => {
                bail!("nothing was changed: --yes goes from {before} to {}", many(partitions))
            }
        }
    }

    async fn watch(&self, connection: &mut PgConnection, wanted: i32) -> anyhow::Result<End> {
        let mut said = Said::default();
        resize::watch(connection, wanted, (self.until, self.stop), |line| said.say(line)).await
    }
}

impl Report {
    fn settled(self, state: State, routing: &Routing) -> Self {
        Self { state, generation: routing.last().map(|line| line.generation), ..self }
    }

    fn ended(self, end: End) -> Self {
        let state = match end {
            End::Settled(routing) => return self.settled(State::Done, &routing),
            End::Interrupted => State::Interrupted,
            End::TimedOut => State::TimedOut,
            End::Nobody => State::NoWorker,
            End::Overruled(_) => State::Overruled,
        };
        Self { state, ..self }
    }

    fn what_now(&self) -> &'static str {
        if self.requested {
            "the request stays, and workers see to it by themselves: `keylane generations` shows \
             how far they are"
        } else {
            "nothing was requested"
        }
    }
}

/// For people: what is well goes to `out`, what is not to standard error.
fn say(report: &Report, out: Option<&mut dyn Write>) -> std::io::Result<()> {
    let Report { state, partitions, before, generation, .. } = report;
    let generation = generation.unwrap_or_default();
    let why = match state {
        State::Done | State::NothingToDo | State::Requested => {
            let Some(out) = out else { return Ok(()) };
            return match state {
                State::Done => {
                    writeln!(out, "generation {generation} has the turn, {}", many(*partitions))
                }
                State::NothingToDo => {
                    writeln!(
                        out,
                        "nothing to do: generation {generation} has {}",
                        many(*partitions)
                    )
                }
                _ => writeln!(
                    out,
                    "requested, from {before} to {}: `keylane generations` shows how far it is",
                    many(*partitions)
                ),
            };
        }
        State::RollRunning => "a roll is running",
        State::Interrupted => "not watched any more",
        State::TimedOut => "not done in that time",
        State::NoWorker => "no worker is running on this database",
        State::Overruled => "somebody else wants another number of partitions by now",
    };
    let now = if *state == State::Overruled { "it was requested" } else { report.what_now() };
    writeln!(stderr(), "{why}; {now}")
}

fn many(partitions: i32) -> String {
    if partitions == 1 { "1 partition".into() } else { format!("{partitions} partitions") }
}

/// Says a line when it is news, and numbers that change now and then.
#[derive(Default)]
struct Said {
    line: String,
    shape: String,
    at: Option<Instant>,
}

impl Said {
    fn say(&mut self, line: &str) {
        let shape: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let now = Instant::now();
        let lately = self.at.is_some_and(|at| now - at < LINE_EVERY);
        if line == self.line || (shape == self.shape && lately) {
            return;
        }
        // Nobody is there to be told that standard error is gone.
        drop(writeln!(stderr(), "{}", printable(line)));
        *self = Self { line: line.to_owned(), shape, at: Some(now) };
    }
}
