//! `keylane key pause` and `resume`.

use std::io::{Write, stderr};
use std::process::ExitCode;

use super::Named;
use crate::cli::actor::ActorArgs;
use crate::cli::output::printable;
use crate::operate::actor::Actor;
use crate::operate::pause::{self, Change};
use crate::operate::wake;
use crate::settings::Settings;

/// What both are given.
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    named: Named,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Pauses the key; nothing of it is applied any more when this returns.
pub async fn pause(settings: &Settings, args: Pause) -> anyhow::Result<ExitCode> {
    let (mut connection, entity, key) = args.named.find(settings).await?;
    let actor = Actor::from(args.actor);
    let (entity, key, because) = (entity.name.as_str(), key.as_str(), args.because.as_deref());
    pause::pause(&mut connection, Change { entity, key, actor: actor.name(), because }).await?;
    let key = printable(key);
    writeln!(stderr(), "{entity} {key} is paused; what comes for it rests until `key resume`")?;
    Ok(ExitCode::SUCCESS)
}

/// Lets the key go on.
pub async fn resume(settings: &Settings, args: Pause) -> anyhow::Result<ExitCode> {
    let (mut connection, entity, key) = args.named.find(settings).await?;
    let actor = Actor::from(args.actor);
    let (entity, key, because) = (entity.name.as_str(), key.as_str(), args.because.as_deref());
    pause::resume(&mut connection, Change { entity, key, actor: actor.name(), because }).await?;
    writeln!(stderr(), "{entity} {} goes on", printable(key))?;
    // It is done: a lane that is not woken looks by itself a little later.
    if let Err(error) = wake::look(settings, [key.to_owned()]).await {
        writeln!(stderr(), "its lane was not woken ({error:#}); a worker sees to it")?;
    }
    Ok(ExitCode::SUCCESS)
}
