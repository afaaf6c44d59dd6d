//! The page for monitoring.

use keylane::telemetry::help::HELP;

use crate::support::{Cli, Client, OwnServers, Process, Scene, entities, request, wait, write};

/// Series that a worker's page may have, whatever keys, entities and rings it has seen. 160 were
/// seen; a metric that is new may want more of them, a longer life must not.
const SERIES_MAX: usize = 170;

#[tokio::test]
async fn the_page_names_every_metric_and_counts_what_happens() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker().await;
    // The board is looked at every two seconds.
    wait::until_equal(wait::SOON, "a page without gaps", Vec::<&str>::new(), async || {
        let page = worker.get("/metrics").await.unwrap().1;
        let names =
            HELP.iter().filter(|(name, help)| !page.contains(&format!("# HELP {name} {help}\n")));
        names.map(|(name, _)| *name).collect()
    })
    .await;
    let mut sender = scene.sender().await;
    let published =
        write("item.upsert", "A", "1", "{}").header("published-at", "2026-01-01T00:00:00.000Z");
    sender.outcome(published.clone()).await;
    sender.outcome(published).await;
    sender.outcome(write("item.create", "A", "2", "{}")).await;
    sender.outcome(write("item.upsert", "A", "3", "{")).await;
    sender.outcome(write("item.delete", "A", "4", "")).await;
    let expected = [
        r#"keylane_writes_total{outcome="applied",reason="created"} 1"#,
        r#"keylane_writes_total{outcome="applied",reason="deleted"} 1"#,
        r#"keylane_writes_total{outcome="applied",reason="updated"} 0"#,
        r#"keylane_writes_total{outcome="precondition_failed",reason="already_exists"} 1"#,
        r#"keylane_writes_total{outcome="rejected",reason="malformed_body"} 1"#,
        r#"keylane_dead_letters_total{reason="malformed_body"} 1"#,
        r#"keylane_dead_letters_total{reason="write_id_reused"} 0"#,
        "keylane_deliveries_total 5",
        "keylane_writes_replayed_total 1",
        "keylane_row_writes_total 2",
        "keylane_batch_writes_count 5",
        "keylane_lag_seconds_count 2",
        "keylane_partitions_held 1",
        "keylane_connected 1",
    ];
    let mut page = String::new();
    wait::until(wait::SOON, "the gauges have been set", async || {
        page = worker.get("/metrics").await.unwrap().1;
        page.contains("keylane_partitions_held 1\n")
    })
    .await;
    for line in expected {
        assert!(page.lines().any(|found| found == line), "`{line}` is missing:\n{page}");
    }
    wait::until(wait::SOON, "the one key has all writes", async || {
        page = worker.get("/metrics").await.unwrap().1;
        let shares = [(1, 1), (2, 0), (5, 0)];
        shares.iter().all(|(rank, share)| {
            page.contains(&format!("keylane_hot_key_share{{rank=\"{rank}\"}} {share}\n"))
        })
    })
    .await;
    assert!(!page.contains("\"A\""), "a business key is no label");
}

async fn shows(processes: [&Process; 2], database: f64) {
    wait::until_equal(wait::SOON, "the database's gauge", [Some(database); 2], async || {
        let [one, other] = processes.map(|process| process.metric("keylane_database_connected"));
        [one.await, other.await]
    })
    .await;
}

#[tokio::test]
async fn the_page_says_that_the_database_is_away_and_that_it_is_back_though_nothing_is_written() {
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, entities::CUSTOMERS, entities::CUSTOMER).await;
    let worker = scene.worker().await;
    let ingress = scene.ingress().await;
    shows([&worker, &ingress], 1.0).await;
    own.run("stop-postgres").await;
    shows([&worker, &ingress], 0.0).await;
    let call = request("PATCH", "/v1/customer/A").id("1").header("prefer", "wait=0").body("{}");
    assert_eq!(Client::new(ingress.port).send(call).await.status, 202);
    let accepted = r#"keylane_http_answers_total{outcome="accepted"}"#;
    assert_eq!(ingress.metric(accepted).await, Some(1.0));
    let version = concat!(r#"keylane_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    assert_eq!(ingress.metric(version).await, Some(1.0));
    own.run("restart-postgres").await;
    shows([&worker, &ingress], 1.0).await;
}

/// Series of its page, without their values.
async fn series(process: &Process) -> Vec<String> {
    let page = process.get("/metrics").await.unwrap().1;
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn keys_entities_and_rings_do_not_add_up_on_the_page() {
    let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
    let worker = scene.worker().await;
    let mut sender = scene.sender().await;
    for partitions in ["4", "2", "4", "3"] {
        let resize = ["resize", "--partitions", partitions, "--yes", "--because", "a test"];
        Cli::new(&scene).run(&resize).await.ended(0);
        let id = |key: usize| format!("{partitions}-{key}");
        let writes: Vec<_> =
            (0..1000).map(|key| write("item.upsert", &id(key), &id(key), "{}")).collect();
        sender.outcomes(&writes).await;
    }
    let strange: Vec<_> = (0..100)
        .map(|n| write(&format!("strange{n}.upsert"), "A", &format!("strange {n}"), "{}"))
        .collect();
    sender.outcomes(&strange).await;
    assert_eq!(scene.number("select count(*) from keylane.dead_letters").await, 100);
    // A worker counts the table when it starts, and then once a minute.
    let late = scene.worker_with(&[("worker.id", "late")]).await;
    let counted = r#"keylane_dead_letters{entity="",reason="unknown_entity",state="dead"}"#;
    wait::until_equal(wait::SOON, "what nobody knows, together", Some(100.0), async || {
        late.metric(counted).await
    })
    .await;
    for process in [&worker, &late] {
        let series = series(process).await;
        assert!(series.len() <= SERIES_MAX, "{} series: {series:#?}", series.len());
        eprintln!("{} series", series.len());
        let older = series.iter().find(|name| name.contains("partition=\"1."));
        assert_eq!(older, None, "a generation has series of its own");
    }
}
