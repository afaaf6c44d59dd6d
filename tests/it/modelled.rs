//! Random writes through the real thing: tables, ledger and dead letters are what the model says.

use std::collections::BTreeMap;
use std::sync::Arc;

use keylane::core::message::{Message, escape};
use keylane::postgres::catalogue;
use keylane::settings::{EntitySettings, Fold, OnReject};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::model::entities::{self, Spec};
use crate::model::generate::{Generator, Taste};
use crate::model::{Answer, Model, Row};
use crate::support::{Scene, Write, hex, wait};

const WRITES: usize = 900;
const TASTE: Taste = Taste {
    entities: &["item", "item_each", "plain", "plain_each"],
    // Two partitions promise no answer to an id that is used under two keys.
    foreign_ids: false,
    overflows: false,
};

fn entity_settings() -> String {
    let entity = |spec: &Spec| {
        let guards = "version = 'version'\noccurred_at = 'occurred_at'\ndeleted_at = 'deleted_at'";
        let guards = if spec.guarded { guards } else { "" };
        let on_reject = if spec.parks { "on_reject = 'park'" } else { "" };
        format!("[entities.{0}]\ntable = '{0}'\nkey = ['id']\n{guards}\n{on_reject}\n", spec.name)
    };
    Spec::ALL.iter().map(entity).collect()
}

fn as_write(message: &Message) -> Write {
    let properties = &message.properties;
    let mut headers = FieldTable::default();
    for (name, value) in &properties.headers {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            other => AMQPValue::LongLongInt(other.as_i64().unwrap()),
        };
        headers.insert(name.as_str().into(), value);
    }
    Write {
        kind: properties.kind.clone(),
        key: message.routing_key.clone(),
        id: properties.message_id.clone(),
        body: message.body.clone(),
        content_type: properties.content_type.clone(),
        headers,
    }
}

#[tokio::test]
async fn tables_ledger_and_dead_letters_are_what_the_model_says() {
    for (batch_max, seed) in [("1000", rand::random()), ("7", rand::random()), ("1000", 1)] {
        eprintln!("seed {seed}, batches of at most {batch_max}");
        run(seed, batch_max).await;
    }
}

async fn run(seed: u64, batch_max: &str) {
    let scene = Scene::new(include_str!("../model/tables.sql"), &entity_settings()).await;
    let settings = [("batch.writes_max", batch_max)];
    let mut worker = scene.worker_with(&settings).await;
    let mut sender = scene.sender().await;
    let mut generator = Generator::new(seed, TASTE);
    let mut model = Model::default();
    let mut answers = Vec::new();
    let mut writes = Vec::new();
    for number in 0..WRITES {
        let message = generator.next(&model);
        answers.push(model.apply(&message, OffsetDateTime::now_utc()));
        // No two are the same: a message without a name that is would be the same dead letter.
        writes.push(as_write(&message).header("number", &number.to_string()));
    }

    // One third as it comes, one third as a backlog, and the end again as it comes.
    let (first, rest) = writes.split_at(WRITES / 3);
    let (backlog, last) = rest.split_at(WRITES / 3);
    let mut outcomes = sender.outcomes(first).await;
    worker.kill();
    sender.send(backlog).await;
    let _worker = scene.worker_with(&settings).await;
    let lasting = sender.outcomes(last).await;
    for (number, outcome) in outcomes.drain(..).enumerate() {
        assert_answer(&outcome, &answers[number], &writes[number], seed);
    }
    for (number, outcome) in lasting.iter().enumerate() {
        let number = 2 * (WRITES / 3) + number;
        assert_answer(outcome, &answers[number], &writes[number], seed);
    }

    let dead = i64::try_from(model.dead_letters.len()).unwrap();
    wait::until_equal(wait::SOON, "all dead letters", dead, async || {
        scene.number("select count(*) from keylane.dead_letters").await
    })
    .await;
    same_rows(&scene, &model, seed).await;
    same_ledger(&scene, &model, seed).await;
    same_dead_letters(&scene, &model, seed).await;
}

fn assert_answer(outcome: &Value, right: &Answer, write: &Write, seed: u64) {
    let found = Answer {
        outcome: outcome["outcome"].as_str().unwrap().to_owned(),
        effect: outcome["effect"].as_str().map(str::to_owned),
        reason: outcome["reason"].as_str().map(str::to_owned),
        version: outcome["version"].as_i64(),
        replayed: outcome["replayed"].as_bool().unwrap(),
    };
    assert_eq!(found, *right, "seed {seed}: {write:?}: {outcome}");
}

