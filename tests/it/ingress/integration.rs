//! An integration platform: two systems own different columns of the same customers.

use std::time::Instant;

use futures_util::future::join_all;
use futures_util::join;

use super::{Stage, patch};
use crate::support::Client;

const CUSTOMERS: usize = 1_000;
/// Connections of the fast system; the slow one has one.
const CONNECTIONS: usize = 20;

#[tokio::test]
async fn two_systems_that_upsert_the_same_customers_make_one_row_each_and_no_error() {
    let stage = Stage::new().await;
    // Each system has an ingress of its own: no process sees the writes of both.
    let second = stage.scene.ingress().await;
    let started = Instant::now();
    let slow = async {
        let mut client = Client::new(stage.ingress.port);
        let mut created = 0;
        for n in 0..CUSTOMERS {
            let call = patch(&format!("customer/C{n}"), &format!("crm-{n}"), r#"{"name":"crm"}"#);
            let answer = client.send(call).await;
            assert!([200, 201].contains(&answer.status), "{answer:?}");
            created += usize::from(answer.status == 201);
        }
        created
    };
    let fast = join_all((0..CONNECTIONS).map(async |connection| {
        let mut client = Client::new(second.port);
        let mut created = 0;
        // From the other end, so that they meet in the middle.
        for n in (0..CUSTOMERS).rev().filter(|n| n % CONNECTIONS == connection) {
            let call = patch(&format!("customer/C{n}"), &format!("shop-{n}"), r#"{"points":77}"#);
            let answer = client.send(call).await;
            assert!([200, 201].contains(&answer.status), "{answer:?}");
            created += usize::from(answer.status == 201);
        }
        created
    }));
    let (slow, fast) = join!(slow, fast);
    let fast = fast.into_iter().sum::<usize>();
    eprintln!("created by the slow one {slow}, by the fast one {fast}, in {:?}", started.elapsed());
    assert_eq!(slow + fast, CUSTOMERS, "each is created once");
    let right = "select count(*) from customers where name = 'crm' and points = 77 and version = 2";
    assert_eq!(stage.number(right).await, 1_000);
    assert_eq!(stage.number("select count(*) from customers").await, 1_000);
    assert_eq!(stage.number("select count(*) from keylane.dead_letters").await, 0);
}
