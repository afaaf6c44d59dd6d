//! Messages that the client library could not read: one bad sender stops nobody.

use serde_json::json;

use crate::support::raw::{RawSender, short, sized};
use crate::support::{Scene, entities, wait, write};

const UPSERT: &[u8] = b"item.upsert";

/// Headers, `message_id` and `type`.
fn properties(headers: &[u8], id: &[u8], kind: &[u8]) -> Vec<u8> {
    [vec![0x20, 0xa0], sized(headers), short(id), short(kind)].concat()
}

/// Arrays within arrays: enough to overflow the stack of whoever follows them down.
fn deep() -> Vec<u8> {
    let value =
        (0..20_000).fold(Vec::new(), |value: Vec<u8>, _| [b"A".to_vec(), sized(&value)].concat());
    [short(b"deep"), value].concat()
}

/// As much as a frame takes; the broker adds a header of its own on top.
fn large(id: &[u8], kind: &[u8]) -> Vec<u8> {
    let others = properties(b"\x01nS\0\0\0\0", id, kind).len();
    [b"\x01nS".to_vec(), sized(&vec![b'x'; 131_072 - 8 - 12 - others])].concat()
}

#[tokio::test]
async fn a_message_that_is_no_text_becomes_a_dead_letter_and_the_next_write_is_applied() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let mut worker = scene.worker().await;
    let exchange = format!("{}.writes", scene.prefix);
    let messages: [(&[u8], Vec<u8>); 6] = [
        (b"\xff\xfe", properties(b"", b"w1", UPSERT)),
        (b"2", properties(b"", b"\xff2", UPSERT)),
        (b"3", properties(b"", b"w3", b"\xfe.upsert")),
        (b"4", properties(b"\x01\xffV", b"w4", UPSERT)),
        (b"5", properties(&deep(), b"w5", UPSERT)),
        (b"6", [vec![0x02, 0xa0], short(b"\xff"), short(b"w6"), short(UPSERT)].concat()),
    ];
    let mut raw = RawSender::connect(&scene.servers.amqp).await;
    for (key, properties) in messages {
        raw.publish(&exchange, key, &properties, b"{}").await;
    }
    raw.close().await;

    let mut sender = scene.sender().await;
    let outcome = sender.outcome(write("item.upsert", "7", "w7", "{}")).await;
    assert_eq!(outcome["outcome"], "applied");
    let dead = vec![
        json!({"routing_key": "2", "reason": "missing_write_id", "write_id": null}),
        json!({"routing_key": "3", "reason": "missing_type", "write_id": null}),
        json!({"routing_key": "\u{1a}\\\\xff\\\\xfe", "reason": "key_invalid", "write_id": "w1"}),
    ];
    let dead_letters =
        "select routing_key, reason, write_id from keylane.dead_letters order by reason desc";
    wait::until_equal(wait::SOON, "dead letters", dead, async || scene.rows(dead_letters).await)
        .await;
    let skus = ["4", "5", "6", "7"].map(|sku| json!({ "sku": sku })).to_vec();
    let items = "select sku from items order by sku";
    wait::until_equal(wait::SOON, "rows", skus, async || scene.rows(items).await).await;
    assert!(!worker.log().contains("ERROR"), "{}", worker.log());
    worker.signal("TERM");
    assert_eq!(worker.exit_code().await, 0, "the same process all the time");
}

#[tokio::test]
async fn headers_that_grow_above_the_largest_frame_when_redelivered_become_a_dead_letter() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let mut first = scene.worker().await;
    let mut intruder = scene.intruder().await;
    sqlx::raw_sql("begin; lock table items").execute(&mut intruder).await.unwrap();
    let mut raw = RawSender::connect(&scene.servers.amqp).await;
    let large = properties(&large(b"w1", UPSERT), b"w1", UPSERT);
    raw.publish(&format!("{}.writes", scene.prefix), b"1", &large, b"{}").await;
    raw.close().await;
    let waiting = "select count(*) from pg_stat_activity
                    where wait_event_type = 'Lock' and datname = current_database()";
    wait::until_equal(wait::SOON, "writers that wait", 1, async || scene.number(waiting).await)
        .await;
    first.kill();
    sqlx::raw_sql("commit").execute(&mut intruder).await.unwrap();

    let second = scene.worker().await;
    let outcome = scene.sender().await.outcome(write("item.upsert", "2", "w2", "{}")).await;
    assert_eq!(outcome["outcome"], "applied");
    let dead = "select count(*) from keylane.dead_letters where reason = 'missing_write_id'";
    wait::until_equal(wait::SOON, "dead letters", 1, async || scene.number(dead).await).await;
    assert!(!second.log().contains("ERROR"), "{}", second.log());
}
