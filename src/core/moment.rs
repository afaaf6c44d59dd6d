//! Dates and times as text.
//!
//! Owns: which spellings are taken, and the one that PostgreSQL prints (`DateStyle` ISO).
//! Never: guesses a time zone, drops an offset, or rounds a fraction.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

const DATE: &str = "expects a date of the calendar as YYYY-MM-DD, from year 0001 to 9999";
const TIME: &str = "expects a time from 00:00:00 to 23:59:59 as HH:MM, HH:MM:SS or HH:MM:SS.f";
const TIMESTAMP: &str = "expects a date and a time as YYYY-MM-DDTHH:MM:SS[.f]";
const RFC_3339: &str = "expects a date, a time and an offset (RFC 3339): \
                        YYYY-MM-DDTHH:MM:SS[.f]Z or with ±HH:MM instead of Z";
const OFFSET: &str = "expects an offset from -15:59 to +15:59";
const NO_OFFSET: &str = "expects no offset: the column has no time zone, so it would be dropped";
const WITH_OFFSET: &str = "expects an offset (Z or ±HH:MM): without one its zone would be guessed";

/// PostgreSQL takes no offset of 16 hours or more.
const OFFSET_HOURS_MAX: u8 = 15;

/// Checks a date and returns what PostgreSQL prints for it.
pub(super) fn date(text: &str) -> Result<String, String> {
    let mut cursor = Cursor { rest: text };
    cursor.date().filter(|_| cursor.rest.is_empty()).ok_or_else(|| DATE.to_owned())?;
    Ok(text.to_owned())
}

/// Checks a time without zone of so many `digits` and returns what PostgreSQL prints for it.
pub(super) fn time(text: &str, digits: u8) -> Result<String, String> {
    let mut cursor = Cursor { rest: text };
    let clock = cursor.clock().ok_or_else(|| TIME.to_owned())?;
    cursor.end_without_offset(TIME)?;
    clock.print(digits)
}

/// Checks a timestamp without zone of so many `digits` and returns what PostgreSQL prints for it.
pub(super) fn timestamp(text: &str, digits: u8) -> Result<String, String> {
    let mut cursor = Cursor { rest: text };
    let (_, clock) = cursor.date_and_clock(TIMESTAMP)?;
    cursor.end_without_offset(TIMESTAMP)?;
    let date = text.get(..DATE_BYTES).unwrap_or_default();
    Ok(format!("{date} {}", clock.print(digits)?))
}

/// Checks a timestamp with offset of so many `digits` and returns it for PostgreSQL to read.
pub(super) fn timestamp_tz(text: &str, digits: u8) -> Result<String, String> {
    let mut cursor = Cursor { rest: text };
    let (_, clock) = cursor.date_and_clock(RFC_3339)?;
    let offset = cursor.offset_at_end(&clock)?;
    let date = text.get(..DATE_BYTES).unwrap_or_default();
    let (sign, hours, minutes) = offset;
    Ok(format!("{date} {}{sign}{hours:02}:{minutes:02}", clock.print(digits)?))
}

/// RFC 3339 in UTC, with milliseconds.
pub fn rfc3339_millis(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", time.date())
}

/// Reads an RFC 3339 time; what is finer than a microsecond is cut off, never rounded up.
pub fn parse_rfc3339_micros(text: &str) -> Result<OffsetDateTime, String> {
    let mut cursor = Cursor { rest: text };
    let (date, clock) = cursor.date_and_clock(RFC_3339)?;
    let (sign, hours, minutes) = cursor.offset_at_end(&clock)?;
    let seconds = (i32::from(hours) * 60 + i32::from(minutes)) * 60;
    let signed = if sign == '-' { -seconds } else { seconds };
    let offset = UtcOffset::from_whole_seconds(signed).ok();
    let time = Time::from_hms_micro(clock.hour, clock.minute, clock.second, clock.micros()).ok();
    let (Some(offset), Some(time)) = (offset, time) else { return Err(RFC_3339.to_owned()) };
    Ok(PrimitiveDateTime::new(date, time).assume_offset(offset))
}

/// The bytes of `YYYY-MM-DD`.
const DATE_BYTES: usize = 10;

/// A time of day, in range.
struct Clock<'a> {
    hour: u8,
    minute: u8,
    second: u8,
    /// Whether the seconds were written.
    has_second: bool,
    /// Digits, without trailing zeros.
    fraction: &'a str,
}

impl Clock<'_> {
    fn print(&self, digits: u8) -> Result<String, String> {
        let Self { hour, minute, second, fraction, .. } = self;
        if fraction.len() > usize::from(digits) {
            return Err(format!("expects at most {digits} digits of a second"));
        }
        let point = if fraction.is_empty() { "" } else { "." };
        Ok(format!("{hour:02}:{minute:02}:{second:02}{point}{fraction}"))
    }

    fn micros(&self) -> u32 {
        let digits = self.fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
        digits.fold(0, |micros, digit| micros * 10 + u32::from(digit.saturating_sub(b'0')))
    }
}

