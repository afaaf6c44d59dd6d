//! What an operator can ask and do, without the command line and without the console.
//!
//! Owns: reading keylane's own tables for people.
//! Never: applies or changes a write.

pub mod abandon;
pub mod actions;
pub mod actor;
pub mod dead_letters;
pub mod doctor;
pub mod front_door;
pub mod keys;
mod pace;
pub mod pause;
pub mod queue;
pub mod replay;
pub mod requests;
pub mod resize;
pub mod routing;
pub mod standing;
pub mod wake;

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::postgres::connect::OPERATOR;
use crate::settings::Database;

/// Longest wait for the database to answer to connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection for a person's questions, with the planner's usual settings.
///
/// `statement_timeout_ms` bounds each statement.
pub async fn connect(
    database: &Database,
    statement_timeout_ms: Option<u32>,
) -> anyhow::Result<PgConnection> {
    let milliseconds = statement_timeout_ms.unwrap_or_default().to_string();
    let options = PgConnectOptions::from_str(database.url.expose_secret())
        .context("read database.url")?
        .application_name(OPERATOR)
        .options([("timezone", "UTC"), ("statement_timeout", milliseconds.as_str())]);
    timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options))
        .await
        .with_context(|| format!("the database did not answer within {CONNECT_TIMEOUT:?}"))?
        .context("connect to the database")
}

/// An error and what lies under it, in one line. Some libraries say the source in the error too.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(under) = source {
        let more = under.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = under.source();
    }
    text
}
