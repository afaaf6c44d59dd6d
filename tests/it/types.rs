//! Columns of every type: what fits arrives exactly, what does not is said, nothing is altered.

use serde_json::json;

use crate::support::sender::brief;
use crate::support::{Scene, Write, wait, write};

/// A type; JSON and the text that PostgreSQL prints of it; JSON that does not fit and the pointer
/// inside the value.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const CASES: &[Case] = &[
    (
        "smallint",
        &[("32767", "32767"), ("-32768", "-32768"), ("1.0e2", "100")],
        &[("32768", ""), ("1.5", ""), ("\"x\"", ""), ("true", "")],
    ),
    ("integer", &[("-2147483648", "-2147483648")], &[("2147483648", ""), ("1e10", "")]),
    (
        "bigint",
        &[("9223372036854775807", "9223372036854775807"), ("9007199254740993", "9007199254740993")],
        &[("9223372036854775808", ""), ("[]", "")],
    ),
    (
        "numeric",
        &[
            (
                "123456789012345678901234567890.123456789",
                "123456789012345678901234567890.123456789",
            ),
            ("0.1", "0.1"),
            ("1e-20", "0.00000000000000000001"),
        ],
        &[("\"NaN and more\"", ""), ("{}", "")],
    ),
    (
        "numeric(12,2)",
        &[("9999999999.99", "9999999999.99"), ("1.250", "1.25")],
        &[("1.005", ""), ("10000000000", "")],
    ),
    ("real", &[("0.5", "0.5"), ("3e38", "3e+38")], &[("1e39", ""), ("\"much\"", "")]),
    ("double precision", &[("0.1", "0.1"), ("1e308", "1e+308")], &[("1e400", ""), ("false", "")]),
    ("text", &[("\"\\u00e9 \\\" '\"", "é \" '"), ("\"\"", "")], &[("1", ""), ("\"a\\u0000\"", "")]),
    ("varchar(3)", &[("\"ééé\"", "ééé")], &[("\"abcd\"", ""), ("\"abc \"", "")]),
    ("boolean", &[("true", "true"), ("false", "false")], &[("1", ""), ("\"yes\"", "")]),
    (
        "uuid",
        &[("\"C2D29867-3D0B-D497-9191-18A9D8EE7830\"", "c2d29867-3d0b-d497-9191-18a9d8ee7830")],
        &[("\"c2d29867\"", ""), ("7", "")],
    ),
    ("date", &[("\"2024-02-29\"", "2024-02-29")], &[("\"2023-02-29\"", ""), ("\"1/2/2024\"", "")]),
    (
        "time",
        &[("\"23:59:59.123456\"", "23:59:59.123456")],
        &[("\"25:00:00\"", ""), ("\"12:00:00.1234567\"", "")],
    ),
    (
        "timestamp",
        &[("\"2024-02-29T12:00:00\"", "2024-02-29 12:00:00")],
        &[("\"2024-02-29T12:00:00Z\"", ""), ("\"2024-02-29T12:00:00.1234567\"", "")],
    ),
    (
        "timestamptz",
        &[("\"2024-02-29T12:00:00.5+02:00\"", "2024-02-29 10:00:00.5+00")],
        &[("\"2024-02-29T12:00:00\"", ""), ("1709200000", "")],
    ),
    ("json", &[("{\"b\": 1.10, \"a\":[null]}", "{\"b\": 1.10, \"a\":[null]}")], &[]),
    (
        "jsonb",
        &[(
            "{\"b\":123456789012345678901234567890,\"a\":[true]}",
            "{\"a\": [true], \"b\": 123456789012345678901234567890}",
        )],
        &[("\"\\u0000\"", "")],
    ),
    ("bytea", &[("\"\\\\x00ff\"", "\\x00ff")], &[("\"aGVsbG8=\"", ""), ("\"\\\\x0\"", "")]),
    (
        "text[]",
        &[
            ("[\"a,b\",\"{}\",null,\"NULL\",\"\"]", "{\"a,b\",\"{}\",NULL,\"NULL\",\"\"}"),
            ("[]", "{}"),
        ],
        &[("\"a\"", ""), ("[\"a\",1]", "/1")],
    ),
    (
        "integer[]",
        &[("[1,-2]", "{1,-2}"), ("[[1,2],[3,4]]", "{{1,2},{3,4}}")],
        &[("[1,2.5]", "/1"), ("[[1],[2147483648]]", "/1/0")],
    ),
    ("mood", &[("\"so so\"", "so so")], &[("\"angry\"", ""), ("1", "")]),
    ("percent", &[("99.5", "99.50")], &[("\"all\"", "")]),
    ("inet", &[("\"10.0.0.1\"", "10.0.0.1/32")], &[]),
];

