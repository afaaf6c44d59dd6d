//! `keylane dead-letters`: what could not be applied.

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::output::{self, Cells, Output};
use crate::clock;
use crate::operate::connect;
use crate::operate::dead_letters::{self, Filter, STATES, Summary};
use crate::settings::Settings;

/// So much of a detail stands in a table; `show` has all of it.
const DETAIL_CHARACTERS_MAX: usize = 60;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, the newest first
    List(List),
    /// Show everything about one, as JSON
    Show {
        /// Its number, from the list
        #[arg(value_name = "ID")]
        id: i64,
    },
}

/// What `dead-letters list` is given.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only those of this business key, as it stands in the routing key
    #[arg(long)]
    key: Option<String>,
    /// Only those with this reason, for example `type_mismatch`
    #[arg(long)]
    reason: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// Only those since then: `2026-11-21T02:00:00Z`, or `30m`, `2h`, `7d` ago
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<OffsetDateTime>,
    /// Only those older than this one: the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one of them.
pub async fn run(
    settings: &Settings,
    command: Command,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let timeout_ms = settings.database.statement_timeout_ms.get();
    let mut connection = connect(&settings.database, Some(timeout_ms)).await?;
    match command {
        Command::List(List { entity, key, reason, state, since, after, limit, output }) => {
            let filter = Filter { entity, key, reason, state, since, after, limit };
            let found = dead_letters::list(&mut connection, &filter)
                .await
                .context("read the dead letters")?;
            output::list(out, output, &found)?;
            if i64::try_from(found.len()).is_ok_and(|length| length == limit)
                && let Some(last) = found.last()
            {
                writeln!(stderr(), "there may be more: --after {}", last.id)?;
            }
        }
        Command::Show { id } => {
            let found =
                dead_letters::show(&mut connection, id).await.context("read the dead letter")?;
            let Some(letter) = found else {
                bail!("no dead letter {id}; `keylane dead-letters list` shows what is there");
            };
            output::json(out, &letter)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Cells for Summary {
    const HEADINGS: &'static [&'static str] =
        &["ID", "STATE", "ENTITY", "KEY", "WRITE ID", "REASON", "DEAD AT", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            self.id.to_string(),
            self.state.clone(),
            text(&self.entity),
            text(&self.key),
            text(&self.write_id),
            self.reason.clone(),
            moment(self.dead_at),
            output::shortened(&text(&self.detail), DETAIL_CHARACTERS_MAX),
        ]
    }
}

/// A time for a table: to the second, in UTC.
pub fn moment(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = time.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}

fn parse_since(text: &str) -> Result<OffsetDateTime, String> {
    since(text, clock::now())
}

fn since(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let ago = units.into_iter().find_map(|(unit, seconds)| {
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        now.checked_sub(Duration::seconds(i64::from(count) * seconds))
    });
    ago.ok_or_else(|| "must be a time like 2026-11-21T02:00:00Z, or 30m, 2h, 7d".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = datetime!(2026-11-21 12:00 UTC);
        let table = [
            ("2026-11-20T00:00:00+01:00", Some(datetime!(2026-11-19 23:00 UTC))),
            ("30m", Some(datetime!(2026-11-21 11:30 UTC))),
            ("7d", Some(datetime!(2026-11-14 12:00 UTC))),
            ("90s", Some(datetime!(2026-11-21 11:58:30 UTC))),
            ("4294967295d", None),
            ("-1h", None),
            ("h", None),
            ("2026-11-20", None),
            ("", None),
        ];
        for (text, time) in table {
            assert_eq!(since(text, now).ok(), time, "{text}");
        }
    }
}
