//! A write that rests behind a dead letter of its key is accepted, and not yet an outcome.

use serde_json::json;

use super::{Stage, brief, patch};
use crate::support::{Scene, entities, request};

#[tokio::test]
async fn a_write_behind_a_dead_letter_is_accepted_and_its_place_is_told() {
    let tables = [entities::CUSTOMERS, "alter table customers add check (points < 1000);"].concat();
    let parks = [entities::CUSTOMER, "on_reject = 'park'\n"].concat();
    let scene = Scene::new(&tables, &parks).await;
    let mut stage = Stage::on(scene, &[]).await;
    stage.send(patch("customer/A", "0", "{}")).await.was(201);
    let wrong = stage.send(patch("customer/A", "wrong", r#"{"points":1000}"#)).await;
    assert_eq!(brief(&wrong), "422 constraint_violation");
    let call = || patch("customer/A", "behind", r#"{"name":"Ada"}"#);
    let behind = stage.send(call()).await;
    assert_eq!(brief(&behind), "202 parked");
    assert_eq!(behind.header("location"), Some("/v1/writes/customer/behind"));
    let body = behind.json();
    let said = (&body["key"], &body["write_id"], &body["reason"], &body["effect"]);
    assert_eq!(said, (&json!("A"), &json!("behind"), &json!("behind_dead_letter"), &json!(null)));
    let status = || request("GET", "/v1/writes/customer/behind");
    let asked = stage.send(status()).await.was(200).json();
    assert_eq!((&asked["outcome"], &asked["reason"]), (&body["outcome"], &body["reason"]));
    // A repeat finds it where it rests.
    let again = stage.send(call().header("prefer", "wait=60")).await;
    assert_eq!((brief(&again).as_str(), &again.json()["replayed"]), ("202 parked", &json!(true)));
    assert_eq!(again.header("preference-applied"), Some("wait"));
    stage.send(patch("customer/B", "other", "{}")).await.was(201);
    assert_eq!(stage.number("select count(*) from customers where name = 'Ada'").await, 0);
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 2);
}
