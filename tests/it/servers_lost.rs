//! Servers that restart or die under load. Each test has servers of its own.

use crate::support::load::Load;
use crate::support::{OwnServers, Scene, entities};

#[tokio::test]
async fn a_database_that_restarts_or_dies_costs_no_write() {
    let own = OwnServers::start().await;
    let tables = (entities::LOAD_TABLES, entities::LOAD_ENTITIES);
    let scene = Scene::on_own(&own.servers, tables.0, tables.1).await;
    let _worker = scene.worker().await;
    let load = Load::new(&scene);
    load.during(async {
        for command in ["restart-postgres", "kill-postgres", "kill-postgres"] {
            load.flows(700).await;
            own.run(command).await;
        }
        load.flows(700).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;
}

#[tokio::test]
async fn a_broker_that_restarts_or_dies_costs_no_write() {
    let own = OwnServers::start().await;
    let tables = (entities::LOAD_TABLES, entities::LOAD_ENTITIES);
    let scene = Scene::on_own(&own.servers, tables.0, tables.1).await;
    let _worker = scene.worker().await;
    let load = Load::new(&scene);
    load.during(async {
        for command in ["restart-rabbit", "kill-rabbit"] {
            load.flows(700).await;
            own.run(command).await;
        }
        load.flows(700).await;
    })
    .await;
    load.verify().await;
    load.verify_order().await;
}
