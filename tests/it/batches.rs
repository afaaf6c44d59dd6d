//! A bad write harms nobody but itself, and is kept whole.

use lapin::types::{AMQPValue, LongString};
use serde_json::{Value, json};

use crate::support::sender::brief;
use crate::support::{Scene, Sender, Write, entities, hex, wait, write};

/// A table that refuses in every way that only PostgreSQL can see.
const STRICT: &str = "
    create table parents (id text primary key);
    create table strict (
        key text primary key,
        email text unique,
        n integer check (n < 100),
        code varchar(3),
        parent text references parents deferrable initially deferred,
        slot int4range,
        version bigint,
        exclude using gist (slot with &&) where (slot is not null));
    create function refuse() returns trigger language plpgsql as $$
        begin
            if new.code = 'rai' then raise exception 'not that code'; end if;
            if new.code = 'nul' then return null; end if;
            if new.code = 'div' then new.n = 1 / 0; end if;
            return new;
        end $$;
    create trigger refuse before insert or update on strict
        for each row execute function refuse();
    create function refuse_late() returns trigger language plpgsql as $$
        begin
            if new.code = 'end' then raise exception 'not that code, at the end'; end if;
            return null;
        end $$;
    create constraint trigger refuse_late after insert or update on strict
        deferrable initially deferred for each row execute function refuse_late();";
const STRICT_ENTITY: &str = "
    [entities.strict]
    table = 'strict'
    key = ['key']
    version = 'version'
    ";

