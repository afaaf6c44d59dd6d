//! The rights of an ingress that docs/PERMISSIONS.md names are enough for it, and no more than that.

use std::env;
use std::fs;

use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::servers::blocking;
use crate::support::{Answer, Client, Process, Scene, entities, request};

/// The document's words, with this scene's names in the place of those that it uses.
fn of_document(scene: &Scene, role: &str) -> (Vec<String>, String) {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PERMISSIONS.md"));
    let text = text.unwrap().replace("keylane_ingress", role);
    let patterns = text.lines().find(|line| line.contains("set_permissions -p / ingress")).unwrap();
    let patterns = patterns.split('\'').skip(1).step_by(2);
    let patterns = patterns.map(|pattern| pattern.replace("keylane", &scene.prefix)).collect();
    let mut blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let sql = blocks.find(|block| block.contains(&format!("create role {role}"))).unwrap();
    (patterns, sql.to_owned())
}

/// A user of the broker who may do that, until dropped.
struct User(String);

impl User {
    async fn new(name: &str, patterns: Vec<String>) -> Self {
        let user = name.to_owned();
        blocking(move || {
            let base = env::var("KEYLANE_MANAGEMENT_URL").unwrap();
            let made = json!({"password": "secret", "tags": ""});
            ureq::put(format!("{base}/api/users/{user}")).send_json(made).unwrap();
            let [configure, write, read] = <[String; 3]>::try_from(patterns).unwrap();
            let may = json!({"configure": configure, "write": write, "read": read});
            ureq::put(format!("{base}/api/permissions/%2F/{user}")).send_json(may).unwrap();
        })
        .await;
        Self(name.to_owned())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let base = env::var("KEYLANE_MANAGEMENT_URL").unwrap();
        if let Err(error) = ureq::delete(format!("{base}/api/users/{}", self.0)).call() {
            eprintln!("a user was not deleted: {error}");
        }
    }
}

/// The same address for somebody else.
fn of(url: &str, user: &str) -> String {
    let mut url: url::Url = url.parse().unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some("secret")).unwrap();
    url.into()
}

async fn served(ingress: &Process) {
    let mut client = Client::new(ingress.port);
    let mut send = async |request| -> Answer { client.send(request).await };
    let write = || request("PATCH", "/v1/customer/A").id("1").body(r#"{"name":"Ada"}"#);
    assert_eq!(send(write()).await.status, 201);
    assert_eq!(send(write()).await.status, 201, "a repeat is looked up");
    assert_eq!(send(request("GET", "/v1/customer/A")).await.status, 200);
    assert_eq!(send(request("GET", "/v1/writes/customer/1")).await.status, 200);
    let unknown = request("GET", "/v1/writes/customer/nothing");
    assert_eq!(send(unknown).await.status, 202, "it may rest");
    let later = request("PATCH", "/v1/customer/A").id("2").header("prefer", "wait=0").body("{}");
    assert!(matches!(send(later).await.status, 200 | 202));
}

#[tokio::test]
async fn an_ingress_needs_no_more_rights_than_the_document_names() {
    let scene = Scene::new(entities::CUSTOMERS, entities::CUSTOMER).await;
    let _worker = scene.worker().await;
    let role = format!("{}_ingress", scene.name);
    let (patterns, sql) = of_document(&scene, &role);
    let _user = User::new(&role, patterns).await;
    let mut admin = scene.intruder().await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    let settings =
        [("amqp.url", of(&scene.servers.amqp, &role)), ("database.url", of(&scene.url, &role))];
    let settings = settings.each_ref().map(|(path, value)| (*path, value.as_str()));
    let ingress = scene.ingress_with(&settings).await;
    served(&ingress).await;
    let writes = format!("set role {role}; delete from keylane.ledger");
    let refused = sqlx::raw_sql(AssertSqlSafe(writes)).execute(&mut admin).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    drop(ingress);
    let gone = format!("reset role; drop owned by {role}; drop role {role}");
    sqlx::raw_sql(AssertSqlSafe(gone)).execute(&mut admin).await.unwrap();
}
