//! What fits a number column, and what sums come to.

use bigdecimal::BigDecimal;
use proptest::prelude::*;

use super::super::column::ColumnType::{self, *};

fn checked(kind: &ColumnType, json: &str) -> Option<String> {
    kind.check(json).ok()
}

#[test]
fn an_integer_column_takes_whole_numbers_in_range_however_they_are_written() {
    let table = [
        (Int2, "32767", Some("32767")),
        (Int2, "32768", None),
        (Int2, "-32768", Some("-32768")),
        (Int2, "-32769", None),
        (Int4, "2147483647", Some("2147483647")),
        (Int4, "2147483648", None),
        (Int4, "-2147483648", Some("-2147483648")),
        (Int4, "-2147483649", None),
        (Int8, "9223372036854775807", Some("9223372036854775807")),
        (Int8, "9223372036854775808", None),
        (Int8, "-9223372036854775808", Some("-9223372036854775808")),
        (Int8, "-9223372036854775809", None),
        (Int8, "-9223372036854775808.0", Some("-9223372036854775808")),
        (Int8, "9223372036854775.807e3", Some("9223372036854775807")),
        (Int8, "9223372036854775.808e3", None),
        (Int4, "1.0", Some("1")),
        (Int4, "1e3", Some("1000")),
        (Int4, "1E+3", Some("1000")),
        (Int4, "-12.50e1", Some("-125")),
        (Int4, "-54E0", Some("-54")),
        (Int4, "1000e-3", Some("1")),
        (Int4, "1001e-3", None),
        (Int4, "0.5", None),
        (Int4, "1e-1", None),
        (Int4, "-0", Some("0")),
        (Int4, "-0.0e-7", Some("0")),
        (Int4, "0e99999999999999999999", Some("0")),
        (Int8, "1e19", None),
        (Int8, "1e99999999999999999999", None),
        (Int8, "1e-99999999999999999999", None),
        (Int8, "\"9007199254740993\"", Some("9007199254740993")),
        (Int8, "\"-007\"", Some("-7")),
        (Int8, "\"+7\"", None),
        (Int8, "\"1.0\"", None),
        (Int8, "\"1e3\"", None),
        (Int8, "\" 7\"", None),
        (Int8, "\"\"", None),
        (Int8, "\"-\"", None),
    ];
    for (kind, json, expected) in table {
        assert_eq!(checked(&kind, json).as_deref(), expected, "{kind:?} {json}");
    }
}

#[test]
fn a_numeric_column_takes_what_it_need_not_round() {
    let table: [((u16, i16), &str, Option<&str>); 30] = [
        ((4, 2), "99.99", Some("99.99")),
        ((4, 2), "-99.99", Some("-99.99")),
        ((4, 2), "100", None),
        ((4, 2), "99.999", None),
        ((4, 2), "0.001", None),
        ((4, 2), "1.1", Some("1.1")),
        ((4, 2), "1.10", Some("1.10")),
        ((4, 2), "1.1000", Some("1.10")),
        ((4, 2), "1e1", Some("10")),
        ((4, 2), "1e2", None),
        ((4, 2), "1e-2", Some("0.01")),
        ((4, 2), "1e-3", None),
        ((4, 2), "0", Some("0")),
        ((4, 2), "-0.000", Some("0.00")),
        ((4, 2), "0e999999999999", Some("0")),
        ((4, 2), "\"12.5\"", Some("12.5")),
        ((4, 2), "\"0012.5\"", Some("12.5")),
        ((4, 2), "\"12,5\"", None),
        ((4, 2), "\".5\"", None),
        ((4, 2), "\"5.\"", None),
        ((4, 2), "\"+5\"", None),
        ((4, 2), "\"5e\"", None),
        ((4, 2), "\"NaN\"", None),
        ((3, -2), "12300", Some("12300")),
        ((3, -2), "12350", None),
        ((3, -2), "99900", Some("99900")),
        ((3, -2), "100000", None),
        ((2, 5), "0.00099", Some("0.00099")),
        ((2, 5), "0.00100", None),
        ((2, 5), "0.000001", None),
    ];
    for (modifier, json, expected) in table {
        let kind = Numeric(Some(modifier));
        assert_eq!(checked(&kind, json).as_deref(), expected, "{modifier:?} {json}");
    }
}

