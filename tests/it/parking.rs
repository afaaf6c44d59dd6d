//! `on_reject = "park"`: a rejected write stops its key, in order, and no other.

use serde_json::{Value, json};

use crate::support::cli::Cli;
use crate::support::sender::brief;
use crate::support::{Scene, Write, entities, wait, write};

fn parks(entity: &str) -> String {
    [entity, "on_reject = 'park'\n"].concat()
}

fn increment(key: &str, id: &str) -> Write {
    write("item.increment", key, id, r#"{"stock":1}"#)
}

fn bad(key: &str, id: &str) -> Write {
    write("item.upsert", key, id, r#"{"stock":"many"}"#)
}

async fn letters(scene: &Scene) -> Vec<Value> {
    let sql = "select write_id as w, state as s, reason as r from keylane.dead_letters order by id";
    scene.rows(sql).await
}

async fn until_all_is_free(scene: &Scene) {
    wait::until_equal(wait::SOON, "no key stands still", 0, async || {
        scene.number("select count(*) from keylane.parked_keys").await
    })
    .await;
}

/// The number of the only dead letter that stops a key.
async fn head(scene: &Scene) -> String {
    let sql = "select max(id) from keylane.dead_letters where state = 'dead' and stops";
    scene.number(sql).await.to_string()
}

#[tokio::test]
async fn a_rejected_write_stops_its_key_and_no_other() {
    let scene = Scene::new(entities::ITEMS, &parks(entities::ITEM)).await;
    let _worker = scene.worker().await;
    let cli = Cli::new(&scene);
    let mut sender = scene.sender().await;
    let writes = [
        increment("A", "1"),
        bad("A", "2"),
        increment("A", "3"),
        increment("B", "4"),
        bad("A", "5"),
        increment("A", "6"),
    ];
    let outcomes: Vec<String> = sender.outcomes(&writes).await.iter().map(brief).collect();
    let parked = "parked behind_dead_letter -";
    let rejected = "rejected type_mismatch -";
    let applied = "applied created 1";
    assert_eq!(outcomes, [applied, rejected, parked, applied, parked, parked]);
    let rests = |w: &str| json!({"w": w, "s": "parked", "r": "behind_dead_letter"});
    let dead = |w: &str| json!({"w": w, "s": "dead", "r": "type_mismatch"});
    assert_eq!(letters(&scene).await, [dead("2"), rests("3"), rests("5"), rests("6")]);
    let lines = "select count(*) from keylane.ledger";
    assert_eq!(scene.number(lines).await, 3, "what rests is not decided");
    let repeat = sender.outcome(writes[2].clone()).await;
    assert_eq!((brief(&repeat).as_str(), &repeat["replayed"]), (parked, &json!(true)));

    // The head goes; the line goes on up to the next that is wrong.
    let discard = ["dead-letters", "discard", "--because", "wrong", "--id"];
    cli.run(&[&discard[..], &[&head(&scene).await]].concat()).await.ended(0);
    assert_eq!(brief(&sender.next_outcome().await), "applied updated 2");
    assert_eq!(brief(&sender.next_outcome().await), "rejected type_mismatch -");
    let resolved = |w: &str| json!({"w": w, "s": "resolved", "r": "behind_dead_letter"});
    let discarded = json!({"w": "2", "s": "discarded", "r": "type_mismatch"});
    let after = [discarded.clone(), resolved("3"), dead("5"), rests("6")];
    wait::until_equal(wait::SOON, "the line has gone on", after.to_vec(), async || {
        letters(&scene).await
    })
    .await;
    assert_eq!(brief(&sender.outcome(increment("A", "7")).await), parked);

    cli.run(&[&discard[..], &[&head(&scene).await]].concat()).await.ended(0);
    assert_eq!(brief(&sender.next_outcome().await), "applied updated 3");
    assert_eq!(brief(&sender.next_outcome().await), "applied updated 4");
    until_all_is_free(&scene).await;
    assert_eq!(brief(&sender.outcome(increment("A", "8")).await), "applied updated 5");
    assert_eq!(brief(&sender.outcome(writes[1].clone()).await), rejected, "it stays refused");
}

#[tokio::test]
async fn a_rejection_that_says_nothing_about_the_row_stops_nothing() {
    let scene = Scene::new(entities::ITEMS, &parks(entities::ITEM)).await;
    let _worker = scene.worker().await;
    let mut sender = scene.sender().await;
    let without_id = Write { id: None, ..increment("A", "") };
    let without_kind = Write { kind: None, ..increment("A", "2") };
    let writes = [
        increment("A", "1"),
        without_id,
        without_kind,
        write("nobody.upsert", "A", "3", "{}"),
        write("item.upsert", "A", "4", r#"{"sku":"B"}"#),
        write("item.upsert", "A", "1", r#"{"stock":9}"#),
        increment("A", "5"),
    ];
    let outcomes = sender.outcomes(&writes).await;
    assert!(outcomes[1..6].iter().all(|outcome| outcome["outcome"] == "rejected"), "{outcomes:?}");
    assert_eq!(brief(&outcomes[6]), "applied updated 2");
    assert_eq!(scene.number("select count(*) from keylane.parked_keys").await, 0);
}

#[tokio::test]
async fn past_a_limit_the_partition_stops_and_can_still_be_freed() {
    // The second time no key has as many as it may.
    for (keys, key_max, said) in
        [(&["A"][..], "5", "park.key_max"), (&["A", "B", "C"], "4", "park.total_max")]
    {
        let scene = Scene::new(entities::ITEMS, &parks(entities::ITEM)).await;
        let worker = scene.worker_with(&[("park.key_max", key_max), ("park.total_max", "5")]).await;
        let cli = Cli::new(&scene);
        let mut sender = scene.sender().await;
        let heads: Vec<Write> = keys.iter().map(|key| bad(key, &format!("bad-{key}"))).collect();
        sender.outcomes(&heads).await;
        let later: Vec<Write> =
            (0..20).map(|id| increment(keys[id % keys.len()], &id.to_string())).collect();
        sender.send(&later).await;
        wait::until(wait::SOON, "the worker says so", async || {
            let (code, detail) = worker.get("/readyz").await.unwrap();
            code == 503 && detail.contains(said)
        })
        .await;
        wait::until(wait::SOON, "a full partition", async || {
            let page = worker.get("/metrics").await.unwrap().1;
            page.lines().any(|line| {
                let full = line.strip_prefix("keylane_partitions_full ");
                full.is_some_and(|full| full != "0")
            })
        })
        .await;
        assert!(worker.log().contains("Takes no more deliveries"), "the log says so");
        let resting = "select count(*) from keylane.dead_letters where state = 'parked'";
        let resting = scene.number(resting).await;
        // In all they are counted now and then: another partition may not know yet.
        assert!(resting == 5 || keys.len() > 1 && resting < 20, "as many rest as may: {resting}");
        assert_eq!(scene.number("select count(*) from items").await, 0);

        let discard =
            ["dead-letters", "discard", "--because", "wrong", "--reason", "type_mismatch", "--yes"];
        cli.run(&discard).await.ended(0);
        wait::until_equal(wait::SOON, "everything is applied", 20, async || {
            scene.number("select sum(stock) from items").await
        })
        .await;
        until_all_is_free(&scene).await;
        wait::until(wait::SOON, "the worker is ready again", async || {
            worker.get("/readyz").await.unwrap().0 == 200
        })
        .await;
    }
}

#[tokio::test]
async fn what_rests_rests_once_whatever_is_killed() {
    let scene = Scene::new(entities::ITEMS, &parks(entities::ITEM)).await;
    let mut worker = scene.worker().await;
    let cli = Cli::new(&scene);
    let mut sender = scene.sender().await;
    sender.outcome(bad("A", "bad")).await;
    let later: Vec<Write> = (0..1500).map(|id| increment("A", &id.to_string())).collect();
    for part in later.chunks(300) {
        sender.send(part).await;
        worker.kill();
        worker = scene.worker().await;
    }
    let resting = "select count(*) from keylane.dead_letters where state = 'parked'";
    wait::until_equal(wait::SOON, "all of them rest", 1500, async || scene.number(resting).await)
        .await;
    let counted = "select resting from keylane.parked_keys";
    assert_eq!(scene.number(counted).await, 1500);
    let id = head(&scene).await;
    cli.run(&["dead-letters", "discard", "--because", "wrong", "--id", &id]).await.ended(0);
    for _ in 0..3 {
        worker.kill();
        worker = scene.worker().await;
    }
    until_all_is_free(&scene).await;
    let row = scene.rows("select stock, version from items").await;
    assert_eq!(row, [json!({"stock": 1500, "version": 1500})]);
    let order = "select count(*) from (
        select version - lag(version) over (order by write_id::int) as step
          from keylane.ledger where outcome = 'applied') s where step <> 1";
    assert_eq!(scene.number(order).await, 0, "in the order of acceptance");
}

#[tokio::test]
async fn no_write_slips_in_while_a_busy_key_is_set_free() {
    const WRITES: usize = 3000;
    let tables = entities::LOAD_TABLES;
    let entity = "[entities.line]\ntable = 'lines'\nkey = ['key']\nversion = 'version'\n";
    let scene = Scene::new(tables, &parks(entity)).await;
    let _worker = scene.worker().await;
    let cli = Cli::new(&scene);
    let sender = scene.sender().await;
    let writes: Vec<Write> = (1..=WRITES)
        .map(|n| {
            let body =
                if n % 100 == 0 { r#"{"seq":"x"}"#.into() } else { format!("{{\"seq\":{n}}}") };
            write("line.upsert", "busy", &n.to_string(), &body)
        })
        .collect();
    let sending = async {
        for part in writes.chunks(20) {
            sender.send(part).await;
        }
    };
    let dead = "select count(*) from keylane.dead_letters where state = 'discarded'";
    let freeing = async {
        while scene.number(dead).await < i64::try_from(WRITES / 100).unwrap() {
            let id = head(&scene).await;
            if id != "0" {
                let said =
                    cli.run(&["dead-letters", "discard", "--because", "wrong", "--id", &id]).await;
                assert!(said.code == Some(0) || said.error.contains(&id), "{said:?}");
            }
        }
    };
    tokio::join!(sending, freeing);
    until_all_is_free(&scene).await;
    let applied = "select count(*) from history";
    wait::until_equal(wait::SOON, "all are applied", 2970, async || scene.number(applied).await)
        .await;
    let order = "select count(*) from (
        select seq - lag(seq) over (order by id) as step from history) s where step not in (1, 2)";
    assert_eq!(scene.number(order).await, 0, "in the order of acceptance, each once");
}

#[tokio::test]
async fn a_closed_dead_letter_of_a_forgotten_write_hides_nothing() {
    let scene = Scene::new(entities::ITEMS, &parks(entities::ITEM)).await;
    let _worker = scene.worker().await;
    let cli = Cli::new(&scene);
    let mut sender = scene.sender().await;
    let rested = increment("A", "rested");
    sender.outcomes(&[bad("A", "1"), rested.clone()]).await;
    let discard = ["dead-letters", "discard", "--because", "wrong", "--yes", "--key"];
    cli.run(&[&discard[..], &["A"]].concat()).await.ended(0);
    until_all_is_free(&scene).await;
    // The retention is over: both come again as new writes.
    scene.execute("delete from keylane.ledger").await;
    let outcomes = sender.outcomes(&[bad("A", "1"), rested]).await;
    let outcomes: Vec<String> = outcomes.iter().map(brief).collect();
    assert_eq!(outcomes, ["rejected type_mismatch -", "parked behind_dead_letter -"]);
    let open = "select count(*) from keylane.dead_letters where state in ('dead', 'parked')";
    assert_eq!(scene.number(open).await, 2, "what stands still is there to be seen");

    let restore = ["dead-letters", "restore", "--because", "both", "--yes", "--key", "A"];
    let refused = cli.run(&restore).await.ended(1);
    assert!(refused.error.contains("open"), "{}", refused.error);
    cli.run(&["dead-letters", "discard", "--because", "wrong", "--id", &head(&scene).await])
        .await
        .ended(0);
    until_all_is_free(&scene).await;
    assert_eq!(scene.number("select stock from items where sku = 'A'").await, 1);
}
