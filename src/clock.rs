//! The only place that asks for the time.

use time::OffsetDateTime;

/// Now, in UTC.
#[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