#[test]
fn a_numeric_column_without_precision_keeps_all_digits_and_huge_exponents_cost_nothing() {
    let long = "123456789012345678901234567890.098765432109876543210987654321";
    let kind = Numeric(None);
    let whole_max = format!("1{}", "0".repeat(131_071));
    let scale_max = format!("0.{}1", "0".repeat(16_382));
    let table = [
        (long, Some(long)),
        ("1.50", Some("1.50")),
        ("1.50e1", Some("15.0")),
        ("-1.50E+0", Some("-1.50")),
        ("-1.5e-3", Some("-0.0015")),
        ("1e131071", Some(whole_max.as_str())),
        ("1e131072", None),
        ("1e-16383", Some(scale_max.as_str())),
        ("1e-16384", None),
        ("10e-16384", Some(scale_max.as_str())),
        ("1e9223372036854775808", None),
        ("1e-9223372036854775808", None),
        ("-1e999999999999999999999999", None),
    ];
    for (json, expected) in table {
        assert_eq!(checked(&kind, json).as_deref(), expected, "{json:.20}");
    }
    let zeros = format!("1.{}", "0".repeat(20_000));
    assert_eq!(checked(&kind, &zeros).map(|text| text.len()), Some(2 + 16_383));
}

#[test]
fn a_float_column_takes_what_its_width_can_hold() {
    let table = [
        (Float8, "0.1", Some("0.1")),
        (Float8, "1", Some("1")),
        (Float8, "-0.0", Some("-0")),
        (Float8, "0e999", Some("0")),
        (Float8, "1e308", Some("1e308")),
        (Float8, "1e309", None),
        (Float8, "-1e309", None),
        (Float8, "5e-324", Some("5e-324")),
        (Float8, "1e-400", None),
        (Float8, "\"NaN\"", Some("NaN")),
        (Float8, "\"-Infinity\"", Some("-Infinity")),
        (Float8, "\"Infinity\"", Some("Infinity")),
        (Float8, "\"inf\"", None),
        (Float8, "\"1.5\"", None),
        (Float4, "0.1", Some("0.1")),
        (Float4, "16777217", Some("16777216")),
        (Float4, "3.4e38", Some("3.4e38")),
        (Float4, "3.5e38", None),
        (Float4, "1e-45", Some("1e-45")),
        (Float4, "1e-46", None),
    ];
    for (kind, json, expected) in table {
        assert_eq!(checked(&kind, json).as_deref(), expected, "{kind:?} {json}");
    }
}

#[test]
fn a_sum_is_computed_in_the_type_of_its_column() {
    let cents = Numeric(Some((4, 2)));
    let table = [
        (Int2, None, "5", Some("5")),
        (Int2, Some("32766"), "1", Some("32767")),
        (Int2, Some("32767"), "1", None),
        (Int2, Some("-32768"), "-1", None),
        (Int8, Some("9223372036854775807"), "1", None),
        (Int8, Some("-9223372036854775808"), "-1", None),
        (Int4, Some("1.5"), "1", Some("3")),
        (Int4, Some("-1.5"), "1", Some("-1")),
        (cents.clone(), None, "0.5", Some("0.5")),
        (cents.clone(), Some("99.98"), "0.01", Some("99.99")),
        (cents.clone(), Some("99.99"), "0.01", None),
        (cents.clone(), Some("-99.99"), "-0.01", None),
        (cents.clone(), Some("1.005"), "0", Some("1.01")),
        (cents.clone(), Some("-1.005"), "0", Some("-1.01")),
        (cents, Some("NaN"), "1", Some("NaN")),
        (Numeric(Some((3, -2))), Some("99900"), "100", None),
        (Numeric(None), Some("1.50"), "-1.5", Some("0.00")),
        (Numeric(None), Some("0"), "1.50", Some("1.50")),
        (Numeric(None), Some("1e99"), "1", None),
        (Numeric(None), Some("1"), "1e999999999999", None),
        (Numeric(None), Some("-Infinity"), "1", Some("-Infinity")),
        (Float4, Some("16777216"), "1", Some("16777216")),
        (Float8, Some("16777216"), "1", Some("16777217")),
        (Float4, Some("3.4e+38"), "3.4e38", None),
        (Float8, Some("1e+308"), "1e308", None),
        (Float8, Some("0.1"), "0.2", Some("0.30000000000000004")),
        (Float4, Some("0.1"), "0.2", Some("0.3")),
        (Float8, Some("Infinity"), "-1", Some("Infinity")),
        (Float8, Some("Infinity"), "-Infinity", Some("NaN")),
        (Float8, Some("NaN"), "1", Some("NaN")),
        (Float8, Some("1"), "-Infinity", Some("-Infinity")),
    ];
    for (kind, current, delta, expected) in table {
        let sum = kind.add(current, delta);
        assert_eq!(sum.as_deref().ok(), expected, "{kind:?} {current:?} + {delta}");
    }
}

