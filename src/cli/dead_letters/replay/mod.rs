//! `keylane dead-letters replay`: what was dead is tried again, in the order of its key.
//!
//! Owns: the command's arguments, what is asked before it starts, its summary and its exit code.

mod dry_run;
mod progress;
mod queue;
mod report;

use std::io::{Write, stderr};
use std::num::NonZeroU32;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use self::progress::Progress;
use super::filter::FilterArgs;
use crate::cli::actor::ActorArgs;
use crate::cli::confirm::{Answer, ask};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{Output, printable};
use crate::operate::actor::Actor;
use crate::operate::connect;
use crate::operate::dead_letters::Filter;
use crate::operate::replay::{
    self, Canary, End, Frozen, Later, Options, freeze, later_writes, resume,
};
use crate::operate::wake::Wake;
use crate::settings::Settings;

/// What clap gives for wrong usage.
const WRONG_USAGE: u8 = 2;

/// What `dead-letters replay` is given.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Args {
    #[command(flatten)]
    filter: FilterArgs,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    /// The oldest so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// First 1, then 10, then 100, and wait for their results; stop if one dies of something new
    #[arg(long, value_name = "1,10,100", value_parser = str::parse::<Canary>)]
    canary: Option<Canary>,
    /// Go on with a replay that was stopped or killed
    #[arg(long = "continue", value_name = "REPLAY_ID",
          conflicts_with_all = ["FilterArgs", "all", "limit"])]
    goes_on: Option<i64>,
    /// Move messages of this queue of the broker through keylane, instead of its dead letters;
    /// with --key, --text, --limit and --rate
    #[arg(long, value_name = "NAME", conflicts_with_all = ["entity", "reason", "state", "since",
          "until", "id", "all", "canary", "goes_on", "dry_run"])]
    queue: Option<String>,
    /// Give a message of that queue without `message_id` one made of routing key, type and body;
    /// equal messages become one write
    #[arg(long, requires = "queue")]
    derive_ids: bool,
    /// Say what would become of each, and change nothing; needs no broker
    #[arg(long, conflicts_with = "goes_on")]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    #[command(flatten)]
    actor: ActorArgs,
    /// How to print the results
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the replay; the exit code is 0 if every letter is resolved.
pub async fn run(settings: &Settings, args: Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if let Some(queue) = args.queue.clone() {
        return queue::run(settings, args, queue, out).await;
    }
    let mut filter = Filter::from(args.filter);
    if let Some(state) = filter.state.take_if(|state| state != "dead") {
        return wrong_usage(&format!(
            "only dead letters in state `dead` are replayed, not `{state}`"
        ));
    }
    filter.state = None;
    if args.goes_on.is_none() && filter.is_empty() && !args.all {
        return wrong_usage("say which dead letters: by a filter, or --all");
    }
    if args.dry_run {
        return dry_run::run(settings, &filter, args.limit, args.output, out).await;
    }
    // First of all: without the broker no lane is told, and nothing is to be changed then.
    let wake = Wake::open(settings).await.context("nothing was changed")?;
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    let actor = Actor::from(args.actor);
    let because = args.because.as_deref();
    let start = Start { filter: &filter, limit: args.limit, yes: args.yes, actor: &actor, because };
    let frozen = match args.goes_on {
        Some(replay) => resume(&mut connection, replay, &actor, because).await?,
        None => start.freeze(&mut connection).await?,
    };
    let Frozen { replay, total } = frozen;
    writeln!(stderr(), "replay {replay}: {total} dead letters")?;
    let hint = format!("`keylane dead-letters replay --continue {replay}` goes on");
    let options = Options { rate: args.rate, canary: args.canary.unwrap_or_default() };
    let stop = CancellationToken::new();
    let mut progress = Progress::new(u64::try_from(total).unwrap_or_default());
    let running = replay::run(
        &mut connection,
        settings,
        (frozen, &actor),
        (wake, &options),
        (&mut progress, &stop),
    );
    let ended = Interrupt::new().context("listen for signals")?.during(&stop, running).await;
    progress.clear();
    let (end, counts) = ended.with_context(|| format!("the replay is not finished, {hint}"))?;
    report::print(&mut connection, replay, args.output, out).await?;
    report::end(&end, &hint)?;
    writeln!(stderr(), "replay {replay}: {}", counts.summary())?;
    let well = end == End::Done && counts.all_resolved();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Start<'a> {
    filter: &'a Filter,
    limit: Option<i64>,
    yes: bool,
    actor: &'a Actor,
    because: Option<&'a str>,
}

impl Start<'_> {
    /// Freezes the set, unless there is none or nobody wants it.
    async fn freeze(&self, connection: &mut PgConnection) -> anyhow::Result<Frozen> {
        let mut tx = connection.begin().await.context("open a transaction")?;
        let frozen = freeze(&mut tx, self.filter, self.limit, self.actor, self.because).await?;
        let Some(frozen) = frozen else {
            bail!("no dead letter matches; `keylane dead-letters list --state dead` shows them");
        };
        warn(later_writes(&mut tx, frozen.replay).await?)?;
        let total = frozen.total;
        if total > 1 && !self.yes {
            match ask(&format!("replay {total} dead letters?"))? {
                Answer::Yes => {}
                Answer::No => bail!("nothing was changed"),
                Answer::Nobody => bail!(
                    "{total} dead letters match: --yes replays them, --dry-run says what would \
                     become of them"
                ),
            }
        }
        tx.commit().await.context("commit")?;
        Ok(frozen)
    }
}

/// A replay comes after what was applied meanwhile.
fn warn(later: Later) -> std::io::Result<()> {
    match later {
        Later::Letters(0) => Ok(()),
        Later::Letters(letters) => writeln!(
            stderr(),
            "warning: {letters} of them have later writes of the same key that were applied since; \
             they are applied after those now"
        ),
        Later::Unknown => writeln!(
            stderr(),
            "warning: unknown how many of them have later writes of the same key that were applied \
             since: the ledger is long"
        ),
    }
}

fn wrong_usage(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(stderr(), "keylane: {}", printable(text))?;
    Ok(ExitCode::from(WRONG_USAGE))
}
