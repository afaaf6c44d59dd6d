//! The flags that say which dead letters are meant.

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::clock;
use crate::operate::dead_letters::{Filter, STATES};

/// Which dead letters are meant; several flags narrow it down together.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which ones")]
pub struct FilterArgs {
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
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// Only those before then, in the same forms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<OffsetDateTime>,
    /// Only these numbers, separated by commas or in a flag each
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    id: Vec<i64>,
    /// Only those with this text in body, detail, write id or key, in this spelling
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    text: Option<String>,
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { entity, key, reason, state, since, until, id, text } = args;
        Self { ids: id, entity, key, reason, state, since, until, text }
    }
}

/// A time, or how long ago it was.
pub fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    time(text, clock::now())
}

fn time(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
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
    use ::time::macros::datetime;

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
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
        for (text, expected) in table {
            assert_eq!(time(text, now).ok(), expected, "{text}");
        }
    }
}