fn tables() -> String {
    let columns = CASES.iter().enumerate();
    let columns: Vec<_> =
        columns.map(|(column, (kind, _, _))| format!(", c{column} {kind}")).collect();
    let columns = columns.concat();
    format!(
        "create type mood as enum ('happy', 'so so');
         create domain percent as numeric(5,2) check (value between 0 and 100);
         create table things (id integer primary key{columns});"
    )
}
const THING: &str = "[entities.thing]\ntable = 'things'\nkey = ['id']\n";

#[tokio::test]
async fn values_of_every_type_arrive_exactly_or_are_refused_with_a_pointer() {
    let scene = Scene::new(&tables(), THING).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for (column, (_, fits, fits_not)) in CASES.iter().enumerate() {
        for (value, text) in *fits {
            let id = good.len().to_string();
            let body = format!("{{\"c{column}\":{value}}}");
            good.push((column, *text, write("thing.upsert", &id, &format!("good {id}"), &body)));
        }
        for (value, pointer) in *fits_not {
            let id = bad.len().to_string();
            let body = format!("{{\"c{column}\":{value}}}");
            let pointer = format!("/c{column}{pointer}");
            bad.push((pointer, write("thing.upsert", "7", &format!("bad {id}"), &body)));
        }
    }
    let writes: Vec<Write> = good.iter().map(|(_, _, write)| write.clone()).collect();
    let outcomes = sender.outcomes(&writes).await;
    for ((column, text, write), outcome) in good.iter().zip(&outcomes) {
        assert_eq!(outcome["outcome"], "applied", "{}: {outcome}", CASES[*column].0);
        let stored = scene
            .rows(&format!("select c{column}::text as c from things where id = {}", write.key))
            .await;
        assert_eq!(stored, [json!({"c": text})], "{}", CASES[*column].0);
    }
    let writes: Vec<Write> = bad.iter().map(|(_, write)| write.clone()).collect();
    for ((pointer, write), outcome) in bad.iter().zip(sender.outcomes(&writes).await) {
        let body = String::from_utf8_lossy(&write.body);
        assert_eq!(outcome["reason"], "type_mismatch", "{body}: {outcome}");
        let sql = format!(
            "select pointer from keylane.dead_letters where write_id = '{}'",
            write.id.as_ref().unwrap()
        );
        assert_eq!(scene.rows(&sql).await, [json!({"pointer": pointer})], "{body}");
    }
}

#[tokio::test]
async fn a_domain_and_a_type_that_only_postgresql_knows_judge_for_themselves() {
    let scene = Scene::new(&tables(), THING).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let domain = CASES.iter().position(|case| case.0 == "percent").unwrap();
    let inet = CASES.iter().position(|case| case.0 == "inet").unwrap();
    let outcomes = sender
        .outcomes(&[
            write("thing.upsert", "1", "1", &format!("{{\"c{domain}\":101}}")),
            write("thing.upsert", "1", "2", &format!("{{\"c{inet}\":\"10.0.0.256\"}}")),
            write("thing.upsert", "1", "3", &format!("{{\"c{inet}\":\"10.0.0.0/8\"}}")),
        ])
        .await;
    let brief: Vec<_> = outcomes.iter().map(brief).collect();
    let refused = "rejected constraint_violation -";
    assert_eq!(brief, [refused, refused, "applied created -"]);
}

