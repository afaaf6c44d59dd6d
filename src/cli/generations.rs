//! `keylane generations`: the line of turns, what is drained, how far and by whom.

use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use sqlx::PgConnection;

use super::actor::ActorArgs;
use super::confirm::{Answer, ask as ask_first};
use super::dead_letters::moment;
use super::output::{self, Cells, Output};
use crate::operate::abandon::{self, Abandon};
use crate::operate::actor::Actor;
use crate::operate::routing::{self, Line, Routing};
use crate::operate::{chain, connect};
use crate::rabbit::connection::Connection;
use crate::rabbit::error::BrokerError;
use crate::rabbit::topology::Topology;
use crate::settings::Settings;

/// What `generations` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that are long over, and whose queues are gone
    #[arg(long)]
    all: bool,
    /// Give up a generation of which the broker knows nothing, with all that was in it: only where
    /// that broker is gone for good
    #[arg(long, value_name = "GENERATION")]
    abandon: Option<i32>,
    /// Do not ask
    #[arg(long, requires = "abandon")]
    yes: bool,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT", requires = "abandon")]
    because: Option<String>,
    #[command(flatten)]
    actor: ActorArgs,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Partitions that somebody wants; `null`: no worker was ever started.
    wanted: Option<i32>,
    /// The worker that sees to a roll just now.
    roller: Option<&'a str>,
    /// Messages that wait in held, whether it has a turn or not, as far as the broker tells.
    held_about: Option<u64>,
    generations: &'a [Line],
}

/// Reads and prints them.
pub async fn run(
    settings: &Settings,
    args: &Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    if let Some(generation) = args.abandon {
        abandon(settings, args, &mut connection, generation).await?;
    }
    let read = routing::read(&mut connection).await;
    let mut routing = read.context("read how writes are routed (is `keylane migrate` due?)")?;
    let mut held = None;
    if let Some(routing) = &mut routing {
        if !args.all {
            routing.lines.retain(is_shown);
        }
        match ask(settings, &mut routing.lines).await {
            Ok(about) => held = Some(about),
            Err(why) => {
                writeln!(stderr(), "what is left is not known: {}", output::printable(&why))?;
            }
        }
    }
    print(out, args.output, routing.as_ref(), held).context("write the generations")?;
    Ok(ExitCode::SUCCESS)
}

async fn abandon(
    settings: &Settings,
    args: &Args,
    connection: &mut PgConnection,
    generation: i32,
) -> anyhow::Result<()> {
    let broker = open(settings).await.context("connect to the broker")?;
    let topology = Topology::new(&broker, &settings.amqp.prefix);
    let checked = abandon::check(connection, &topology, generation).await;
    broker.close().await;
    checked?;
    let question = format!("give up all that was in generation {generation}?");
    let agreed = args.yes || matches!(ask_first(&question)?, Answer::Yes);
    ensure!(agreed, "nothing was changed: --yes gives it up without asking");
    let actor = Actor::from(args.actor.clone());
    let because = args.because.as_deref();
    abandon::store(connection, Abandon { generation, actor: actor.name(), because }).await?;
    writeln!(stderr(), "generation {generation} is given up: workers go on without it")?;
    Ok(())
}

async fn open(settings: &Settings) -> Result<Connection, BrokerError> {
    let amqp = &settings.amqp;
    let answer_max = Duration::from_millis(amqp.timeout_ms.get().into());
    Connection::open(amqp, "keylane operator", answer_max).await
}

/// Whether something of it may still be on the broker.
fn is_shown(line: &Line) -> bool {
    line.is_open() || (line.generation > 0 && line.state != "deleted")
}

async fn ask(settings: &Settings, lines: &mut [Line]) -> Result<u64, String> {
    let broker = open(settings).await.map_err(|error| chain(&error))?;
    let asked = routing::ask_what_is_left(&broker, &settings.amqp.prefix, lines).await;
    broker.close().await;
    asked.map_err(|error| chain(&error))
}

fn print(
    out: &mut dyn Write,
    form: Output,
    routing: Option<&Routing>,
    held_about: Option<u64>,
) -> std::io::Result<()> {
    let lines = routing.map_or(&[][..], |routing| &routing.lines);
    let (wanted, roller) =
        routing.map_or((None, None), |routing| (Some(routing.wanted), routing.roller.as_deref()));
    match form {
        Output::Json => {
            return output::json(out, &Report { wanted, roller, held_about, generations: lines });
        }
        Output::Ndjson => return output::list(out, form, lines),
        Output::Table => output::table(out, lines)?,
    }
    let Some(wanted) = wanted else {
        return writeln!(out, "no worker was ever started on this database");
    };
    let roller = roller.map_or_else(|| "nobody rolls".into(), |worker| format!("{worker} rolls"));
    writeln!(out, "{wanted} partitions wanted; {}", output::printable(&roller))?;
    let has_turn = lines.iter().any(|line| line.generation == 0 && line.is_open());
    match held_about {
        Some(left @ 1..) if !has_turn => {
            writeln!(out, "~{left} messages wait in held, which gets a turn for them")
        }
        _ => Ok(()),
    }
}

impl Cells for Line {
    const HEADINGS: &'static [&'static str] = &[
        "TURN",
        "GENERATION",
        "STATE",
        "DOES",
        "PARTITIONS",
        "CLOSED",
        "LEFT",
        "SINCE",
        "WORKERS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.turn.map_or_else(|| "-".into(), |turn| turn.to_string()),
            self.source(),
            self.state.clone(),
            self.does.label().to_owned(),
            self.partitions.to_string(),
            self.closed.to_string(),
            self.left_about.map_or_else(|| "?".into(), |left| format!("~{left}")),
            moment(self.since),
            self.by().unwrap_or_else(|| "-".into()),
        ]
    }
}
