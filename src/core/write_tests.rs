use serde_json::{Value, json};

use super::super::examples::{account, entities, message};
use super::*;

const BODY_BYTES_MAX: usize = 64;

fn reason_of(message: &Message) -> Option<(Reason, Option<String>)> {
    let decoded = decode(message, &entities(account()), BODY_BYTES_MAX);
    decoded.err().map(|refused| (refused.rejection.reason, refused.rejection.pointer))
}

#[test]
fn every_flaw_of_a_message_has_its_reason_and_names_the_member() {
    let upsert = |body: &str| message("w", "account.upsert", body, &[]);
    let guarded = |name: &str, value: Value| message("w", "account.upsert", "{}", &[(name, value)]);
    let keyed = |key: &str| Message { routing_key: key.into(), ..upsert("{}") };
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    let table: &[(Message, Option<(Reason, Option<&str>)>)] = &[
        (upsert(r#"{"name":"Ann","balance":1}"#), None),
        (upsert(r#"{"id":7,"name":"Ann"}"#), None),
        (upsert(r#"{"id":8}"#), Some((Reason::KeyMismatch, Some("/id")))),
        (upsert("[]"), Some((Reason::MalformedBody, None))),
        (upsert("{"), Some((Reason::MalformedBody, None))),
        (upsert(""), Some((Reason::MalformedBody, None))),
        (upsert("{} {}"), Some((Reason::MalformedBody, None))),
        (upsert(r#"{"name":"a","name":"b"}"#), Some((Reason::MalformedBody, None))),
        (upsert(&long), Some((Reason::BodyTooLarge, None))),
        (upsert(r#"{"nam/e":1}"#), Some((Reason::UnknownColumn, Some("/nam~1e")))),
        (upsert(r#"{"version":1}"#), Some((Reason::UnknownColumn, Some("/version")))),
        (upsert(r#"{"seen_at":null}"#), Some((Reason::UnknownColumn, Some("/seen_at")))),
        (upsert(r#"{"balance":"x"}"#), Some((Reason::TypeMismatch, Some("/balance")))),
        (upsert(r#"{"balance":1.5}"#), Some((Reason::TypeMismatch, Some("/balance")))),
        (upsert(r#"{"name":"Annie"}"#), Some((Reason::TypeMismatch, Some("/name")))),
        (upsert(r#"{"name":null}"#), Some((Reason::ConstraintViolation, Some("/name")))),
        (upsert(r#"{"balance":null}"#), None),
        (keyed("007"), Some((Reason::KeyInvalid, None))),
        (keyed(""), Some((Reason::KeyInvalid, None))),
        (keyed("7\0"), Some((Reason::KeyInvalid, None))),
        (keyed("-7"), None),
        (guarded("if-version", json!(0)), None),
        (guarded("if-version", json!("*")), None),
        (guarded("if-version", json!("12")), None),
        (guarded("if-version", json!(-1)), Some((Reason::TypeMismatch, None))),
        (guarded("if-version", json!("007x")), Some((Reason::TypeMismatch, None))),
        (guarded("occurred-at", json!("2026-01-01T00:00:00Z")), None),
        (guarded("occurred-at", json!("yesterday")), Some((Reason::TypeMismatch, None))),
        (message("", "account.upsert", "{}", &[]), Some((Reason::MissingWriteId, None))),
        (
            message(&"w".repeat(201), "account.upsert", "{}", &[]),
            Some((Reason::MissingWriteId, None)),
        ),
        (message("w", "account", "{}", &[]), Some((Reason::MissingType, None))),
        (message("w", "acount.upsert", "{}", &[]), Some((Reason::UnknownEntity, None))),
        (message("w", "account.insert", "{}", &[]), Some((Reason::UnknownChange, None))),
    ];
    for (message, expected) in table {
        let expected = expected.map(|(reason, pointer)| (reason, pointer.map(str::to_owned)));
        assert_eq!(reason_of(message), expected, "{message:?}");
    }
}

#[test]
fn an_increment_adds_numbers_and_a_delete_names_nothing() {
    let table: &[(Message, Option<(Reason, Option<&str>)>)] = &[
        (message("w", "account.delete", "", &[]), None),
        (message("w", "account.delete", r#"{"id":7}"#, &[]), None),
        (
            message("w", "account.delete", r#"{"name":"x"}"#, &[]),
            Some((Reason::UnknownColumn, Some("/name"))),
        ),
        (message("w", "account.increment", r#"{"balance":1}"#, &[]), None),
        (
            message("w", "account.increment", r#"{"name":"x"}"#, &[]),
            Some((Reason::TypeMismatch, Some("/name"))),
        ),
        (
            message("w", "account.increment", r#"{"balance":null}"#, &[]),
            Some((Reason::TypeMismatch, Some("/balance"))),
        ),
    ];
    for (message, expected) in table {
        let expected = expected.map(|(reason, pointer)| (reason, pointer.map(str::to_owned)));
        assert_eq!(reason_of(message), expected, "{message:?}");
    }
}

#[test]
fn a_guard_without_its_column_is_refused_and_never_ignored() {
    let mut bare = account();
    bare.version = None;
    bare.occurred_at = None;
    let bare = entities(bare);
    for (name, value, refused) in [
        ("if-version", json!(3), true),
        ("occurred-at", json!("2026-01-01T00:00:00Z"), true),
        // Whether a row is there can be told without a version.
        ("if-version", json!(0), false),
        ("if-version", json!("*"), false),
    ] {
        let message = message("w", "account.upsert", "{}", &[(name, value)]);
        let decoded = decode(&message, &bare, BODY_BYTES_MAX);
        let reason = decoded.err().map(|refused| refused.rejection.reason);
        assert_eq!(reason, refused.then_some(Reason::UnsupportedGuard), "{message:?}");
    }
}

#[test]
fn a_content_type_other_than_json_is_refused() {
    for (media, refused) in [
        (None, false),
        (Some("application/json"), false),
        (Some("Application/JSON; charset=utf-8"), false),
        (Some("text/plain"), true),
    ] {
        let mut message = message("w", "account.upsert", "{}", &[]);
        message.properties.content_type = media.map(str::to_owned);
        let reason = reason_of(&message).map(|(reason, _)| reason);
        assert_eq!(reason, refused.then_some(Reason::UnsupportedMediaType), "{media:?}");
    }
}

#[test]
fn the_same_content_has_the_same_fingerprint_and_any_other_has_another() {
    let of = |kind: &str, body: &str, headers: &[(&str, Value)]| {
        let decoded =
            decode(&message("w", kind, body, headers), &entities(account()), BODY_BYTES_MAX);
        match decoded {
            Ok(write) => write.identity.fingerprint,
            Err(refused) => refused.identity.unwrap().fingerprint,
        }
    };
    let one = of("account.upsert", r#"{"name":"Ann","balance":1}"#, &[]);
    for body in [r#"{"balance":1.0,"name":"Ann"}"#, r#"{"id":7,"balance":1,"name":"\u0041nn"}"#] {
        assert_eq!(of("account.upsert", body, &[]), one, "{body}");
    }
    let others = [
        of("account.update", r#"{"name":"Ann","balance":1}"#, &[]),
        of("account.upsert", r#"{"name":"Ann","balance":2}"#, &[]),
        of("account.upsert", r#"{"name":"Ann"}"#, &[]),
        of("account.upsert", r#"{"name":"Ann","balance":1}"#, &[("if-version", json!(1))]),
        of("account.upsert", "no json", &[]),
        of("account.upsert", "no json either", &[]),
    ];
    for (position, other) in others.iter().enumerate() {
        assert_ne!(*other, one, "{position}");
    }
    assert_ne!(others[4], others[5]);
    let at = |text: &str| of("account.upsert", "{}", &[("occurred-at", json!(text))]);
    assert_eq!(at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00+01:00"));
}

#[test]
fn composite_keys_are_encoded_in_one_way_only() {
    let mut entity = account();
    entity.key.push(super::super::examples::column("region", ColumnType::Text(None)));
    for (routing_key, parts) in [
        ("7/eu", Some(["7", "eu"])),
        ("7/a%2Fb%25", Some(["7", "a/b%"])),
        ("7", None),
        ("7/a/b", None),
        ("7/a%2fb", None),
        ("7/a%20b", None),
        ("07/eu", None),
        ("7/", None),
    ] {
        let key = Key::parse(&entity, routing_key).ok();
        let parsed = key.as_ref().map(Key::parts);
        assert_eq!(
            parsed,
            parts.map(|parts| parts.map(str::to_owned)).as_ref().map(|p| &p[..]),
            "{routing_key}"
        );
    }
}

/// Even where the key column would take any text.
#[test]
fn what_is_no_text_is_rejected_by_its_place() {
    let mut entity = account();
    entity.key[0].kind = ColumnType::Text(None);
    let entities = entities(entity);
    let bad = || format!("{NOT_TEXT}\\xff.upsert");
    let good = || message("w", "account.upsert", r#"{"name":"Ann"}"#, &[]);
    let with = |change: fn(&mut Message, String)| {
        let mut message = good();
        change(&mut message, bad());
        message
    };
    let table = [
        (good(), None),
        (with(|message, bad| message.routing_key = bad), Some(Reason::KeyInvalid)),
        (
            with(|message, bad| message.properties.message_id = Some(bad)),
            Some(Reason::MissingWriteId),
        ),
        (with(|message, bad| message.properties.kind = Some(bad)), Some(Reason::MissingType)),
        (
            with(|message, bad| message.properties.content_type = Some(bad)),
            Some(Reason::UnsupportedMediaType),
        ),
        (with(|message, bad| drop(message.properties.headers.insert(bad, Value::Null))), None),
    ];
    for (message, reason) in table {
        let decoded = decode(&message, &entities, BODY_BYTES_MAX);
        assert_eq!(decoded.err().map(|refused| refused.rejection.reason), reason, "{message:?}");
    }
}
