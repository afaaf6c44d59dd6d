//! Callers that know the API and nothing else: the examples, and the pages that explain it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::servers::blocking;
use crate::support::{Scene, Worker, wait};

const TABLES: &str = include_str!("../../examples/shop/tables.sql");
const ENTITIES: &str = include_str!("../../examples/shop/keylane.toml");
const EXAMPLES: [(&str, &str); 3] =
    [("python3", "shop.py"), ("node", "shop.mjs"), ("bash", "shop.sh")];

async fn run(tool: &'static str, script: &str, port: u16, customer: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/http").join(script);
    let mut command = Command::new(tool);
    command.arg(script).arg(customer).stdin(Stdio::null());
    command.env("KEYLANE_URL", format!("http://127.0.0.1:{port}")).env_remove("KEYLANE_TOKEN");
    blocking(move || command.output().unwrap()).await
}

async fn service(scene: &Scene) -> Worker {
    Worker::spawn_command("run", &scene.config(), &[]).ready().await
}

#[tokio::test]
async fn examples_in_each_language_do_what_they_say() {
    let scene = Scene::new(TABLES, ENTITIES).await;
    let service = service(&scene).await;
    for (tool, script) in EXAMPLES {
        let customer = format!("{tool}-1");
        for (created, balance, version) in [("201", 106, 6), ("412", 112, 11)] {
            let output = run(tool, script, service.port, &customer).await;
            let text = String::from_utf8(output.stdout).unwrap();
            let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(0), "{tool}: {said}");
            assert!(text.starts_with(&format!("create: {created} ")), "{tool}: {said}");
            for line in ["update: 200", "bulk: ", "async: 202", "outcome: applied\n"] {
                assert!(text.contains(line), "{tool} says {line}: {said}");
            }
            assert_eq!(text.matches("applied").count(), 4, "{tool}: {said}");
            let row = format!(
                "select name, email, balance::integer, tags, version from customers
                  where external_id = '{customer}'"
            );
            let expected = json!({"name": "Ada", "email": "ada@example.com", "balance": balance,
                                  "tags": ["vip"], "version": version});
            assert_eq!(scene.rows(&row).await, [expected], "{tool}");
        }
    }
}

#[tokio::test]
async fn the_description_follows_the_tables() {
    let scene = Scene::new(TABLES, ENTITIES).await;
    let service = service(&scene).await;
    let document = async || -> Value {
        let (status, body) = service.get("/openapi.json").await.unwrap();
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    };
    let before = document().await;
    assert!(before["paths"]["/v1/customer/{external_id}"]["patch"].is_object(), "{before}");
    let schemas = &before["components"]["schemas"];
    assert_eq!(schemas["customer.body_with_key"]["required"], json!(["external_id"]));
    assert_eq!(schemas["customer.body"]["properties"]["name"]["type"], json!(["string", "null"]));
    let members = schemas["customer.body"]["properties"].as_object().unwrap();
    for hidden in ["id", "version", "source_updated_at"] {
        assert!(!members.contains_key(hidden), "no write may name {hidden}");
    }

    // A write that names the new column makes the catalogue be read again.
    scene.execute("alter table customers add column phone varchar(20)").await;
    let mut sender = scene.sender().await;
    let write = crate::support::write("customer.upsert", "C", "w", r#"{"phone":"1"}"#);
    assert_eq!(sender.outcome(write).await["outcome"], "applied");
    wait::until(wait::SOON, "the new column is described", async || {
        let schemas = &document().await["components"]["schemas"];
        schemas["customer.body"]["properties"]["phone"]["maxLength"] == 20
    })
    .await;
}

#[tokio::test]
async fn every_problem_has_a_page() {
    let scene = Scene::new(TABLES, ENTITIES).await;
    let service = service(&scene).await;
    let (status, page) = service.get("/problems/type_mismatch").await.unwrap();
    assert_eq!(status, 200);
    assert!(page.starts_with("## type_mismatch\n\n**422**"), "{page}");
    let (status, problem) = service.get("/problems/nothing").await.unwrap();
    assert_eq!(status, 404);
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!(problem["code"], "no_such_path");
    let (_, problem) = service.get("/v1/customer/C").await.unwrap();
    let problem: Value = serde_json::from_str(&problem).unwrap();
    let (status, _) = service.get(problem["type"].as_str().unwrap()).await.unwrap();
    assert_eq!(status, 200, "a problem's type is a page: {problem}");
}
