//! Numbers as text, and sums in a column's own type.
//!
//! Owns: what fits an integer, a numeric and a float.
//! Never: lets an integer or a numeric pass through a binary float, or writes out an exponent
//! before it is known to be small.

use std::fmt::Debug;
use std::ops::{Add, RangeInclusive};
use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode};

use super::column::Mismatch;
use super::json::{Kind, expects, string};

/// smallint
pub(super) const INT2: RangeInclusive<i64> = -0x8000..=0x7FFF;
/// integer
pub(super) const INT4: RangeInclusive<i64> = -0x8000_0000..=0x7FFF_FFFF;
/// bigint
pub(super) const INT8: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Digits before and after the point of a numeric without precision (PostgreSQL's own bounds).
const NUMERIC_WHOLE_MAX: i64 = 131_072;
const NUMERIC_SCALE_MAX: i64 = 16_383;

/// Larger than the length of any text, and small enough to be added to one.
const EXPONENT_MAX: i64 = 1 << 48;

/// Precision and scale, where a column declares them.
type Modifier = Option<(u16, i16)>;

/// Checks a JSON number, or a JSON string of a plain integer (JavaScript has no bigint), and
/// returns it in plain decimal.
pub(super) fn check_integer(json: &str, range: RangeInclusive<i64>) -> Result<String, Mismatch> {
    match Kind::of(json) {
        Kind::Number => {
            // Nearly all integers come as plain digits.
            let value = json.parse::<i64>().ok().or_else(|| Decimal::parse(json)?.integer());
            within(value, &range).map_err(Mismatch::new)
        }
        Kind::String => {
            let text = string(json)?;
            let text = if text.starts_with('+') { "" } else { text.as_ref() };
            integer(text, &range).map_err(Mismatch::new)
        }
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => Err(expects("a JSON number", json)),
    }
}

/// Reads a plain integer in decimal digits, and prints it as PostgreSQL does.
pub(super) fn integer(text: &str, range: &RangeInclusive<i64>) -> Result<String, String> {
    within(text.parse().ok(), range)
}

fn within(value: Option<i64>, range: &RangeInclusive<i64>) -> Result<String, String> {
    match value.filter(|value| range.contains(value)) {
        Some(value) => Ok(value.to_string()),
        None => Err(format!("expects an integer from {} to {}", range.start(), range.end())),
    }
}

/// Checks a JSON number, or a JSON string of one, and returns it in plain decimal.
pub(super) fn check_numeric(json: &str, modifier: Modifier) -> Result<String, Mismatch> {
    match Kind::of(json) {
        Kind::Number => numeric(json, modifier).map_err(Mismatch::new),
        Kind::String => numeric(&string(json)?, modifier).map_err(Mismatch::new),
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => Err(expects("a JSON number", json)),
    }
}

fn numeric(text: &str, modifier: Modifier) -> Result<String, String> {
    let decimal = Decimal::parse(text).ok_or("expects a decimal number")?;
    let (whole_max, scale_max) = match modifier {
        Some((precision, scale)) => {
            (i64::from(precision).saturating_sub(scale.into()), i64::from(scale))
        }
        None => (NUMERIC_WHOLE_MAX, NUMERIC_SCALE_MAX),
    };
    let Some(span) = decimal.span() else {
        return Ok(print_zero(length(decimal.fraction).min(scale_max)));
    };
    if span.scale > scale_max {
        return Err(match scale_max {
            0.. => format!("expects at most {scale_max} digits after the point"),
            _ => format!("expects a multiple of 1e{}", scale_max.saturating_neg()),
        });
    }
    if span.magnitude > whole_max {
        return Err(match whole_max {
            0.. => format!("expects at most {whole_max} digits before the point"),
            _ => format!("expects a number nearer to 0 than 1e{whole_max}"),
        });
    }
    Ok(decimal.print(decimal.fraction_digits().min(scale_max)))
}

/// Checks a JSON number, or one of the names that JSON has no numbers for.
pub(super) fn check_float<F: Float>(json: &str) -> Result<String, Mismatch> {
    match Kind::of(json) {
        Kind::Number => {
            let Ok(value) = json.parse::<F>() else {
                return Err(expects("a JSON number", json));
            };
            let is_zero = Decimal::parse(json).is_some_and(|decimal| decimal.span().is_none());
            let wide: f64 = value.into();
            if wide.is_finite() && (wide != 0.0 || is_zero) {
                return Ok(print_float(value));
            }
            let detail = format!("expects a number that a float of {} bytes holds", size_of::<F>());
            Err(Mismatch::new(detail))
        }
        Kind::String => match string(json)?.as_ref() {
            name @ ("NaN" | "Infinity" | "-Infinity") => Ok(name.to_owned()),
            _ => Err(Mismatch::new(
                "expects a JSON number or one of the strings NaN, Infinity, -Infinity",
            )),
        },
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => Err(expects("a JSON number", json)),
    }
}

/// `f32` and `f64`.
pub(super) trait Float: FromStr + Into<f64> + Debug + Copy + Add<Output = Self> {}
impl Float for f32 {}
impl Float for f64 {}

/// The shortest text that reads back as the same float.
fn print_float<F: Float>(value: F) -> String {
    let wide: f64 = value.into();
    if wide.is_infinite() {
        return if wide > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let mut text = format!("{value:?}");
    if text.ends_with(".0") {
        text.truncate(text.len().saturating_sub(2));
    }
    text
}

/// The sum in an integer column. A default that is no integer is rounded as PostgreSQL does.
pub(super) fn add_integer(
    current: &str,
    delta: &str,
    range: RangeInclusive<i64>,
) -> Result<String, String> {
    let current =
        current.parse::<i64>().ok().or_else(|| rounded(current, 0)?.to_string().parse().ok());
    let sum =
        current.zip(delta.parse().ok()).and_then(|(current, delta)| current.checked_add(delta));
    within(sum, &range).map_err(beyond)
}

/// The sum in a numeric column. NaN and the infinities stay what they are.
pub(super) fn add_numeric(
    current: &str,
    delta: &str,
    modifier: Modifier,
) -> Result<String, String> {
    if matches!(current, "NaN" | "Infinity" | "-Infinity") {
        return Ok(current.to_owned());
    }
    let scale_max = modifier.map_or(NUMERIC_SCALE_MAX, |(_, scale)| scale.into());
    let (Some(current), Some(delta)) = (rounded(current, scale_max), plain(delta)) else {
        return Err("expects decimal numbers".to_owned());
    };
    let scale = current.fractional_digit_count().max(delta.fractional_digit_count());
    let sum = (current + delta).with_scale(scale);
    numeric(&sum.to_plain_string(), modifier).map_err(beyond)
}

/// The sum in a float column of this width; PostgreSQL refuses the one that overflows.
pub(super) fn add_float<F: Float>(current: &str, delta: &str) -> Result<String, String> {
    let (Ok(current), Ok(delta)) = (current.parse::<F>(), delta.parse::<F>()) else {
        return Err("expects numbers".to_owned());
    };
    let sum = current + delta;
    let [from, by, to]: [f64; 3] = [current.into(), delta.into(), sum.into()];
    if to.is_infinite() && from.is_finite() && by.is_finite() {
        return Err(beyond(format!("expects what a float of {} bytes holds", size_of::<F>())));
    }
    Ok(print_float(sum))
}

fn beyond(detail: impl AsRef<str>) -> String {
    format!("the sum is beyond the column: {}", detail.as_ref())
}

/// An exponent would be written out at the first sum.
fn plain(text: &str) -> Option<BigDecimal> {
    Some(text).filter(|text| !text.contains(['e', 'E'])).and_then(|text| text.parse().ok())
}

/// The number as a column of that scale keeps it: what is written in a default is rounded.
fn rounded(text: &str, scale_max: i64) -> Option<BigDecimal> {
    let decimal = plain(text)?;
    let fits = decimal.fractional_digit_count() <= scale_max;
    // Halves go away from zero.
    Some(if fits { decimal } else { decimal.with_scale_round(scale_max, RoundingMode::HalfUp) })
}

/// A decimal number as it is written.
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
    /// Sign, whole and fraction.
    mantissa: &'a str,
}

/// Where the digits of a number other than zero begin and end.
struct Span {
    /// The number is smaller than ten to the power of this.
    magnitude: i64,
    /// Digits after the point that are needed; negative if it ends in zeros before the point.
    scale: i64,
}

impl<'a> Decimal<'a> {
    /// Reads JSON's form of a number; leading zeros are taken too.
    fn parse(text: &'a str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
            None => (digits(unsigned)?, ""),
        };
        let negative = unsigned.len() < mantissa.len();
        Some(Self { negative, whole, fraction, exponent, mantissa })
    }

    /// `None` for zero.
    fn span(&self) -> Option<Span> {
        let is_digit = |digit: char| digit != '0';
        let whole = length(self.whole);
        let first = match self.whole.find(is_digit) {
            Some(at) => position(at),
            None => whole.saturating_add(position(self.fraction.find(is_digit)?)),
        };
        let last = match self.fraction.rfind(is_digit) {
            Some(at) => whole.saturating_add(position(at)),
            None => position(self.whole.rfind(is_digit)?),
        };
        let ones = whole.saturating_add(self.exponent);
        Some(Span { magnitude: ones - first, scale: last + 1 - ones })
    }

    /// Digits after the point as they are written.
    fn fraction_digits(&self) -> i64 {
        length(self.fraction).saturating_sub(self.exponent)
    }

    /// Plain decimal text with so many digits after the point, where that is enough.
    ///
    /// The number must be known to be of reasonable size.
    fn print(&self, scale: i64) -> String {
        let scale = scale.max(0);
        let magnitude = self.span().map_or(1, |span| span.magnitude.max(1));
        let is_canonical = self.exponent == 0
            && scale == length(self.fraction)
            && (self.whole.len() == 1 || !self.whole.starts_with('0'));
        if is_canonical {
            return self.mantissa.to_owned();
        }
        let mut text = String::from(if self.negative { "-" } else { "" });
        for place in (scale.saturating_neg()..magnitude).rev() {
            if place == -1 {
                text.push('.');
            }
            text.push(self.digit(place));
        }
        text
    }

    /// The digit that counts ten to the power of `place`.
    fn digit(&self, place: i64) -> char {
        let at = length(self.whole).saturating_add(self.exponent) - 1 - place;
        let digit =
            usize::try_from(at).ok().and_then(|at| match at.checked_sub(self.whole.len()) {
                None => self.whole.as_bytes().get(at),
                Some(at) => self.fraction.as_bytes().get(at),
            });
        digit.copied().map_or('0', char::from)
    }

    fn integer(&self) -> Option<i64> {
        match self.span() {
            None => Some(0),
            Some(Span { magnitude: ..=19, scale: ..=0 }) => self.print(0).parse().ok(),
            Some(_) => None,
        }
    }
}

fn print_zero(scale: i64) -> String {
    let scale = usize::try_from(scale).unwrap_or_default();
    if scale == 0 { "0".to_owned() } else { format!("0.{}", "0".repeat(scale)) }
}

fn digits(text: &str) -> Option<&str> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then_some(text)
}

/// Exponents beyond all measure are only measured.
fn parse_exponent(text: &str) -> Option<i64> {
    let unsigned = digits(text.strip_prefix(['+', '-']).unwrap_or(text))?;
    let size = unsigned.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

fn length(text: &str) -> i64 {
    position(text.len())
}

fn position(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(EXPONENT_MAX)
}

#[cfg(test)]
#[path = "number_tests.rs"]
mod tests;