/// A decimal number, its digits and its exponent.
fn decimals() -> impl Strategy<Value = String> {
    ("-?(0|[1-9][0-9]{0,14})", "(\\.[0-9]{1,12})?", "([eE][+-]?[0-3]?[0-9])?")
        .prop_map(|(whole, fraction, exponent)| whole + &fraction + &exponent)
}

fn exact(text: &str) -> BigDecimal {
    text.parse().unwrap()
}

fn fits(value: &BigDecimal, precision: u16, scale: i16) -> bool {
    let limit = exact(&format!("1e{}", i64::from(precision) - i64::from(scale)));
    value.abs() < limit && value.with_scale(scale.into()) == *value
}

proptest! {
    #[test]
    fn every_integer_is_stored_as_it_was_sent(value: i64) {
        for json in [format!("{value}"), format!("\"{value}\""), format!("{value}.0"), format!("{value}0e-1")] {
            prop_assert_eq!(Int8.check(&json), Ok(value.to_string()));
            prop_assert_eq!(Int4.check(&json).is_ok(), i32::try_from(value).is_ok());
        }
    }

    #[test]
    fn a_numeric_is_stored_exactly_or_refused(
        json in decimals(), precision in 1_u16..20, scale in -5_i16..25,
    ) {
        let value = exact(&json);
        match Numeric(Some((precision, scale))).check(&json) {
            Ok(text) => {
                prop_assert!(fits(&value, precision, scale));
                prop_assert!(!text.contains(['e', 'E']));
                prop_assert_eq!(exact(&text), value);
            }
            Err(_) => prop_assert!(!fits(&value, precision, scale)),
        }
        let unlimited = Numeric(None).check(&json).unwrap();
        prop_assert!(!unlimited.contains(['e', 'E']));
        prop_assert_eq!(exact(&unlimited), exact(&json));
    }

    #[test]
    fn an_integer_sum_is_exact_or_out_of_range(current: i64, delta: i64, near in -3_i64..3) {
        for delta in [delta, near, i64::MAX.wrapping_sub(current).wrapping_add(near)] {
            let sum = i128::from(current) + i128::from(delta);
            let expected = i64::try_from(sum).ok().map(|sum| sum.to_string());
            let got = Int8.add(Some(&current.to_string()), &delta.to_string());
            prop_assert_eq!(got.ok(), expected);
        }
    }

    #[test]
    fn a_numeric_sum_is_exact_or_out_of_range(
        current in -99_999_i64..=99_999, delta in -99_999_i64..=99_999, scale in 0_i16..7,
    ) {
        let kind = Numeric(Some((5, scale)));
        let [current, delta] = [current, delta].map(|digits| BigDecimal::new(digits.into(), scale.into()));
        let sum = &current + &delta;
        match kind.add(Some(&current.to_plain_string()), &delta.to_plain_string()) {
            Ok(text) => prop_assert_eq!(exact(&text), sum),
            Err(_) => prop_assert!(!fits(&sum, 5, scale)),
        }
    }

    #[test]
    fn a_float_reads_back_as_itself(bits: u64, narrow: u32) {
        let (double, single) = (f64::from_bits(bits), f32::from_bits(narrow));
        if double.is_finite() {
            let text = Float8.check(&format!("{double:e}")).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        }
        if single.is_finite() {
            let text = Float4.check(&format!("{single:e}")).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), narrow);
        }
    }
}
