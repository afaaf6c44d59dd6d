//! Senders that know the wire contract and nothing else: the examples.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::servers::{Vhost, blocking};
use crate::support::{Scene, entities};

const TOOLS: [(&str, &str); 2] = [("python3", "python/send.py"), ("node", "node/send.mjs")];

async fn send(tool: &'static str, script: &str, url: &str, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(script);
    let mut command = Command::new(tool);
    command.arg(script).args(arguments).env("AMQP_URL", url).stdin(Stdio::null());
    blocking(move || command.output().unwrap()).await
}

#[tokio::test]
async fn senders_in_other_languages_get_their_outcomes() {
    let vhost = Vhost::new("senders");
    let scene = Scene::on_vhost(&vhost, entities::ITEMS, entities::ITEM).await;
    let _worker = scene.worker().await;
    for (tool, script) in TOOLS {
        let (key, bad) = (format!("{tool}/ключ"), format!("{tool} bad"));
        let first = ["item", "upsert", &key, &format!("{tool} 1"), r#"{"stock":5,"label":"é"}"#];
        let second = ["item", "increment", &key, &format!("{tool} 2"), r#"{"stock":-2}"#];
        let both = [first, second].concat();
        for replayed in [false, true] {
            let output = send(tool, script, &vhost.url, &both).await;
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{tool}: {error}");
            let text = String::from_utf8(output.stdout).unwrap();
            let outcomes: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(outcomes.len(), 2, "{tool}: {text}");
            for (number, (outcome, effect)) in
                outcomes.iter().zip(["created", "updated"]).enumerate()
            {
                assert_eq!(outcome["outcome"], "applied", "{tool}: {outcome}");
                assert_eq!(outcome["effect"], effect, "{tool}: {outcome}");
                assert_eq!(outcome["version"], number + 1, "{tool}: {outcome}");
                assert_eq!(outcome["key"], key, "{tool}: {outcome}");
                assert_eq!(outcome["replayed"], replayed, "{tool}: {outcome}");
            }
        }
        let output =
            send(tool, script, &vhost.url, &["item", "upsert", &key, &bad, r#"{"x":1}"#]).await;
        assert_eq!(output.status.code(), Some(1), "{tool}: a rejection is a failure");
        assert!(String::from_utf8_lossy(&output.stdout).contains("unknown_column"), "{tool}");
        let row = format!("select label, stock, version from items where sku = '{key}'");
        let expected = json!({"label": "é", "stock": 3, "version": 2});
        assert_eq!(scene.rows(&row).await, [expected], "{tool}");
    }
}
