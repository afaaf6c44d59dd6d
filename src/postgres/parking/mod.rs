//! Keys that stand still: who they are, what rests before them, and how they go on.
//!
//! Owns: the statements on `keylane.parked_keys` that a lane makes, and on the line of a key
//! (docs/decisions/0007-parking.md). A key's row is locked before its dead letters.

mod census;
mod gates;
mod go_on;
mod letters;
mod take;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::core::parking::{Gate, Waiting, WaitsFor};

pub use census::{Census, blockers, census, overdue};
pub(super) use gates::gates;
pub(super) use go_on::go_on;
pub(super) use letters::{decide, state, stops};
pub(super) use take::take;

fn fingerprint(row: &PgRow) -> Result<[u8; 32], sqlx::Error> {
    let bytes: Vec<u8> = row.try_get("fingerprint")?;
    bytes.try_into().map_err(|_bytes| {
        sqlx::Error::Decode("keylane.dead_letters.fingerprint has not 32 bytes".into())
    })
}

fn gate(row: &PgRow) -> Result<(String, String, Gate), sqlx::Error> {
    let waits_for = row.try_get::<Option<&str>, _>("waits_for")?.and_then(WaitsFor::from_label);
    let since: Option<OffsetDateTime> = row.try_get("waiting_since")?;
    let tries: i32 = row.try_get("tries")?;
    let why: Option<String> = row.try_get("blocker")?;
    let waiting = waits_for.zip(since).map(|(waits_for, since)| Waiting {
        waits_for,
        since,
        tries: u32::try_from(tries).unwrap_or(0),
        why: why.unwrap_or_default(),
    });
    let resting: i32 = row.try_get("resting")?;
    let gate = Gate {
        paused: row.try_get("paused")?,
        waiting,
        resting: usize::try_from(resting).unwrap_or(0),
        looked_at: false,
    };
    Ok((row.try_get("entity")?, row.try_get("key")?, gate))
}

/// Text that PostgreSQL can hold.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\\x00")
}
