//! TLS to a broker that has its own CA and wants a certificate of its clients.

use std::fs;

use crate::support::certificates::Certificates;
use crate::support::{Cli, OwnServers, Scene, Worker, entities, wait, write};

/// Settings and the paths of the files that they name.
fn files(certificates: &Certificates, named: &[(&str, &str)]) -> Vec<(String, String)> {
    let setting = |(field, file): &(&str, &str)| (format!("amqp.{field}"), certificates.path(file));
    named.iter().map(setting).collect()
}

const CA: (&str, &str) = ("tls_ca_file", "ca.crt");
const CERT: (&str, &str) = ("tls_cert_file", "client.crt");
const KEY: (&str, &str) = ("tls_key_file", "client.key");

/// What is set, which of the doctor's checks fails by it, and what that says.
const REFUSED: [(&[(&str, &str)], &str, &str); 8] = [
    (&[CA], "broker.reachable", "set amqp.tls_cert_file and amqp.tls_key_file"),
    (&[CERT, KEY], "broker.reachable", "amqp.tls_ca_file must name the CA"),
    (
        &[("tls_ca_file", "stranger.crt"), CERT, KEY],
        "broker.reachable",
        "amqp.tls_ca_file must name the CA",
    ),
    (
        &[CA, ("tls_cert_file", "stranger.crt"), ("tls_key_file", "stranger.key")],
        "broker.reachable",
        "does not accept the certificate of amqp.tls_cert_file, /",
    ),
    (&[("tls_ca_file", "nowhere"), CERT, KEY], "broker.tls", "amqp.tls_ca_file: read /"),
    (&[CA, ("tls_cert_file", "empty"), KEY], "broker.tls", "empty holds no certificate in PEM"),
    (&[CA, CERT, ("tls_key_file", "ca.crt")], "broker.tls", "ca.crt holds no private key in PEM"),
    (
        &[CA, CERT, ("tls_key_file", "ca.key")],
        "broker.tls",
        "ca.key is not the key of amqp.tls_cert_file, /",
    ),
];

#[tokio::test]
async fn a_broker_that_wants_a_certificate_gets_it_and_every_refusal_names_its_file() {
    let own = OwnServers::start().await;
    let certificates = own.secure_rabbit().await;
    fs::write(certificates.path("empty"), "").unwrap();
    let scene = Scene::on_own(&own.servers, entities::ITEMS, entities::ITEM).await;
    let cli = Cli::new(&scene);
    let url = ("amqp.url".to_owned(), own.servers.amqps.clone());
    for (named, check, says) in REFUSED {
        let settings = [&[url.clone()][..], &files(&certificates, named)].concat();
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        let found = cli.run_set(&["doctor", "--output", "json"], &settings).await.ended(1).list();
        let failed = found.iter().find(|line| line["name"] == check).unwrap();
        assert_eq!(failed["status"], "failure", "{named:?}: {failed}");
        let what = failed["found"].as_str().unwrap();
        assert!(what.contains(says), "{named:?}: `{says}` is missing from: {what}");
        assert!(failed["remedy"].is_string(), "{failed}");

        let mut worker = Worker::spawn(&scene.config(), &settings);
        if check == "broker.tls" {
            assert_eq!(worker.exit_code().await, 1, "{named:?}");
            assert!(worker.log().contains(says), "{named:?}: {}", worker.log());
        } else {
            wait::until(wait::SOON, "the worker says what is missing", async || {
                let page = worker.get("/readyz").await;
                page.is_some_and(|(status, page)| status == 503 && page.contains(says))
            })
            .await;
        }
    }
    goes_through(&scene, &certificates).await;
    is_asked_over_tls(&scene, &own.managements, &certificates).await;
}

/// The management API is trusted by the authorities that the broker is trusted by.
async fn is_asked_over_tls(scene: &Scene, url: &str, certificates: &Certificates) {
    let unknown = ("tls_ca_file", "stranger.crt");
    for (authority, status) in [(Some(CA), "ok"), (Some(unknown), "skipped"), (None, "skipped")] {
        let named = files(certificates, &[authority.as_slice(), &[CERT, KEY]].concat());
        let mut settings =
            vec![("amqp.management_url", url), ("amqp.url", scene.servers.amqps.as_str())];
        settings.extend(named.iter().map(|(path, value)| (path.as_str(), value.as_str())));
        let args = ["doctor", "--output", "json"];
        let found = Cli::new(scene).run_set(&args, &settings).await.list();
        let line = found.iter().find(|line| line["name"] == "broker.arguments").unwrap();
        assert_eq!(line["status"], status, "{authority:?}: {line}");
    }
}

/// With the right files a worker, an ingress and a command are let in, and a write is applied.
async fn goes_through(scene: &Scene, certificates: &Certificates) {
    let named = files(certificates, &[CA, CERT, KEY]);
    let mut settings = vec![("amqp.url", scene.servers.amqps.as_str())];
    settings.extend(named.iter().map(|(path, value)| (path.as_str(), value.as_str())));
    let _worker = scene.worker_with(&settings).await;
    let _ingress = scene.ingress_with(&settings).await;
    // The sender is on the port without TLS: what it hears went through the worker.
    let mut sender = scene.sender().await;
    let outcomes = sender.outcomes(&[write("item.upsert", "k", "1", "{}")]).await;
    assert_eq!(outcomes[0]["outcome"], "applied", "{outcomes:?}");
    let cli = Cli::new(scene);
    let found = cli.run_set(&["doctor", "--output", "json"], &settings).await.list();
    for check in ["broker.tls", "broker.reachable", "broker.ring_type", "broker.topology"] {
        let line = found.iter().find(|line| line["name"] == check).unwrap();
        assert_eq!(line["status"], "ok", "{line}");
    }
    let said = cli.run_set(&["generations"], &settings).await.ended(0);
    assert!(said.out.contains("current"), "{said:?}");
}