async fn same_rows(scene: &Scene, model: &Model, seed: u64) {
    for spec in Spec::ALL {
        let guards = if spec.guarded {
            "version, (extract(epoch from occurred_at) * 1000000)::bigint as micros,
             deleted_at is not null as gone"
        } else {
            "0 as version, null::bigint as micros, false as gone"
        };
        let sql = format!(
            "select id, name, qty, (price * 100)::bigint as cents, note, {guards}
               from {} order by id collate \"C\"",
            spec.name
        );
        let rows = model.rows.iter().filter(|((entity, _), _)| entity == spec.name);
        let expected: Vec<Value> = rows.map(|((_, key), row)| as_json(key, row)).collect();
        assert_eq!(scene.rows(&sql).await, expected, "seed {seed}: {}", spec.name);
    }
}

fn as_json(key: &str, row: &Row) -> Value {
    let micros = row.occurred_at.map(|at| i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap());
    json!({
        "id": key, "name": row.name, "qty": row.qty, "cents": row.price, "note": row.note,
        "version": row.version, "micros": micros, "gone": row.deleted,
    })
}

async fn same_ledger(scene: &Scene, model: &Model, seed: u64) {
    let sql = "select entity, write_id, key, outcome, effect, reason, version from keylane.ledger
                order by entity collate \"C\", write_id collate \"C\", key collate \"C\"";
    let line =
        |((entity, write_id, key), line): (&(String, String, String), &crate::model::Line)| {
            let Answer { outcome, effect, reason, version, .. } = &line.answer;
            json!({
                "entity": entity, "write_id": write_id, "key": key, "outcome": outcome,
                "effect": effect, "reason": reason, "version": version,
            })
        };
    let expected: Vec<Value> = model.ledger.iter().map(line).collect();
    assert_eq!(scene.rows(sql).await, expected, "seed {seed}");
}

async fn same_dead_letters(scene: &Scene, model: &Model, seed: u64) {
    let sql = "select entity, key, write_id, reason, routing_key, encode(body, 'hex') as body
                 from keylane.dead_letters";
    let sorted = |mut letters: Vec<Value>| {
        letters.sort_by_key(ToString::to_string);
        letters
    };
    let letters = model.dead_letters.iter().map(|letter| {
        let (entity, key, write_id) = letter
            .write
            .clone()
            .map_or((None, None, None), |write| (Some(write.0), Some(write.1), Some(write.2)));
        json!({
            "entity": entity, "key": key, "write_id": write_id, "reason": letter.reason,
            "routing_key": escape(&letter.routing_key), "body": hex(&letter.body),
        })
    });
    let expected = sorted(letters.collect());
    assert_eq!(sorted(scene.rows(sql).await), expected, "seed {seed}");
}

#[tokio::test]
async fn the_catalogue_describes_the_tables_as_the_simulation_has_them() {
    let scene = Scene::new(include_str!("../model/tables.sql"), "").await;
    let settings: BTreeMap<String, EntitySettings> = Spec::ALL
        .iter()
        .map(|spec| {
            let guard = |name: &str| spec.guarded.then(|| name.to_owned());
            let settings = EntitySettings {
                table: spec.name.to_owned(),
                key: vec!["id".to_owned()],
                version: guard("version"),
                occurred_at: guard("occurred_at"),
                deleted_at: guard("deleted_at"),
                on_reject: if spec.parks { OnReject::Park } else { OnReject::Continue },
                fold: Fold::default(),
            };
            (spec.name.to_owned(), settings)
        })
        .collect();
    let mut connection = scene.pool.acquire().await.unwrap();
    let found = catalogue::load(&mut connection, &settings).await.unwrap();
    for (name, mut simulated) in entities::entities() {
        let found = &found[&name];
        // What a value is cast to is a matter of SQL, which the simulation has none of.
        for (column, real) in Arc::make_mut(&mut simulated).columns.iter_mut().zip(&found.columns) {
            column.sql_type.clone_from(&real.sql_type);
        }
        assert_eq!(**found, *simulated);
    }
}
