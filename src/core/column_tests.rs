//! What each type of column takes as it is, and what it refuses.

use super::ColumnType::*;
use super::*;

const SMALL: &str = "expects an integer from -32768 to 32767";

/// Checks rows of a type, a JSON value, and the text that is stored or the beginning of the detail.
fn assert_checks(table: &[(ColumnType, &str, Result<&str, &str>)]) {
    for (kind, json, expected) in table {
        match (kind.check(json), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, *expected, "{kind:?} {json}"),
            (Err(mismatch), Err(expected)) => {
                assert!(mismatch.detail.starts_with(expected), "{kind:?} {json}: {mismatch:?}");
            }
            (got, _) => panic!("{kind:?} {json}: {got:?} instead of {expected:?}"),
        }
    }
}

fn labels() -> ColumnType {
    Enum(vec!["new".to_owned(), "in \"transit\"".to_owned()])
}

#[test]
fn a_value_of_the_wrong_kind_is_told_which_kind_is_right() {
    assert_checks(&[
        (Text(None), "7", Err("expects a JSON string, got a number")),
        (Text(None), "true", Err("expects a JSON string, got a boolean")),
        (Text(None), "{}", Err("expects a JSON string, got an object")),
        (Text(None), "[]", Err("expects a JSON string, got an array")),
        (Uuid, "7", Err("expects a JSON string, got a number")),
        (Date, "20260102", Err("expects a JSON string, got a number")),
        (Time(6), "12", Err("expects a JSON string, got a number")),
        (Timestamp(6), "0", Err("expects a JSON string, got a number")),
        (TimestampTz(6), "1767225600", Err("expects a JSON string, got a number")),
        (Bytea, "[1]", Err("expects a JSON string, got an array")),
        (labels(), "0", Err("expects a JSON string, got a number")),
        (Bool, "\"yes\"", Err("expects true or false, got a string")),
        (Bool, "1", Err("expects true or false, got a number")),
        (Int4, "true", Err("expects a JSON number, got a boolean")),
        (Int4, "[1]", Err("expects a JSON number, got an array")),
        (Numeric(None), "{}", Err("expects a JSON number, got an object")),
        (Float8, "false", Err("expects a JSON number, got a boolean")),
        (Array(Box::new(Int4)), "1", Err("expects a JSON array, got a number")),
        (Array(Box::new(Int4)), "\"{1}\"", Err("expects a JSON array, got a string")),
        (Other, "{}", Err("expects a JSON string, a number or true or false, got an object")),
        (Other, "[1]", Err("expects a JSON string, a number or true or false, got an array")),
    ]);
}

