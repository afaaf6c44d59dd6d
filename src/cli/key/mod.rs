//! `keylane key`: business keys, one by one and those that are worth a look.

pub mod list;
pub mod pause;
pub mod show;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use sqlx::PgConnection;

use crate::core::entity::Entity;
use crate::core::key::Key;
use crate::operate::connect;
use crate::postgres::catalogue;
use crate::settings::Settings;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a key's row version, its last outcomes, why it stands still, and what waits
    Show(show::Show),
    /// List the keys that stand still, or the busiest ones
    List(list::List),
    /// Stop a key: its writes rest, in order, until it is resumed
    Pause(pause::Pause),
    /// Let a paused key go on
    Resume(pause::Pause),
}

/// Runs one of them.
pub async fn run(
    settings: &Settings,
    command: Command,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show(args) => show::run(settings, args, out).await,
        Command::List(args) => list::run(settings, args, out).await,
        Command::Pause(args) => pause::pause(settings, args).await,
        Command::Resume(args) => pause::resume(settings, args).await,
    }
}

/// A key as a person names it.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// The entity, as the settings name it
    #[arg(value_name = "ENTITY")]
    entity: String,
    /// The business key, as it stands in the routing key (`a/b` is one of two parts)
    #[arg(value_name = "KEY")]
    key: String,
}

impl Named {
    /// Checks it against the entity's table.
    async fn find(&self, settings: &Settings) -> anyhow::Result<(PgConnection, Arc<Entity>, Key)> {
        let name = &self.entity;
        let Some(configured) = settings.entities.get(name) else {
            let known: Vec<&str> = settings.entities.keys().map(String::as_str).collect();
            bail!("no entity `{name}` in the settings; there are: {}", known.join(", "));
        };
        let timeout_ms = settings.database.statement_timeout_ms.get();
        let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
        // This one alone: the others' troubles are not asked for here.
        let asked = [(name.clone(), configured.clone())].into();
        let mut entities =
            catalogue::load(&mut connection, &asked).await.context("read the entity's table")?;
        let entity =
            entities.remove(name).with_context(|| format!("entity `{name}` was not loaded"))?;
        let key = Key::parse(&entity, &self.key).map_err(|rejection| {
            anyhow!("`{}` is no key of {name}: {}", self.key, rejection.detail)
        })?;
        Ok((connection, entity, key))
    }
}
