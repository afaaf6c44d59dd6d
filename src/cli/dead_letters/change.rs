//! `keylane dead-letters discard` and `restore`.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;
use sqlx::PgConnection;

use super::filter::FilterArgs;
use super::{bounded, unknown};
use crate::cli::actor::ActorArgs;
use crate::cli::confirm::{Answer, ask};
use crate::cli::output;
use crate::operate::chain;
use crate::operate::dead_letters::Filter;
use crate::operate::dead_letters::change::{self, Change, Matching, Order};
use crate::operate::dead_letters::stats::stats;
use crate::settings::Settings;

/// What `dead-letters discard` and `restore` are given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Their numbers; without any, the flags below say which
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Why, for the audit and for whoever looks at them later (`--reason` is a rejection's)
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    because: String,
    /// Show what matches, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask where more than one matches
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    actor: ActorArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Changes what matches.
pub async fn run(
    settings: &Settings,
    change: Change,
    args: Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let Args { ids, because, dry_run, yes, actor, filter } = args;
    let mut filter = Filter::from(filter);
    filter.ids.extend(ids);
    if filter.is_empty() {
        bail!("say which dead letters: their numbers, or flags like --entity and --reason");
    }
    let mut connection = bounded(settings).await?;
    check_ids(&mut connection, change, &filter.ids).await?;
    let matching =
        change::matching(&mut connection, change, &filter).await.context("count what matches")?;
    let Matching { count, id_max } = matching;
    let (label, from) = (change.label(), change.from().join(", "));
    if count == 0 {
        bail!("nothing matches that is {from}; nothing was changed");
    }
    if dry_run {
        print_groups(&mut connection, change, filter, out).await?;
        writeln!(stderr(), "would {label} {count}; nothing was changed")?;
        return Ok(ExitCode::SUCCESS);
    }
    if count > 1 && !yes {
        match ask(&format!("{label} {count} dead letters?"))? {
            Answer::Yes => {}
            Answer::No => bail!("nothing was changed"),
            Answer::Nobody => bail!(
                "{count} dead letters match; add --yes to {label} all of them, or --dry-run to \
                 see what they are; nothing was changed"
            ),
        }
    }
    let (actor, because) = (actor.into(), because.as_str());
    let order = Order { change, filter: &filter, actor: &actor, because };
    let done = change::run(&mut connection, settings, order, id_max).await?;
    if let Some(error) = done.not_woken {
        let why = chain(error.as_ref());
        writeln!(stderr(), "their keys go on a little later, the broker was not reached: {why}")?;
    }
    if done.count == 0 {
        bail!(
            "what matched was changed meanwhile, or is open under another number; nothing was \
             changed"
        );
    }
    writeln!(stderr(), "{} {}", change.done(), done.count)?;
    Ok(ExitCode::SUCCESS)
}

/// Whoever names a number means it: one that cannot be changed is an error, not a smaller count.
async fn check_ids(
    connection: &mut PgConnection,
    change: Change,
    ids: &[i64],
) -> anyhow::Result<()> {
    let states = change::states(connection, ids).await.context("read the dead letters")?;
    for id in ids {
        let Some(state) = states.get(id) else { return Err(unknown(*id)) };
        if !change.from().contains(&state.as_str()) {
            let from = change.from().join(", ");
            bail!("dead letter {id} is {state}, not one of {from}; nothing was changed");
        }
    }
    Ok(())
}

async fn print_groups(
    connection: &mut PgConnection,
    change: Change,
    filter: Filter,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut groups = stats(connection, &filter).await.context("count what matches")?;
    groups.retain(|group| change.from().contains(&group.state.as_str()));
    output::table(out, &groups).context("print what matches")
}
