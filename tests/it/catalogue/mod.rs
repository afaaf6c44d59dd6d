//! What the catalogue of a real PostgreSQL says about entities: each trouble, each type.

use std::collections::BTreeMap;

use keylane::core::entity::{Entities, Entity};
use keylane::postgres::catalogue::{self, CatalogueError, Trouble};
use keylane::settings::EntitySettings;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support;

mod keys;
mod shapes;
mod tables;

/// The settings of most tests.
const T: &str = r#""table": "t", "key": ["k"]"#;
/// A role that a test may become.
const ROLE: &str = "create role keylane_it; grant usage on schema public to keylane_it;";
/// How a remedy begins that is SQL.
const VERBS: [&str; 5] = ["alter ", "create unique ", "reindex ", "grant ", "drop "];

async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    assert!(done.is_ok(), "{sql}: {done:?}");
}

/// The fields of an entity as JSON, without braces, to settings.
fn entity_settings(fields: &str) -> EntitySettings {
    serde_json::from_str(&format!("{{{fields}}}")).expect(fields)
}

fn only(name: &str, fields: &str) -> BTreeMap<String, EntitySettings> {
    BTreeMap::from([(name.to_owned(), entity_settings(fields))])
}

async fn load(
    connection: &mut PgConnection,
    settings: &BTreeMap<String, EntitySettings>,
) -> Result<Entities, Vec<Trouble>> {
    let loaded = catalogue::load(connection, settings).await;
    loaded.map_err(|error| match error {
        CatalogueError::Entities(troubles) => troubles,
        CatalogueError::Database(error) => {
            let entity = "the catalogue could not be read".to_owned();
            vec![Trouble { entity, problem: error.to_string(), remedy: String::new() }]
        }
    })
}

/// The entity `e` of a table that is there for this alone.
async fn entity(ddl: &str, fields: &str, connection: &mut PgConnection) -> Entity {
    let mut tx = connection.begin().await.expect("a transaction");
    run(&mut tx, ddl).await;
    let entities = load(&mut tx, &only("e", fields)).await;
    tx.rollback().await.expect("a rollback");
    Entity::clone(entities.expect(ddl).get("e").expect("the entity"))
}

/// Tables of the user's, the settings, and the one trouble: words of the problem, and its remedy.
/// A remedy that is SQL is run, and must leave no trouble.
async fn assert_troubles(table: &[(&str, &str, &str, &str)]) {
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.expect("a connection");
    for (ddl, fields, problem, remedy) in table {
        let mut tx = connection.begin().await.expect("a transaction");
        run(&mut tx, &format!("{ROLE} {ddl}")).await;
        let settings = only("e", fields);
        let troubles = load(&mut tx, &settings).await.expect_err(ddl);
        let [trouble] = troubles.as_slice() else {
            assert_eq!(troubles.len(), 1, "{ddl}: {troubles:?}");
            continue;
        };
        assert_eq!(trouble.entity, "e");
        assert!(trouble.problem.contains(problem), "{ddl}: {}", trouble.problem);
        assert!(trouble.remedy.contains(remedy), "{ddl}: {}", trouble.remedy);
        if VERBS.iter().any(|verb| trouble.remedy.starts_with(verb)) {
            mend(&mut tx, &trouble.remedy).await;
            let mended = load(&mut tx, &settings).await;
            assert!(mended.is_ok(), "{}: {mended:?}", trouble.remedy);
        }
        tx.rollback().await.expect("a rollback");
    }
}

async fn mend(connection: &mut PgConnection, remedy: &str) {
    // A transaction cannot do it concurrently.
    let remedy = remedy.replace("concurrently ", "");
    let remedy = remedy.split(", or leave out").next().unwrap_or_default();
    let role: String = sqlx::query_scalar("select current_user::text")
        .fetch_one(&mut *connection)
        .await
        .expect("a role");
    run(connection, &format!("reset role; {remedy}; set local role {role}")).await;
}