#[tokio::test]
async fn a_column_that_a_creating_write_does_not_name_takes_its_default() {
    let tables = "
        create sequence numbers start 100;
        create domain colour as text default 'red';
        create table things (
            id text primary key, a text default 'x', b integer not null default 7,
            c timestamptz not null default '2024-01-01Z', d bigint default nextval('numbers'),
            e colour, f text, g text generated always as (a || '!') stored,
            h integer generated by default as identity, i text[] default '{}',
            j bigint generated always as identity);";
    let scene = Scene::new(tables, "[entities.thing]\ntable = 'things'\nkey = ['id']\n").await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let outcomes = sender
        .outcomes(&[
            write("thing.upsert", "A", "1", r#"{"f":"named"}"#),
            write("thing.upsert", "A", "2", r#"{"a":null,"b":8}"#),
            write("thing.replace", "B", "3", r#"{"a":"y","b":9}"#),
            write("thing.replace", "B", "4", r#"{"f":"only"}"#),
            write("thing.increment", "C", "5", r#"{"b":3}"#),
            write("thing.upsert", "C", "6", r#"{"g":"mine"}"#),
            write("thing.upsert", "C", "7", r#"{"j":1}"#),
        ])
        .await;
    let brief: Vec<_> = outcomes.iter().map(brief).collect();
    let (created, updated) = ("applied created -", "applied updated -");
    let unknown = "rejected unknown_column -";
    assert_eq!(brief, [created, updated, created, updated, created, unknown, unknown]);
    let rows = scene.rows("select id, a, b, c, e, f, g, i from things order by id").await;
    let c = "2024-01-01T00:00:00+00:00";
    let expected = [
        json!({"id": "A", "a": null, "b": 8, "c": c, "e": "red", "f": "named", "g": null, "i": []}),
        json!({"id": "B", "a": "x", "b": 7, "c": c, "e": "red", "f": "only", "g": "x!", "i": []}),
        json!({"id": "C", "a": "x", "b": 10, "c": c, "e": "red", "f": null, "g": "x!", "i": []}),
    ];
    assert_eq!(rows, expected);
    let own = "select count(*) from things where d >= 100 and h > 0 and j > 0";
    assert_eq!(scene.number(own).await, 3, "sequences fill what nobody names");
}

const UUID: &str = "c2d29867-3d0b-d497-9191-18a9d8ee7830";
/// Entity, routing key, and what is said of one that is not valid.
const KEYS: &[(&str, &str, &str)] = &[
    ("number", "7", ""),
    ("number", "-7", ""),
    ("number", "007", "`7`"),
    ("number", "+7", "`7`"),
    ("number", "-0", "`0`"),
    ("number", "7.0", ""),
    ("number", " 7", ""),
    ("number", "9223372036854775808", ""),
    ("id", UUID, ""),
    ("id", "C2D29867-3D0B-D497-9191-18A9D8EE7830", UUID),
    ("id", "c2d298673d0bd497919118a9d8ee7830", UUID),
    ("code", "a/%", ""),
    ("code", "éééé", ""),
    ("code", "fiver", ""),
    ("pair", "a%2Fb%25/small/2024-02-29/true", ""),
    ("pair", "a/small/2024-02-29/t", "`a/small/2024-02-29/true`"),
    ("pair", "a/small/2024-2-29/true", ""),
    ("pair", "a/tiny/2024-02-29/true", ""),
    ("pair", "a%20b/small/2024-02-29/true", "%25"),
    ("pair", "a%2fb/small/2024-02-29/true", "%25"),
    ("pair", "a/small/2024-02-29", "4 parts"),
    ("pair", "/small/2024-02-29/true", "shop"),
];

#[tokio::test]
async fn keys_have_one_form_only() {
    let tables = "
        create type size as enum ('small', 'large');
        create table numbers (id bigint primary key);
        create table ids (id uuid primary key);
        create table codes (id varchar(4) primary key);
        create table pairs (
            shop text not null, day date not null, open boolean not null, size size not null,
            note text, primary key (shop, day, open, size));";
    let entities = "
        [entities.number]
        table = 'numbers'
        key = ['id']
        [entities.id]
        table = 'ids'
        key = ['id']
        [entities.code]
        table = 'codes'
        key = ['id']
        [entities.pair]
        table = 'pairs'
        key = ['shop', 'size', 'day', 'open']
        ";
    let scene = Scene::new(tables, entities).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let good = ["7", "-7", UUID, "a/%", "éééé", "a%2Fb%25/small/2024-02-29/true"];
    for (number, (entity, key, says)) in KEYS.iter().enumerate() {
        let write = write(&format!("{entity}.upsert"), key, &number.to_string(), "{}");
        let outcome = sender.outcome(write).await;
        if good.contains(key) {
            assert_eq!(brief(&outcome), "applied created -", "{entity} {key}: {outcome}");
        } else {
            assert_eq!(brief(&outcome), "rejected key_invalid -", "{entity} {key}: {outcome}");
            assert!(outcome["detail"].as_str().unwrap().contains(*says), "{says}: {outcome}");
        }
    }
    let shops = scene.rows("select shop, day, open, size from pairs").await;
    let expected = json!({"shop": "a/b%", "day": "2024-02-29", "open": true, "size": "small"});
    assert_eq!(shops, [expected]);
    let body = r#"{"shop":"a/b%","day":"2024-02-29","open":true,"size":"small","note":"n"}"#;
    let whole = write("pair.update", "a%2Fb%25/small/2024-02-29/true", "whole", body);
    assert_eq!(brief(&sender.outcome(whole).await), "applied updated -");
}

#[tokio::test]
async fn a_running_worker_takes_new_columns_and_new_labels() {
    let tables = "create type mood as enum ('happy');
                  create table things (id text primary key, mood mood);";
    let scene = Scene::new(tables, "[entities.thing]\ntable = 'things'\nkey = ['id']\n").await;
    let worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let unknown = sender.outcome(write("thing.upsert", "A", "1", r#"{"colour":"red"}"#)).await;
    assert_eq!(brief(&unknown), "rejected unknown_column -");
    let unknown = sender.outcome(write("thing.upsert", "A", "2", r#"{"mood":"sad"}"#)).await;
    assert_eq!(brief(&unknown), "rejected type_mismatch -");

    scene.execute("alter table things add column colour text default 'blue'").await;
    scene.execute("alter type mood add value 'sad'").await;
    let outcomes = sender
        .outcomes(&[
            write("thing.upsert", "A", "3", r#"{"colour":"red"}"#),
            write("thing.upsert", "B", "4", r#"{"mood":"sad"}"#),
        ])
        .await;
    let created = "applied created -";
    assert_eq!(outcomes.iter().map(brief).collect::<Vec<_>>(), [created, created]);

    // A default that changed, a column that goes, one of another type.
    scene.execute("alter table things alter column colour set default 'green'").await;
    scene.execute("alter table things add column gone text, add column n integer").await;
    let outcome = sender.outcome(write("thing.upsert", "C", "5", r#"{"gone":"x","n":1}"#)).await;
    assert_eq!(brief(&outcome), created);
    scene.execute("alter table things drop column gone, alter column n type text").await;
    let write = write("thing.upsert", "D", "6", r#"{"mood":"happy"}"#);
    assert_eq!(brief(&sender.outcome(write).await), created);
    wait::until(wait::SOON, "the worker is ready", async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    let rows = scene.rows("select id, colour, mood, n from things order by id").await;
    let expected = [
        json!({"id": "A", "colour": "red", "mood": null, "n": null}),
        json!({"id": "B", "colour": "blue", "mood": "sad", "n": null}),
        json!({"id": "C", "colour": "green", "mood": null, "n": "1"}),
        json!({"id": "D", "colour": "green", "mood": "happy", "n": null}),
    ];
    assert_eq!(rows, expected);
}