/// What is left to read.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, expected: &[char]) -> Option<char> {
        let first = self.rest.chars().next().filter(|first| expected.contains(first))?;
        self.rest = self.rest.get(first.len_utf8()..)?;
        Some(first)
    }

    /// A number of exactly so many `digits`, at most `max`.
    fn number(&mut self, digits: usize, max: u16) -> Option<u16> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        let number = number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)?;
        self.rest = rest;
        number.parse().ok().filter(|number| *number <= max)
    }

    fn two(&mut self, max: u8) -> Option<u8> {
        self.number(2, u16::from(max)).and_then(|number| u8::try_from(number).ok())
    }

    fn date(&mut self) -> Option<Date> {
        let year = self.number(4, 9999).filter(|year| *year > 0)?;
        self.take(&['-'])?;
        let month = Month::try_from(self.two(12)?).ok()?;
        self.take(&['-'])?;
        Date::from_calendar_date(i32::from(year), month, self.two(31)?).ok()
    }

    /// `HH:MM[:SS[.f]]`. The leap second is refused: PostgreSQL would make it the next minute.
    fn clock(&mut self) -> Option<Clock<'a>> {
        let hour = self.two(23)?;
        self.take(&[':'])?;
        let minute = self.two(59)?;
        if self.take(&[':']).is_none() {
            return Some(Clock { hour, minute, second: 0, has_second: false, fraction: "" });
        }
        let second = self.two(59)?;
        let mut fraction = "";
        if self.take(&['.']).is_some() {
            let rest = self.rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            fraction = self.rest.strip_suffix(rest).filter(|digits| !digits.is_empty())?;
            self.rest = rest;
        }
        let fraction = fraction.trim_end_matches('0');
        Some(Clock { hour, minute, second, has_second: true, fraction })
    }

    fn date_and_clock(&mut self, expected: &str) -> Result<(Date, Clock<'a>), String> {
        let date = self.date().ok_or_else(|| DATE.to_owned())?;
        self.take(&['T', 't', ' ']).ok_or_else(|| expected.to_owned())?;
        let clock = self.clock().ok_or_else(|| TIME.to_owned())?;
        Ok((date, clock))
    }

    fn end_without_offset(&self, expected: &str) -> Result<(), String> {
        match self.rest.chars().next() {
            None => Ok(()),
            Some('Z' | 'z' | '+' | '-') => Err(NO_OFFSET.to_owned()),
            Some(_) => Err(expected.to_owned()),
        }
    }

    /// The sign, hours and minutes of the offset that ends the text.
    fn offset_at_end(&mut self, clock: &Clock<'_>) -> Result<(char, u8, u8), String> {
        if self.rest.is_empty() {
            return Err(WITH_OFFSET.to_owned());
        }
        if !clock.has_second {
            return Err(RFC_3339.to_owned());
        }
        let sign = self.take(&['Z', 'z', '+', '-']).ok_or_else(|| RFC_3339.to_owned())?;
        let offset = match sign {
            '+' | '-' => self.offset(sign),
            _ => Some(('+', 0, 0)),
        };
        offset.filter(|_| self.rest.is_empty()).ok_or_else(|| OFFSET.to_owned())
    }

    fn offset(&mut self, sign: char) -> Option<(char, u8, u8)> {
        let hours = self.two(OFFSET_HOURS_MAX)?;
        self.take(&[':'])?;
        Some((sign, hours, self.two(59)?))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn assert_reads(
        read: impl Fn(&str) -> Result<String, String>,
        table: &[(&str, Result<&str, &str>)],
    ) {
        for (text, expected) in table {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_date_stands_in_the_calendar() {
        assert_reads(
            date,
            &[
                ("2026-01-02", Ok("2026-01-02")),
                ("0001-01-01", Ok("0001-01-01")),
                ("9999-12-31", Ok("9999-12-31")),
                ("2024-02-29", Ok("2024-02-29")),
                ("2000-02-29", Ok("2000-02-29")),
                ("1900-02-29", Err(DATE)),
                ("2026-02-29", Err(DATE)),
                ("2026-04-31", Err(DATE)),
                ("2026-13-01", Err(DATE)),
                ("2026-00-01", Err(DATE)),
                ("2026-01-00", Err(DATE)),
                ("0000-01-01", Err(DATE)),
                ("10000-01-01", Err(DATE)),
                ("2026-1-2", Err(DATE)),
                ("20260102", Err(DATE)),
                ("02.01.2026", Err(DATE)),
                ("2026-01-02 ", Err(DATE)),
                ("2026-01-02T00:00:00", Err(DATE)),
                ("+026-01-02", Err(DATE)),
                ("2026-01-0é", Err(DATE)),
                ("today", Err(DATE)),
            ],
        );
    }

    #[test]
    fn a_time_keeps_its_digits_or_is_refused() {
        let digits = "expects at most 2 digits of a second";
        assert_reads(
            |text| time(text, 2),
            &[
                ("09:30", Ok("09:30:00")),
                ("23:59:59", Ok("23:59:59")),
                ("09:30:00.12", Ok("09:30:00.12")),
                ("09:30:00.1200", Ok("09:30:00.12")),
                ("09:30:00.000", Ok("09:30:00")),
                ("09:30:00.123", Err(digits)),
                ("24:00:00", Err(TIME)),
                ("12:60:00", Err(TIME)),
                ("23:59:60", Err(TIME)),
                ("9:30", Err(TIME)),
                ("09:30:", Err(TIME)),
                ("09:30:00.", Err(TIME)),
                ("09:30:00,5", Err(TIME)),
                ("09:30 PM", Err(TIME)),
                ("09:30:00Z", Err(NO_OFFSET)),
                ("09:30+02", Err(NO_OFFSET)),
            ],
        );
    }

    #[test]
    fn a_timestamp_has_no_offset() {
        assert_reads(
            |text| timestamp(text, 0),
            &[
                ("2026-01-02T09:30:15", Ok("2026-01-02 09:30:15")),
                ("2026-01-02 09:30", Ok("2026-01-02 09:30:00")),
                ("2026-01-02T09:30:15.0", Ok("2026-01-02 09:30:15")),
                ("2026-01-02T09:30:15.9", Err("expects at most 0 digits of a second")),
                ("2026-01-02T09:30:15Z", Err(NO_OFFSET)),
                ("2026-01-02T09:30:15+00:00", Err(NO_OFFSET)),
                ("2026-01-02T09:30:15-02", Err(NO_OFFSET)),
                ("2026-01-02T24:00:00", Err(TIME)),
                ("2026-02-30T00:00:00", Err(DATE)),
                ("2026-01-02", Err(TIMESTAMP)),
                ("2026-01-02_09:30:15", Err(TIMESTAMP)),
                ("2026-01-02T09:30:15 UTC", Err(TIMESTAMP)),
            ],
        );
    }

    #[test]
    fn a_timestamp_with_time_zone_has_an_offset() {
        assert_reads(
            |text| timestamp_tz(text, 6),
            &[
                ("2026-01-02T09:30:15Z", Ok("2026-01-02 09:30:15+00:00")),
                ("2026-01-02t09:30:15.5z", Ok("2026-01-02 09:30:15.5+00:00")),
                ("2026-01-02 09:30:15.123456-05:30", Ok("2026-01-02 09:30:15.123456-05:30")),
                ("0001-01-01T00:00:00+15:59", Ok("0001-01-01 00:00:00+15:59")),
                ("2026-01-02T09:30:15.1234567Z", Err("expects at most 6 digits of a second")),
                ("2026-01-02T09:30:15", Err(WITH_OFFSET)),
                ("2026-01-02T09:30Z", Err(RFC_3339)),
                ("2026-01-02T09:30:15 Europe/Berlin", Err(RFC_3339)),
                ("2026-01-02T09:30:15+16:00", Err(OFFSET)),
                ("2026-01-02T09:30:15+01:60", Err(OFFSET)),
                ("2026-01-02T09:30:15+0100", Err(OFFSET)),
                ("2026-01-02T09:30:15+01", Err(OFFSET)),
                ("2026-01-02T09:30:15Zulu", Err(OFFSET)),
                ("2026-06-30T23:59:60Z", Err(TIME)),
            ],
        );
    }

    #[test]
    fn occurred_at_is_cut_to_microseconds_and_never_rounded_up() {
        let table = [
            ("2026-01-02T03:04:05Z", datetime!(2026-01-02 03:04:05 UTC)),
            ("2026-01-02T03:04:05.5+02:00", datetime!(2026-01-02 01:04:05.5 UTC)),
            ("2026-01-02T03:04:05-01:30", datetime!(2026-01-02 04:34:05 UTC)),
            ("2026-01-02T03:04:05.1234569Z", datetime!(2026-01-02 03:04:05.123456 UTC)),
            ("2026-12-31T23:59:59.999999999999Z", datetime!(2026-12-31 23:59:59.999999 UTC)),
            ("2026-01-02T03:04:05.0000009Z", datetime!(2026-01-02 03:04:05 UTC)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_rfc3339_micros(text), Ok(expected), "{text}");
        }
        for text in ["", "now", "2026-01-02", "2026-01-02T03:04:05", "2026-02-30T03:04:05Z"] {
            assert!(parse_rfc3339_micros(text).is_err(), "{text}");
        }
    }
}
