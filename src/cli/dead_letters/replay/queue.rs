//! `keylane dead-letters replay --queue NAME`: messages of somebody else's queue become writes.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::Args;
use super::progress::Progress;
use crate::cli::confirm::{Answer, ask};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{self, Output, printable};
use crate::operate::actor::Actor;
use crate::operate::connect;
use crate::operate::dead_letters::Filter;
use crate::operate::queue::{MoveEnd, Moved, Moving, Order, note};
use crate::settings::Settings;

/// Moves them; the exit code is 0 if each that was meant was moved.
pub(super) async fn run(
    settings: &Settings,
    args: Args,
    queue: String,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let Filter { key, text, .. } = Filter::from(args.filter);
    let limit = args.limit.map(i64::cast_unsigned);
    let order = Order { queue, key, text, limit, derive_ids: args.derive_ids, rate: args.rate };
    let moving = Moving::open(settings, &order).await?;
    let ready = u64::from(moving.ready);
    let most = limit.map_or(ready, |limit| limit.min(ready));
    if most > 1 && !args.yes {
        let question = format!("move at most {most} messages of {}?", printable(&order.queue));
        match ask(&question)? {
            Answer::Yes => {}
            Answer::No => bail!("nothing was changed"),
            Answer::Nobody => bail!("{ready} messages are in that queue: --yes moves them"),
        }
    }
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    let (actor, because) = (Actor::from(args.actor), args.because.as_deref());
    note(&mut connection, &order, (&actor, because), None).await.context("nothing was changed")?;
    let stop = CancellationToken::new();
    let mut progress = Progress::new(most);
    let interrupt = Interrupt::new().context("listen for signals")?;
    let mut tell = |moved: &Moved| {
        let done = moved.moved;
        progress.at(done, format!("{} put back", put_back(moved)), || format!("{done} moved"));
    };
    let (end, moved) = interrupt.during(&stop, moving.run(&mut tell, &stop)).await?;
    progress.clear();
    said(&end)?;
    writeln!(
        stderr(),
        "{} moved, {} not meant, {} refused: no message_id (--derive-ids makes one), or a routing \
         key that is no text, {} not confirmed",
        moved.moved,
        moved.filtered,
        moved.refused,
        moved.failed
    )?;
    match args.output {
        Output::Table => {}
        Output::Json => output::json(out, &moved)?,
        Output::Ndjson => output::json_line(out, &moved)?,
    }
    note(&mut connection, &order, (&actor, because), Some(&moved)).await?;
    let well = matches!(end, MoveEnd::Empty | MoveEnd::Limit) && moved.refused == 0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const fn put_back(moved: &Moved) -> u64 {
    moved.filtered + moved.refused + moved.failed
}

fn said(end: &MoveEnd) -> std::io::Result<()> {
    match end {
        MoveEnd::Empty | MoveEnd::Limit => Ok(()),
        MoveEnd::Held => writeln!(
            stderr(),
            "too many messages are held back that are not meant; what was found so far is moved"
        ),
        MoveEnd::Interrupted => writeln!(stderr(), "interrupted; the rest is in its queue"),
        MoveEnd::Failed(why) => {
            writeln!(stderr(), "stopped: {}; the rest is in its queue", printable(why))
        }
    }
}
