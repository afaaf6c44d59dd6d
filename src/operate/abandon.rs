//! Gives a generation up whose broker is gone for good, with all that was in it.
//!
//! Owns: what must hold before that is believed.
//! Never: ends its turn: the next worker does, as it does with a ring that a restart has taken.

use anyhow::{Context, bail, ensure};
use sqlx::{Connection, PgConnection};

use super::actions::{self, Action};
use super::resize::look;
use crate::core::roll::Ring;
use crate::rabbit::topology::Topology;

/// Who gives up what.
#[derive(Debug, Clone, Copy)]
pub struct Abandon<'a> {
    pub generation: i32,
    pub actor: &'a str,
    /// Why, in the operator's words.
    pub because: Option<&'a str>,
}

/// Fails unless the generation receives what is published, and this broker knows nothing of it.
pub async fn check(
    connection: &mut PgConnection,
    topology: &Topology<'_>,
    generation: i32,
) -> anyhow::Result<()> {
    let routing = look(connection).await?;
    let Some(last) = routing.last().filter(|last| last.generation == generation) else {
        bail!(
            "generation {generation} does not receive writes: `keylane generations` shows which does"
        );
    };
    let ring = topology.ring(generation, last.partitions).await.context("look at the ring")?;
    ensure!(
        ring == Ring::Unknown,
        "this broker knows generation {generation}: nothing has to be given up, workers see to it"
    );
    Ok(())
}

/// Stores it, and notes who did.
pub async fn store(connection: &mut PgConnection, abandon: Abandon<'_>) -> anyhow::Result<()> {
    const SQL: &str = "update keylane.routing set abandoned = $1";
    let Abandon { generation, actor, because } = abandon;
    let mut tx = connection.begin().await.context("open a transaction")?;
    let done = sqlx::query(SQL).bind(generation).execute(&mut *tx).await;
    done.context("give it up (the grant is in docs/PERMISSIONS.md)")?;
    let noted = Action {
        actor,
        action: "abandon",
        target: &format!("generation {generation}"),
        reason: because,
        filter: None,
        count: 1,
        result: "given up",
    };
    actions::note(&mut tx, &noted).await.context("note the action")?;
    tx.commit().await.context("commit")
}
