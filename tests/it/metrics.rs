//! The page for monitoring.

use keylane::telemetry::metrics::HELP;

use crate::support::{Scene, entities, wait, write};

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
