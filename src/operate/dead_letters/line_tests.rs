use super::*;
use serde_json::json;

fn whole() -> Value {
    json!({
        "id": 7, "state": "dead", "entity": "item", "key": "k", "write_id": "w",
        "fingerprint": "ab".repeat(32), "reason": "type_mismatch", "detail": "d",
        "pointer": "/a", "routing_key": "k", "properties": {"headers": {"x": [1.5]}, "type": "a.b"},
        "body_encoding": "hex", "body": "ff00", "generation": 1, "partition": 2, "attempts": 3,
        "dead_at": "2026-11-21T02:00:00.123456Z", "state_changed_at": null,
        "state_changed_by": null, "note": null, "stops": true, "revision": 1, "result": null,
        "revisions": [{
            "revision": 0, "properties": {}, "body_encoding": "utf8", "body": "{}",
            "replaced_at": "2026-11-21T03:00:00Z", "replaced_by": "ada", "reason": "typo",
        }],
    })
}

fn parse(value: &Value) -> Result<(DeadLetter, Vec<StoredRevision>), String> {
    Line::parse(value.to_string().as_bytes())
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let (letter, revisions) = parse(&whole()).unwrap();
    assert_eq!(letter.body.0, [0xff, 0]);
    let mut line = Line::from(letter);
    line.revisions.extend(revisions.into_iter().map(RevisionLine::from));
    assert_eq!(serde_json::to_value(&line).unwrap(), whole());
}

#[test]
fn a_line_that_no_export_wrote_is_refused_with_its_member() {
    let table = [
        ("id", json!(0)),
        ("id", json!("7")),
        ("state", json!("gone")),
        ("fingerprint", json!("ab")),
        ("key", json!("a\0")),
        ("properties", json!([])),
        ("properties", json!({"typ": "a.b"})),
        ("properties", json!({"headers": {"a": "\\n"}})),
        ("body", json!("0")),
        ("body_encoding", json!("base64")),
        ("generation", json!(-1)),
        ("partition", json!(1.5)),
        ("dead_at", json!("yesterday")),
        ("revision", json!(0)),
        ("unknown", json!(1)),
    ];
    for (member, value) in table {
        let mut line = whole();
        line[member] = value.clone();
        assert!(parse(&line).is_err(), "{member} {value}");
    }
    let mut short = whole();
    short.as_object_mut().unwrap().remove("routing_key");
    assert!(parse(&short).unwrap_err().contains("routing_key"));
    assert!(Line::parse(b"{").is_err());
}
