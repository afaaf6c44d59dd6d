//! A fresh database as its administrator sees it: who may make roles, extensions and collations.

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::Scene;

/// A database and an administrator's way into it.
pub(crate) struct Database {
    pub pool: PgPool,
    // Drops the database at the end.
    _scene: Scene,
}

/// A fresh, migrated database.
pub(crate) async fn database() -> Database {
    let scene = Scene::new("", "").await;
    let url = super::scene::at_database(&scene.servers.admin, &scene.name);
    let pool = PgPoolOptions::new().max_connections(3).connect_lazy(&url).unwrap();
    Database { pool, _scene: scene }
}
