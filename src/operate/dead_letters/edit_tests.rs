use super::*;
use crate::operate::dead_letters::{Body, Hex};
use time::OffsetDateTime;

fn letter(state: &str, entity: Option<&str>, reason: &str) -> DeadLetter {
    let kind = format!("{}.upsert", entity.unwrap_or("nobody"));
    DeadLetter {
        id: 7,
        state: state.into(),
        entity: entity.map(Into::into),
        key: entity.map(|_| "k".into()),
        write_id: entity.map(|_| "w".into()),
        fingerprint: Hex(None),
        reason: reason.into(),
        detail: None,
        pointer: None,
        routing_key: "k".into(),
        properties: Json(json!({ "type": kind, "headers": {"x": "a\\\\b"} })),
        body: Body(b"{\"a\":1}".to_vec()),
        generation: 1,
        partition: 0,
        attempts: 1,
        dead_at: OffsetDateTime::UNIX_EPOCH,
        state_changed_at: None,
        state_changed_by: None,
        note: None,
        stops: false,
        revision: 0,
        result: None,
    }
}

fn body(text: &str) -> Edit {
    Edit { body: Some(text.as_bytes().to_vec()), ..Edit::default() }
}

fn kind(text: &str) -> Edit {
    Edit { kind: Some(text.into()), ..Edit::default() }
}

fn write_id(text: &str) -> Edit {
    Edit { write_id: Some(text.into()), ..Edit::default() }
}

#[test]
fn an_edit_that_can_be_stored_says_what_it_changes() {
    let item = letter("dead", Some("item"), "type_mismatch");
    let edited = prepare(&item, body(r#"{"a":2}"#)).unwrap();
    assert_eq!(edited.changes.lines(), ["body /a: 1 -> 2"]);
    assert_eq!(edited.properties, item.properties.0, "headers are stored as they were");
    let edited = prepare(&item, kind("item.create")).unwrap();
    let line = r#"properties /type: "item.upsert" -> "item.create""#;
    assert_eq!(edited.changes.lines(), [line]);
    let delete = Edit { body: Some(Vec::new()), ..kind("item.delete") };
    assert!(prepare(&item, delete).is_ok());
    let nobody = letter("dead", None, "missing_write_id");
    let given = Edit { write_id: Some("w1".into()), ..kind("item.upsert") };
    let edited = prepare(&nobody, given).unwrap();
    assert_eq!(edited.message.properties.message_id.as_deref(), Some("w1"));
}

#[test]
fn an_edit_that_cannot_be_stored_says_why() {
    let item = || letter("dead", Some("item"), "type_mismatch");
    let nobody = || letter("dead", None, "missing_write_id");
    let table = [
        (item(), Edit::default(), "nothing changed"),
        (item(), body(r#"{"a":1}"#), "nothing changed"),
        (item(), body("{"), "no JSON object"),
        (item(), body("[]"), "no JSON object"),
        (item(), body(""), "no JSON object"),
        (item(), body(r#"{"a":1,"a":2}"#), "twice"),
        (item(), kind("item"), "ENTITY.CHANGE"),
        (item(), kind("item.merge"), "upsert, create"),
        (item(), kind(".upsert"), "ENTITY.CHANGE"),
        (item(), kind("order.upsert"), "cannot be changed to order"),
        (item(), write_id("w2"), "without one"),
        (nobody(), write_id(""), "1 to 200 bytes"),
        (nobody(), write_id(&"x".repeat(201)), "1 to 200 bytes"),
        (letter("resolved", Some("item"), "r"), body("{}"), "is resolved"),
        (letter("replaying", Some("item"), "r"), body("{}"), "is replaying"),
    ];
    for (letter, edit, says) in table {
        let shown = format!("{edit:?}");
        let error = prepare(&letter, edit).unwrap_err();
        assert!(error.contains(says), "{shown}: {error}");
    }
}
