//! Decimal numbers as the model compares them: digits and a power of ten.

/// A number other than a huge one: no zeros at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decimal {
    digits: i128,
    power: i32,
}

impl Decimal {
    /// Reads JSON's form of a number; `None` where it has more than 30 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.len() > 30 {
            return None;
        }
        let mut digits: i128 = digits.parse().ok()?;
        let mut power = power.parse::<i32>().ok()? - i32::try_from(fraction.len()).ok()?;
        if digits == 0 {
            return Some(Self { digits, power: 0 });
        }
        while digits % 10 == 0 {
            digits /= 10;
            power += 1;
        }
        Some(Self { digits, power })
    }

    /// The number times ten to the power of `places`, where that is whole and of at most `max`.
    pub(crate) fn scaled(self, places: i32, max: i64) -> Option<i64> {
        let power = u32::try_from(self.power + places).ok().filter(|power| *power < 30)?;
        let scaled = self.digits.checked_mul(10_i128.checked_pow(power)?)?;
        i64::try_from(scaled).ok().filter(|scaled| scaled.abs() <= max)
    }
}
