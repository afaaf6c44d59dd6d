//! Opens connections with every bound that a stopped process or a cut network needs.

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::settings::Database;

/// How long a partition waits for a connection of the pool before it says so and waits again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pooled connection may rest before it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// Under this name the server shows the connections of workers: who asks whether one is running
/// looks for it.
pub const WORKER: &str = "keylane worker";
/// The same of an ingress.
pub const INGRESS: &str = "keylane ingress";
/// The same of operators' commands.
pub const OPERATOR: &str = "keylane operator";

/// The options of every connection of a long-running process.
///
/// The planner is told to look rows up by index: a batch names its rows, and a plan that was made
/// while a table was empty would otherwise read all of it later. Such a plan fits every batch, so it
/// is made once a connection; left to itself the server plans small batches each time anew, which
/// takes longer than they do.
pub fn options(database: &Database, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let milliseconds = |name: &'static str, value: u32| (name, value.to_string());
    let bounds = [
        milliseconds("statement_timeout", database.statement_timeout_ms.get()),
        milliseconds("lock_timeout", database.lock_timeout_ms.get()),
        milliseconds(
            "idle_in_transaction_session_timeout",
            database.idle_in_transaction_timeout_ms.get(),
        ),
        milliseconds("tcp_user_timeout", database.tcp_user_timeout_ms.get()),
    ];
    let fixed = [
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "3"),
        ("tcp_keepalives_count", "3"),
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("bytea_output", "hex"),
        ("jit", "off"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("plan_cache_mode", "force_generic_plan"),
    ];
    Ok(PgConnectOptions::from_str(database.url.expose_secret())?
        .application_name(name)
        .options(bounds)
        .options(fixed))
}

/// A pool of at most so many connections, shown under `name`; none is opened yet.
pub fn pool_of(
    database: &Database,
    name: &str,
    connections_max: u32,
) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(options(database, name)?))
}