/// Bodies that the table refuses, and what its message says.
const REFUSED: [(&str, &str); 7] = [
    (r#"{"email":"taken"}"#, "strict_email_key"),
    (r#"{"n":100}"#, "strict_n_check"),
    (r#"{"code":"rai"}"#, "not that code"),
    (r#"{"code":"nul"}"#, "rows"),
    (r#"{"code":"div"}"#, "division by zero"),
    (r#"{"code":"end"}"#, "at the end"),
    (r#"{"slot":"[5,6)"}"#, "strict_slot_excl"),
];

#[tokio::test]
async fn a_batch_with_bad_writes_commits_all_others() {
    let scene = Scene::new(STRICT, STRICT_ENTITY).await;
    let mut worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let first = r#"{"email":"taken","slot":"[1,9)"}"#;
    sender.outcome(write("strict.upsert", "first", "first", first)).await;

    // All of it waits for the next worker: large batches, and a bad write in the middle of each.
    worker.kill();
    let mut writes = Vec::new();
    for number in 0..400 {
        let id = format!("w{number}");
        let key = format!("k{}", number % 90);
        writes.push(match number % 50 {
            25 => write("strict.upsert", &key, &id, REFUSED[number / 50 % REFUSED.len()].0),
            _ => write("strict.upsert", &key, &id, r#"{"n":1}"#),
        });
    }
    sender.send(&writes).await;
    let _worker = scene.worker().await;
    let outcomes = sender.outcomes(&writes).await;
    let mut versions = [0_i64; 90];
    for (number, outcome) in outcomes.iter().enumerate() {
        if number % 50 == 25 {
            let (body, says) = REFUSED[number / 50 % REFUSED.len()];
            assert_eq!(brief(outcome), "rejected constraint_violation -", "{body}");
            let detail = outcome["detail"].as_str().unwrap();
            assert!(detail.contains(says), "{body}: {detail}");
        } else {
            versions[number % 90] += 1;
            assert_eq!(outcome["version"], versions[number % 90], "{outcome}");
        }
    }
    let dead = "select body from keylane.dead_letters where reason = 'constraint_violation'";
    assert_eq!(scene.rows(dead).await.len(), 8);
    assert_eq!(scene.number("select sum(version) from strict").await, 400 - 8 + 1);
}

#[tokio::test]
async fn a_missing_column_is_a_rejection_of_its_write() {
    let tables = [STRICT, "alter table strict add column must text not null default ''"].concat();
    let tables = [&tables, "; alter table strict alter column must drop default"].concat();
    let scene = Scene::new(&tables, STRICT_ENTITY).await;
    scene.execute("insert into parents values ('p')").await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let outcomes = sender
        .outcomes(&[
            write("strict.upsert", "a", "1", r#"{"must":"m","parent":"p"}"#),
            write("strict.upsert", "b", "2", r#"{"must":null,"parent":"nobody"}"#),
            write("strict.upsert", "c", "3", r#"{"n":1}"#),
            write("strict.upsert", "c", "4", r#"{"must":null}"#),
            write("strict.upsert", "c", "5", r#"{"must":"m"}"#),
        ])
        .await;
    let brief: Vec<String> = outcomes.iter().map(brief).collect();
    let refused = "rejected constraint_violation -";
    assert_eq!(brief, ["applied created 1", refused, refused, refused, "applied created 1"]);
    let pointers =
        scene.rows("select write_id, pointer from keylane.dead_letters order by write_id").await;
    let expected = [
        json!({"write_id": "2", "pointer": "/must"}),
        json!({"write_id": "3", "pointer": "/must"}),
        json!({"write_id": "4", "pointer": "/must"}),
    ];
    assert_eq!(pointers, expected);
}

fn with(change: impl FnOnce(&mut Write)) -> Write {
    let mut write = write("customer.upsert", "A", "w", r#"{"name":"a"}"#);
    change(&mut write);
    write
}

/// A message for every reason but `redelivered_too_often` and `constraint_violation`, and the
/// pointer of its dead letter.
fn rejected() -> Vec<(&'static str, Option<&'static str>, Write)> {
    let body = |body: &'static str| move |write: &mut Write| write.body = body.into();
    vec![
        ("malformed_body", None, with(body("{"))),
        ("malformed_body", None, with(body("[1]"))),
        ("malformed_body", None, with(body(r#"{"name":"a","name":"b"}"#))),
        ("malformed_body", None, with(|write| write.body = vec![0xff, 0xfe])),
        (
            "unsupported_media_type",
            None,
            with(|write| write.content_type = Some("text/csv".into())),
        ),
        ("missing_write_id", None, with(|write| write.id = None)),
        ("missing_write_id", None, with(|write| write.id = Some("x".repeat(201)))),
        ("missing_write_id", None, with(|write| write.id = Some("a\0b".into()))),
        ("missing_type", None, with(|write| write.kind = None)),
        ("missing_type", None, with(|write| write.kind = Some("customer".into()))),
        ("unknown_entity", None, with(|write| write.kind = Some("nobody.upsert".into()))),
        ("unknown_entity", None, with(|write| write.kind = Some("no\0body.upsert".into()))),
        ("unknown_change", None, with(|write| write.kind = Some("customer.merge".into()))),
        ("key_invalid", None, with(|write| write.key = String::new())),
        ("key_invalid", None, with(|write| write.key = "a\0b".into())),
        ("key_mismatch", Some("/external_id"), with(body(r#"{"external_id":"B"}"#))),
        ("body_too_large", None, with(|write| write.body = vec![b' '; 5000])),
        ("unknown_column", Some("/na~1m~0e"), with(body(r#"{"na/m~e":1}"#))),
        ("unknown_column", Some("/version"), with(body(r#"{"version":1}"#))),
        ("unknown_column", Some("/deleted_at"), with(body(r#"{"deleted_at":null}"#))),
        ("type_mismatch", Some("/points"), with(body(r#"{"points":true}"#))),
        ("type_mismatch", None, with(|_| ()).header("if-version", "one")),
        ("type_mismatch", None, with(|_| ()).header("occurred-at", "2026-01-01T00:00:00")),
        ("type_mismatch", None, with(|_| ()).header("occurred-at", "2999-01-01T00:00:00Z")),
        ("unsupported_guard", None, {
            let write = with(|write| write.kind = Some("plain.upsert".into()));
            write.header("if-version", "1")
        }),
    ]
}

#[tokio::test]
async fn every_reason_for_a_rejection_leaves_a_dead_letter_with_the_whole_message() {
    let plain = "create table plain (external_id text primary key, name text);";
    let entity = "[entities.plain]\ntable = 'plain'\nkey = ['external_id']\n";
    let scene =
        Scene::new(&[entities::CUSTOMERS, plain].concat(), &[entities::CUSTOMER, entity].concat())
            .await;
    let _worker = scene.worker_with(&[("batch.body_bytes_max", "4000")]).await;
    let mut sender = scene.sender().await;
    for (number, (reason, pointer, mut write)) in rejected().into_iter().enumerate() {
        if write.id.as_deref() == Some("w") {
            write.id = Some(format!("w{number}"));
        }
        // Bytes that are no text, and NUL, in a header: kept too.
        write.headers.insert("x-raw".into(), AMQPValue::LongString(vec![0x61, 0, 0xff].into()));
        let outcome = sender.outcome(write.clone()).await;
        assert_eq!(brief(&outcome), format!("rejected {reason} -"), "{write:?}");
        let letter = newest_letter(&scene).await;
        assert_eq!(letter["reason"], reason, "{write:?}");
        assert_eq!(letter["pointer"], json!(pointer), "{write:?}");
        assert_eq!(letter["state"], "dead");
        assert!(!letter["detail"].as_str().unwrap().is_empty(), "{write:?}");
        assert_whole(&letter, &write);
    }
    assert_eq!(scene.number("select count(*) from customers").await, 0);
    let dead = scene.number("select count(*) from keylane.dead_letters").await;
    assert_eq!(usize::try_from(dead).unwrap(), rejected().len());
}

async fn newest_letter(scene: &Scene) -> Value {
    let newest = "select *, encode(body, 'hex') as hex from keylane.dead_letters
                   order by id desc limit 1";
    scene.rows(newest).await.remove(0)
}

/// The message can be read back from its dead letter, byte for byte.
fn assert_whole(letter: &Value, write: &Write) {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('\0', "\\x00");
    assert_eq!(letter["hex"], hex(&write.body));
    assert_eq!(letter["routing_key"], escaped(&write.key));
    let properties = &letter["properties"];
    assert_eq!(properties["type"], json!(write.kind.as_deref().map(escaped)));
    assert_eq!(properties["message_id"], json!(write.id.as_deref().map(escaped)));
    assert_eq!(properties["content_type"], json!(write.content_type));
    assert_eq!(properties["delivery_mode"], 2);
    assert_eq!(properties["reply_to"].as_str().map(|to| to.starts_with("amq.")), Some(true));
    assert_eq!(properties["headers"]["x-raw"], json!({"hex": "6100ff"}));
}

#[tokio::test]
async fn a_header_with_nul_does_not_hinder_a_good_write() {
    let scene = Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let mut good = write("customer.upsert", "A\\x", "w\\", r#"{"name":"a"}"#);
    good.headers.insert("n\0".into(), AMQPValue::LongString(LongString::from("\0")));
    assert_eq!(brief(&sender.outcome(good).await), "applied created 1");
}

#[tokio::test]
async fn what_the_broker_gives_up_is_drained_into_the_dead_letters() {
    let scene = Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let known = write("customer.upsert", "A", "known", r#"{"name":"a"}"#);
    assert_eq!(brief(&sender.outcome(known.clone()).await), "applied created 1");

    let dead: Sender = scene.sender().await.to(format!("{}.dead", scene.prefix));
    let given_up = write("customer.upsert", "A", "new", r#"{"name":"b"}"#)
        .header("x-first-death-reason", "delivery_limit");
    let mut nameless = given_up.clone();
    nameless.id = None;
    // One that was applied, and whose acknowledgement was lost, is no dead letter.
    dead.send(&[known, given_up, nameless]).await;
    let letters = "select write_id, reason, detail like '%delivery_limit' as why
                     from keylane.dead_letters order by id";
    let expected = vec![
        json!({"write_id": "new", "reason": "redelivered_too_often", "why": true}),
        json!({"write_id": null, "reason": "redelivered_too_often", "why": true}),
    ];
    wait::until_equal(wait::SOON, "two dead letters", expected, async || scene.rows(letters).await)
        .await;
    let row = scene.rows("select name, version from customers").await;
    assert_eq!(row, [json!({"name": "a", "version": 1})]);
    // Its fate is sealed: the same write on the ordinary way is rejected with the same outcome.
    let late = sender.outcome(write("customer.upsert", "A", "new", r#"{"name":"b"}"#)).await;
    assert_eq!(brief(&late), "rejected redelivered_too_often -");
    assert_eq!(late["replayed"], true);
}
