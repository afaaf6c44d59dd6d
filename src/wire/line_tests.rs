//! What a line may hold, and what is said of one that is wrong.

use super::*;

fn line(members: &str) -> String {
    format!("{{\"entity\":\"customer\",\"change\":\"upsert\",{members}}}")
}

#[test]
fn a_line_becomes_a_message_and_its_body_stays_as_it_was_written() {
    let text = line(
        r#""key":"CUST 1/%","id":"w1","body":{ "n" : 1.000000000000000000000001e5,"n":2 },
           "if_version":7,"occurred_at":"2026-11-21T02:00:00.5+01:00""#,
    );
    let write = Write::parse(text.as_bytes()).unwrap();
    assert_eq!(write.kind, "customer.upsert");
    assert_eq!(write.entity(), "customer");
    assert_eq!(write.routing_key, "CUST 1/%");
    assert_eq!(write.id, "w1");
    assert_eq!(write.body, r#"{ "n" : 1.000000000000000000000001e5,"n":2 }"#);
    assert_eq!(write.if_version.as_deref(), Some("7"));
    assert_eq!(write.occurred_at.as_deref(), Some("2026-11-21T02:00:00.5+01:00"));
}

#[test]
fn a_composite_key_is_encoded_and_a_single_one_is_not() {
    let table = [
        (r#""a/b%2F""#, "a/b%2F"),
        (r#"["a/b%2F"]"#, "a/b%2F"),
        (r#"["a/b","50%","c d"]"#, "a%2Fb/50%25/c d"),
        (r#""\u00e9""#, "é"),
    ];
    for (key, routing_key) in table {
        let text = line(&format!(r#""key":{key},"id":"w","body":{{}}"#));
        assert_eq!(Write::parse(text.as_bytes()).unwrap().routing_key, routing_key, "{key}");
    }
}

#[test]
fn a_version_may_be_a_number_its_text_or_a_star() {
    let table = [("0", Some("0")), ("\"12\"", Some("12")), ("\"*\"", Some("*")), ("null", None)];
    for (version, header) in table {
        let text = line(&format!(r#""key":"k","id":"w","body":{{}},"if_version":{version}"#));
        let write = Write::parse(text.as_bytes()).unwrap();
        assert_eq!(write.if_version.as_deref(), header, "{version}");
    }
    for version in ["1.0", "-1", "1e3", "\"\"", "\"+1\"", "9223372036854775808", "true", "[1]"] {
        let text = line(&format!(r#""key":"k","id":"w","body":{{}},"if_version":{version}"#));
        assert!(Write::parse(text.as_bytes()).is_err(), "{version}");
    }
}

#[test]
fn a_delete_needs_no_body() {
    let text = r#"{"entity":"customer","change":"delete","key":"k","id":"w"}"#;
    assert_eq!(Write::parse(text.as_bytes()).unwrap().body, "{}");
}

#[test]
fn a_wrong_line_is_refused_with_its_reason() {
    let long_id = format!(r#""key":"k","id":"{}","body":{{}}"#, "x".repeat(201));
    let long_key = format!(r#""key":["a","{}"],"id":"w","body":{{}}"#, "/".repeat(85));
    let table = [
        (r#""key":"k","body":{}"#, "missing field `id`"),
        (r#""key":"k","id":"w""#, "missing field `body`"),
        (r#""key":"k","id":"w","body":{},"x":1"#, "unknown field `x`"),
        (r#""key":"k","id":"w","body":{},"id":"v""#, "duplicate field `id`"),
        (r#""key":"k","id":"","body":{}"#, "`id` is empty"),
        (r#""key":"k","id":7,"body":{}"#, "invalid type"),
        (&long_id, "`id` has 201 bytes"),
        (&long_key, "`key` has 257 bytes"),
        (r#""key":"","id":"w","body":{}"#, "`key` is empty"),
        (r#""key":["a",""],"id":"w","body":{}"#, "`key` is empty"),
        (r#""key":[],"id":"w","body":{}"#, "`key` is empty"),
        (r#""key":"a\u0000","id":"w","body":{}"#, "holds NUL"),
        (r#""key":7,"id":"w","body":{}"#, "`key` must be a string or an array"),
        (r#""key":"k","id":"w","body":[]"#, "`body` must be a JSON object"),
        (r#""key":"k","id":"w","body":{},"occurred_at":"2026-11-21T02:00:00""#, "RFC 3339"),
        (r#""key":"k","id":"w","body":{},"occurred_at":5"#, "invalid type"),
        (r#""key":"k","id":"w","body":{"a":}"#, "expected value"),
    ];
    for (members, reason) in table {
        let error = Write::parse(line(members).as_bytes()).unwrap_err();
        assert!(error.detail.contains(reason), "{members}: {error:?}");
    }
    let positions = br#"["customer","delete","k","w",{},null,null]"#;
    let texts = [&b"\xff"[..], b"", b"[]", b"7", b"{} {}", b"{\"entity\":\"a.b\"}", positions];
    for text in texts {
        let error = Write::parse(text).unwrap_err();
        assert!(!error.detail.contains("struct"), "{text:?}: {error:?}");
    }
}

#[test]
fn a_rejection_points_to_the_member_to_blame() {
    let table = [
        (r#""key":"k","body":{}"#, "missing_write_id", Some("/id")),
        (r#""key":"k","id":null,"body":{}"#, "missing_write_id", Some("/id")),
        (r#""key":"k","id":"","body":{}"#, "missing_write_id", Some("/id")),
        (r#""key":[],"id":"w","body":{}"#, "key_invalid", Some("/key")),
        (r#""key":"k","id":"w","body":7"#, "malformed_body", Some("/body")),
        (r#""key":"k","id":"w","body":{},"if_version":1.5"#, "type_mismatch", Some("/if_version")),
        (
            r#""key":"k","id":"w","body":{},"occurred_at":"x""#,
            "type_mismatch",
            Some("/occurred_at"),
        ),
        (r#""key":"k","id":"w","body":{"a":}"#, "malformed_body", None),
    ];
    for (members, reason, pointer) in table {
        let error = Write::parse(line(members).as_bytes()).unwrap_err();
        assert_eq!(
            (error.reason.label(), error.pointer.as_deref()),
            (reason, pointer),
            "{members}"
        );
    }
}

#[test]
fn a_wrong_line_is_named_as_far_as_it_can_be_read() {
    let name = |text: &str| Some(text.to_owned());
    let table = [
        (r#"{"entity":"e","key":["a","b"],"id":"w"}"#, name("e"), name("a/b"), name("w")),
        (r#"{"entity":7,"key":{},"id":"w","body":[]}"#, None, None, name("w")),
        (r#"{"id":"w","id":"v"}"#, None, None, None),
        (r#"{"id":"w","#, None, None, None),
    ];
    for (line, entity, key, id) in table {
        assert_eq!(Names::of(line.as_bytes()), Names { entity, key, id }, "{line}");
    }
}
