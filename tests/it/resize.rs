//! `keylane resize` and `keylane generations`, beside workers and senders.

use serde_json::{Value, json};

use crate::support::load::Load;
use crate::support::{Cli, Scene, entities, wait, write};

const ROLLS: &str =
    "select count(*) from keylane.routing where roller is not null and partitions = 4";

async fn json_of(cli: &Cli, args: &[&str]) -> Value {
    let said = cli.run(&[args, &["--output", "json"]].concat()).await;
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Up, and down again by somebody who does not wait for the first to end.
async fn up_and_down(scene: &Scene, cli: &Cli) {
    let up = cli.start(&["resize", "--partitions", "4", "--yes", "--because", "more of them"]);
    wait::until(wait::SOON, "a worker rolls", async || scene.number(ROLLS).await > 0).await;
    let impatient = cli.run(&["resize", "--partitions", "1", "--yes", "--no-wait"]).await.ended(1);
    assert!(impatient.error.contains("a roll is running; nothing was requested"), "{impatient:?}");
    let down = cli.start(&["resize", "--partitions", "1", "--yes", "--output", "json"]);
    let up = up.ended().await.ended(0);
    assert_eq!(up.out, "generation 2 has the turn, 4 partitions\n");
    assert!(up.error.contains("only makes generation 2, 4 partitions"), "{up:?}");
    let down = down.ended().await.ended(0);
    assert!(down.error.contains("a roll is running, and is waited for"), "{down:?}");
    let expected = json!({"state": "done", "partitions": 1, "before": 4, "requested": true,
        "generation": 3});
    assert_eq!(serde_json::from_str::<Value>(&down.out).unwrap(), expected);
}

/// All columns but SINCE.
fn columns(line: &str) -> Vec<&str> {
    let columns = line.split_whitespace().enumerate();
    columns.filter(|(number, _)| *number != 7).map(|(_, text)| text).collect()
}

#[tokio::test]
async fn the_number_of_partitions_goes_up_and_down_while_senders_go_on() {
    let scene = Scene::new(entities::LOAD_TABLES, entities::LOAD_ENTITIES).await;
    let _worker = scene.worker_with(&[("worker.id", "only")]).await;
    let cli = Cli::new(&scene);
    let load = Load::new(&scene);
    load.during(async {
        load.flows(200).await;
        up_and_down(&scene, &cli).await;
        load.flows(200).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;

    let said = cli.run(&["resize", "--partitions", "1"]).await.ended(0);
    assert_eq!(said.out, "nothing to do: generation 3 has 1 partition\n");
    let actions = "select actor, action, target, reason, result from keylane.operator_actions
                    order by id limit 1";
    let expected = json!({"actor": "tester", "action": "resize", "target": "routing",
        "reason": "more of them", "result": "from 2 to 4 partitions requested"});
    assert_eq!(scene.rows(actions).await, [expected]);
    let said = json_of(&cli, &["generations"]).await;
    assert_eq!((&said["wanted"], &said["roller"]), (&json!(1), &Value::Null), "{said}");
    let lines = said["generations"].as_array().unwrap();
    let brief = |line: &Value| {
        json!([line["generation"], line["state"], line["does"], line["closed"], line["left_about"]])
    };
    let expected = [
        json!([1, "closed", "over", 2, 0]),
        json!([2, "closed", "over", 4, 0]),
        json!([3, "open", "current", 0, 0]),
    ];
    assert_eq!(lines.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(lines[2]["workers"], json!({"only": 1}));
}

/// The line of turns as a table.
async fn shown(cli: &Cli) {
    let shown = cli.run(&["generations", "--all"]).await.ended(0).out;
    let lines: Vec<Vec<&str>> = shown.lines().map(columns).collect();
    let expected = [
        ["1", "held", "closed", "over", "1", "1", "?", "-"],
        ["2", "1", "closed", "over", "2", "2", "~0", "-"],
        ["3", "held", "closed", "over", "1", "1", "?", "-"],
        ["4", "2", "open", "current", "4", "0", "~0", "only"],
    ];
    for (line, expected) in lines[1..].iter().zip(expected) {
        assert_eq!(line[..8], expected, "{shown}");
    }
    assert!(shown.ends_with("4 partitions wanted; nobody rolls\n"), "{shown}");
}

#[tokio::test]
async fn a_request_stays_until_a_worker_is_there() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let cli = Cli::new(&scene);
    for (partitions, why) in [("0", "would take no write"), ("1001", "three digits")] {
        let refused = cli.run(&["resize", "--partitions", partitions, "--yes"]).await.ended(2);
        assert!(refused.error.contains(why), "{refused:?}");
    }
    let three = ["resize", "--partitions", "3", "--yes"];
    let early = cli.run(&three).await.ended(1);
    assert!(early.error.contains("no worker was ever started"), "{early:?}");
    let early = cli.run(&["generations"]).await.ended(0);
    assert!(early.out.ends_with("no worker was ever started on this database\n"), "{early:?}");

    let mut worker = scene.worker().await;
    let stands = "select count(*) from keylane.turns, keylane.routing
                   where generation = 1 and roller is null";
    wait::until(wait::SOON, "a ring stands", async || scene.number(stands).await == 1).await;
    worker.kill();
    let unasked = cli.run(&["resize", "--partitions", "3"]).await.ended(1);
    assert!(unasked.error.contains("--yes goes from 2 to 3 partitions"), "{unasked:?}");
    let none = "select count(*) from keylane.operator_actions";
    assert_eq!(scene.number(none).await, 0, "nothing was changed so far");
    let running = cli.start(&three);
    let wanted = "select partitions from keylane.routing";
    wait::until(wait::SOON, "it is requested", async || scene.number(wanted).await == 3).await;
    running.signal("INT");
    let stopped = running.ended().await.ended(1);
    assert!(stopped.error.contains("not watched any more; the request stays"), "{stopped:?}");
    let late = cli.run(&[&three[..], &["--timeout", "0"]].concat()).await.ended(1);
    assert!(late.error.contains("not done in that time; the request stays"), "{late:?}");
    let split = [("KEYLANE__WORKER__PARTITIONS", "0")];
    let alone = cli.run_with(&["resize", "--partitions", "4", "--yes"], &split).await.ended(1);
    assert!(alone.error.contains("each of 0 to 3 is named by some worker"), "{alone:?}");
    assert!(alone.error.contains("no worker is running on this database; the request stays"));
    assert_eq!(scene.number(wanted).await, 4);

    let _worker = scene.worker_with(&[("worker.id", "only")]).await;
    let said = cli.run(&["resize", "--partitions", "4"]).await.ended(0);
    assert!(said.out.ends_with("generation 2 has the turn, 4 partitions\n"), "{said:?}");
    let doctor = async || {
        let checks = json_of(&cli, &["doctor"]).await;
        let checks = checks.as_array().unwrap().clone();
        let named = |name: &str| {
            checks.iter().find(|check| check["name"] == name).unwrap()["found"].clone()
        };
        [named("routing.turns"), named("routing.roll"), named("routing.spread")]
    };
    let spread = "partitions of generation 2 by worker: nobody has one; 4 not claimed yet: no \
                  write came";
    let turns = "generation 2 has the turn, 4 partitions";
    assert_eq!(doctor().await, [turns, "nobody rolls", spread]);
    let writes: Vec<_> =
        (0..64).map(|n| write("item.upsert", &format!("k{n}"), &n.to_string(), "{}")).collect();
    scene.sender().await.outcomes(&writes).await;
    let spread = "partitions of generation 2 by worker: only 4";
    assert_eq!(doctor().await, [turns, "nobody rolls", spread]);
    shown(&cli).await;
}

#[tokio::test]
async fn the_partitions_of_a_new_ring_are_spread_over_the_workers() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = async |id| {
        let settings = [("worker.id", id), ("generations.spread_ms", "1000")];
        scene.worker_with(&settings).await
    };
    let (_first, _second) = (worker("first").await, worker("second").await);
    Cli::new(&scene).run(&["resize", "--partitions", "16", "--yes"]).await.ended(0);
    let writes: Vec<_> =
        (0..200).map(|n| write("item.upsert", &n.to_string(), &n.to_string(), "{}")).collect();
    scene.sender().await.send(&writes).await;
    let owned = "select count(*) from keylane.partitions where generation = 2";
    wait::until_equal(wait::SOON, "all partitions owned", 16, async || scene.number(owned).await)
        .await;
    let owners = scene
        .rows(
            "select owner, count(*) as has from keylane.partitions where generation = 2
              group by owner having count(*) between 3 and 13",
        )
        .await;
    assert_eq!(owners.len(), 2, "{owners:?}");
}