#[test]
fn text_is_kept_whole_or_refused() {
    assert_checks(&[
        (Text(None), r#""""#, Ok("")),
        (Text(None), r#"" two\nlines \u00e9 \ud83d\ude00 ""#, Ok(" two\nlines é 😀 ")),
        (Text(None), r#""a\\u0000b""#, Ok(r"a\u0000b")),
        (Text(None), r#""a\u0000b""#, Err("expects text without the character U+0000")),
        (Text(None), r#""\ud83d""#, Err("expects whole characters")),
        (Text(Some(3)), r#""äöü""#, Ok("äöü")),
        (Text(Some(3)), r#""äöüx""#, Err("expects at most 3 characters")),
        (Text(Some(3)), r#""abc ""#, Err("expects at most 3 characters")),
        (Text(Some(0)), r#""""#, Ok("")),
        (Other, r#""10.0.0.0/8""#, Ok("10.0.0.0/8")),
        (Other, "1.50", Ok("1.50")),
        (Other, "true", Ok("true")),
        (Other, r#""\u0000""#, Err("expects text without the character U+0000")),
    ]);
}

#[test]
fn booleans_uuids_bytes_and_labels_have_one_spelling() {
    let lower = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    assert_checks(&[
        (Bool, "true", Ok("true")),
        (Bool, "false", Ok("false")),
        (Uuid, r#""6ba7b810-9dad-11d1-80b4-00c04fd430c8""#, Ok(lower)),
        (Uuid, r#""6BA7B810-9DAD-11D1-80B4-00C04FD430C8""#, Ok(lower)),
        (Uuid, r#""6ba7b8109dad11d180b400c04fd430c8""#, Ok(lower)),
        (Uuid, r#""{6ba7b810-9dad-11d1-80b4-00c04fd430c8}""#, Err("expects a uuid")),
        (Uuid, r#""6ba7-b810-9dad-11d1-80b4-00c0-4fd4-30c8""#, Err("expects a uuid")),
        (Uuid, r#""6ba7b810-9dad-11d1-80b400c0-4fd430c8""#, Err("expects a uuid")),
        (Uuid, r#""6ba7b8109dad11d180b400c04fd430cg""#, Err("expects a uuid")),
        (Uuid, r#""""#, Err("expects a uuid")),
        (Bytea, r#""\\x""#, Ok("\\x")),
        (Bytea, r#""\\x00fF""#, Ok("\\x00fF")),
        (Bytea, r#""\\x0""#, Err("expects bytes")),
        (Bytea, r#""\\x0g""#, Err("expects bytes")),
        (Bytea, r#""\\x00 ff""#, Err("expects bytes")),
        (Bytea, r#""aGk=""#, Err("expects bytes")),
        (Bytea, r#""\\X00""#, Err("expects bytes")),
        (labels(), r#""new""#, Ok("new")),
        (labels(), r#""in \"transit\"""#, Ok("in \"transit\"")),
        (labels(), r#""New""#, Err("expects one of the labels new, in \"transit\"")),
        (Int2, "32768", Err(SMALL)),
    ]);
}

#[test]
fn only_an_unknown_label_asks_for_a_fresh_catalogue() {
    let stale = |kind: ColumnType, json| kind.check(json).unwrap_err().stale;
    assert!(stale(labels(), r#""sold""#));
    assert!(stale(Array(Box::new(labels())), r#"["new", "sold"]"#));
    assert!(!stale(labels(), "1"));
    assert!(!stale(Text(Some(1)), r#""ab""#));
}

#[test]
fn a_mismatch_never_repeats_the_value() {
    let secret = r#""Eva-1977""#;
    let kinds = [
        Int8,
        Numeric(None),
        Float8,
        Text(Some(3)),
        Bool,
        Uuid,
        Date,
        Time(6),
        Timestamp(6),
        TimestampTz(6),
        Bytea,
        labels(),
        Array(Box::new(Int4)),
    ];
    for kind in kinds {
        let Mismatch { detail, pointer, .. } = kind.check(secret).unwrap_err();
        assert!(!detail.contains("Eva") && !detail.contains("1977"), "{kind:?}: {detail}");
        assert_eq!(pointer, "", "{kind:?}");
    }
}

#[test]
fn a_key_has_one_canonical_text() {
    let table = [
        (Int4, "7", Some("7")),
        (Int4, "007", Some("7")),
        (Int4, "+7", Some("7")),
        (Int4, "-0", Some("0")),
        (Int4, "2147483648", None),
        (Int8, "2147483648", Some("2147483648")),
        (Int2, "-32768", Some("-32768")),
        (Int4, "1.0", None),
        (Int4, " 7", None),
        (Int4, "", None),
        (Text(None), " Ab/% ", Some(" Ab/% ")),
        (Text(Some(2)), "abc", None),
        (Text(None), "a\0", None),
        (Bool, "t", Some("true")),
        (Bool, "false", Some("false")),
        (Bool, "1", None),
        (Uuid, "6BA7B8109DAD11D180B400C04FD430C8", Some("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        (Uuid, "x", None),
        (Date, "2026-01-02", Some("2026-01-02")),
        (Date, "2026-1-2", None),
        (Time(6), "09:30", Some("09:30:00")),
        (Time(0), "09:30:00.5", None),
        (Timestamp(3), "2026-01-02T09:30:00.120", Some("2026-01-02 09:30:00.12")),
        (Timestamp(6), "2026-01-02T09:30:00Z", None),
        (labels(), "new", Some("new")),
        (labels(), "NEW", None),
        (Float8, "1", None),
        (Numeric(None), "1", None),
        (TimestampTz(6), "2026-01-02T09:30:00Z", None),
        (Json, "1", None),
        (Jsonb, "1", None),
        (Bytea, "\\x00", None),
        (Array(Box::new(Int4)), "{1}", None),
        (Other, "1", None),
    ];
    for (kind, text, expected) in table {
        let key = kind.canonical_key(text);
        assert_eq!(key.as_deref().ok(), expected, "{kind:?} {text}");
        if let Ok(key) = key {
            assert!(kind.is_key_kind(), "{kind:?}");
            assert_eq!(kind.canonical_key(&key).as_ref(), Ok(&key), "{kind:?} {text}");
            // The key column in a body is compared with the routing key.
            let plain = matches!(kind, Bool) || kind.is_number();
            let json = if plain { key.clone() } else { serde_json::to_string(text).unwrap() };
            assert_eq!(kind.check(&json).as_ref(), Ok(&key), "{kind:?} {text}");
        }
    }
}

#[test]
fn only_numbers_can_be_added() {
    let numbers = [Int2, Int4, Int8, Numeric(None), Numeric(Some((3, 1))), Float4, Float8];
    for kind in numbers {
        assert!(kind.is_number(), "{kind:?}");
        assert_eq!(kind.add(None, "1").as_deref(), Ok("1"), "{kind:?}");
    }
    let others = [
        Text(None),
        Bool,
        Uuid,
        Date,
        Time(6),
        Timestamp(6),
        TimestampTz(6),
        Json,
        Jsonb,
        Bytea,
        labels(),
        Array(Box::new(Int4)),
        Other,
    ];
    for kind in others {
        assert!(!kind.is_number(), "{kind:?}");
        assert!(kind.add(Some("1"), "1").is_err(), "{kind:?}");
    }
}
