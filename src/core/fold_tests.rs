use serde_json::{Value, json};
use time::macros::datetime;

use super::super::examples::{account, entities, message};
use super::super::write::decode;
use super::Value as Cell;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-02 00:00 UTC);

/// A write by its change, body and headers.
type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, Value)]);

fn write(entity: &Entity, (change, body, headers): &Asked<'_>) -> Write {
    let message = message("w", &format!("account.{change}"), body, headers);
    decode(&message, &entities(entity.clone()), usize::MAX).unwrap()
}

/// `created 1`, `version_mismatch 1`, `constraint_violation`: an outcome in two words.
fn word(outcome: &Outcome) -> String {
    let name = outcome.effect().or_else(|| outcome.reason()).unwrap();
    outcome.version().map_or(name.to_owned(), |version| format!("{name} {version}"))
}

fn fold(entity: &Entity, row: Option<Row>, asked: &[Asked<'_>]) -> (Vec<String>, Lane) {
    let mut lane = Lane::new(Arc::new(entity.clone()), row);
    let outcomes =
        asked.iter().map(|asked| word(&lane.apply(&write(entity, asked), NOW))).collect();
    (outcomes, lane)
}

fn row(version: i64) -> Option<Row> {
    let numbers = [(0, Some("100".to_owned()))].into();
    Some(Row { version, occurred_at: None, deleted: false, numbers })
}

const NAMED: &str = r#"{"name":"Ann"}"#;

#[test]
fn each_change_does_what_the_contract_says_to_an_absent_and_to_a_present_row() {
    let table: [(Asked<'_>, &str, &str); 7] = [
        (("upsert", NAMED, &[]), "created 1", "updated 8"),
        (("upsert", "{}", &[]), "constraint_violation", "updated 8"),
        (("create", NAMED, &[]), "created 1", "already_exists 7"),
        (("update", NAMED, &[]), "not_found", "updated 8"),
        (("replace", NAMED, &[]), "created 1", "updated 8"),
        (("increment", r#"{"balance":1}"#, &[]), "constraint_violation", "updated 8"),
        (("delete", "", &[]), "unchanged", "deleted"),
    ];
    for (asked, absent, present) in table {
        assert_eq!(fold(&account(), None, &[asked]).0, [absent], "absent: {asked:?}");
        assert_eq!(fold(&account(), row(7), &[asked]).0, [present], "present: {asked:?}");
    }
}

#[test]
fn guards_hold_against_what_the_earlier_writes_of_the_batch_left() {
    let version = |version: Value| [("if-version", version)];
    let (v0, v1, v2, any) =
        (version(json!(0)), version(json!(1)), version(json!(2)), version(json!("*")));
    let at = |text: &str| [("occurred-at", json!(text))];
    let (old, new) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00.000001Z"));
    let late = at("2026-01-02T01:00:00.000001Z");
    let edge = at("2026-01-02T01:00:00Z");
    let table: [(&[Asked<'_>], &[&str]); 8] = [
        (&[("upsert", NAMED, &v0), ("upsert", NAMED, &v0)], &["created 1", "version_mismatch 1"]),
        (
            &[("upsert", NAMED, &v1), ("upsert", NAMED, &any)],
            &["version_mismatch", "version_mismatch"],
        ),
        (
            &[
                ("upsert", NAMED, &[]),
                ("upsert", NAMED, &v1),
                ("upsert", NAMED, &v1),
                ("delete", "", &v2),
            ],
            &["created 1", "updated 2", "version_mismatch 2", "deleted"],
        ),
        (&[("upsert", NAMED, &new), ("upsert", NAMED, &old)], &["created 1", "older_than_row 1"]),
        // Not older: the same moment passes, and one microsecond decides.
        (
            &[("upsert", NAMED, &old), ("upsert", NAMED, &old), ("upsert", NAMED, &new)],
            &["created 1", "updated 2", "updated 3"],
        ),
        (&[("upsert", NAMED, &late)], &["type_mismatch"]),
        (&[("upsert", NAMED, &edge)], &["created 1"]),
        // The condition on the version is looked at first.
        (&[("create", NAMED, &[]), ("create", NAMED, &v2)], &["created 1", "version_mismatch 1"]),
    ];
    for (asked, outcomes) in table {
        assert_eq!(fold(&account(), None, asked).0, outcomes, "{asked:?}");
    }
}

#[test]
fn many_writes_come_to_one_row_write() {
    let asked: [Asked<'_>; 4] = [
        ("upsert", NAMED, &[]),
        ("increment", r#"{"balance":2}"#, &[]),
        ("increment", r#"{"balance":-10}"#, &[]),
        ("upsert", r#"{"name":"Bob"}"#, &[]),
    ];
    let (outcomes, mut lane) = fold(&account(), None, &asked);
    assert_eq!(outcomes, ["created 1", "updated 2", "updated 3", "updated 4"]);
    let Some(RowChange::Insert(image)) = lane.take_change() else { panic!("an insert") };
    assert_eq!(image.version, 4);
    assert_eq!(image.named[&0], Cell::Set(Some("-3".into())), "5 by default, 2 more, 10 less");
    assert_eq!(image.named[&1], Cell::Set(Some("Bob".into())));
    assert_eq!(lane.take_change(), None);
}

#[test]
fn an_increment_is_judged_by_itself_in_the_type_of_its_column() {
    let asked: [Asked<'_>; 3] = [
        ("increment", r#"{"balance":2147483547}"#, &[]),
        ("increment", r#"{"balance":1}"#, &[]),
        ("increment", r#"{"balance":-1}"#, &[]),
    ];
    let (outcomes, mut lane) = fold(&account(), row(1), &asked);
    assert_eq!(outcomes, ["updated 2", "type_mismatch", "updated 3"]);
    let Some(RowChange::Update(image)) = lane.take_change() else { panic!("an update") };
    assert_eq!(image.named[&0], Cell::Set(Some("2147483646".into())));
}

#[test]
fn where_triggers_may_look_the_database_adds() {
    let entity = Entity { fold: false, ..account() };
    let (_, mut lane) = fold(&entity, row(1), &[("increment", r#"{"balance":3}"#, &[])]);
    let Some(RowChange::Update(image)) = lane.take_change() else { panic!("an update") };
    assert_eq!(image.named[&0], Cell::Add("3".into()));
}

#[test]
fn deletes_and_creations_come_to_what_is_left_of_them() {
    let create: Asked<'_> = ("create", NAMED, &[]);
    let delete: Asked<'_> = ("delete", "", &[]);
    let change = |row, asked: &[Asked<'_>]| fold(&account(), row, asked).1.take_change();
    assert_eq!(change(None, &[create, delete]), None);
    assert!(matches!(change(None, &[create, delete, create]), Some(RowChange::Insert(_))));
    assert_eq!(change(row(3), &[delete]), Some(RowChange::Delete));
    assert_eq!(change(row(3), &[delete, create, delete]), Some(RowChange::Delete));
    let Some(RowChange::Recreate(image)) = change(row(3), &[delete, create]) else {
        panic!("a new row under the same key")
    };
    assert_eq!(image.version, 1, "a hard delete forgets the version");
}

#[test]
fn a_row_marked_as_deleted_is_absent_but_its_version_and_time_go_on() {
    let soft = || Entity { deleted_at: Some("deleted_at".into()), ..account() };
    let at = |text: &str| [("occurred-at", json!(text))];
    let (first, second) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z"));
    let asked: [Asked<'_>; 6] = [
        ("create", NAMED, &[]),
        ("delete", "", &second),
        ("delete", "", &[]),
        ("update", NAMED, &[]),
        ("create", NAMED, &first),
        ("create", NAMED, &second),
    ];
    let (outcomes, mut lane) = fold(&soft(), None, &asked);
    let expected =
        ["created 1", "deleted", "unchanged", "not_found", "older_than_row", "created 3"];
    assert_eq!(outcomes, expected);
    let Some(RowChange::Insert(image)) = lane.take_change() else { panic!("an insert") };
    assert_eq!((image.version, image.deleted_at, image.reset), (3, None, true));
}

#[test]
fn replace_puts_what_it_does_not_name_back_to_the_default() {
    let asked: [Asked<'_>; 2] = [("replace", NAMED, &[]), ("increment", r#"{"balance":1}"#, &[])];
    let (_, mut lane) = fold(&account(), row(1), &asked);
    let Some(RowChange::Update(image)) = lane.take_change() else { panic!("an update") };
    assert!(image.reset);
    assert_eq!(image.named[&0], Cell::Set(Some("6".into())), "the default 5, and 1");
}
