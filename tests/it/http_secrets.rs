//! Certificates and tokens: made, taken, replaced while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::http::HeaderValue;
use keylane::http;
use keylane::ingress::auth::{Scope, Tokens};
use keylane::settings::Http;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use crate::http_server::{Server, hasty};
use crate::support::peer::Peer;
use crate::support::wait;

const REQUEST: &str = "
    [req]
    distinguished_name = name
    x509_extensions = extensions
    prompt = no
    [name]
    CN = localhost
    [extensions]
    basicConstraints = critical, CA:FALSE
    subjectAltName = DNS:localhost";

/// A certificate that vouches for itself, and its key.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

fn pair(folder: &TempDir, name: &str) -> Pair {
    let path = |ending: &str| folder.path().join(format!("{name}.{ending}"));
    let (cert, key, request) = (path("crt"), path("key"), path("cnf"));
    fs::write(&request, REQUEST).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"]).arg(&request);
    openssl.arg("-out").arg(&cert).arg("-keyout").arg(&key);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Pair { cert, key }
}

/// Trusts this certificate and no other.
async fn connect(port: u16, cert: &Path) -> Option<Peer<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok().map(Peer)
}

fn settings(cert: &Path, key: &Path) -> Http {
    let text = |path: &Path| Some(path.to_str().unwrap().to_owned());
    Http { tls_cert_file: text(cert), tls_key_file: text(key), ..hasty() }
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (pair(&folder, "first"), pair(&folder, "second"));
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let put = |pair: &Pair| {
        fs::copy(&pair.key, &key).unwrap();
        fs::copy(&pair.cert, &cert).unwrap();
    };
    put(&first);
    let server = Server::start(settings(&cert, &key)).await;
    let mut old = connect(server.port, &first.cert).await.expect("it has this certificate");
    let answer = old.get("/").await;
    assert_eq!(answer.body, "hello");
    assert!(answer.header("strict-transport-security").is_some(), "{answer:?}");
    assert!(connect(server.port, &second.cert).await.is_none(), "a client can tell them apart");

    let mut plain = Peer::connect(server.port).await;
    plain.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!plain.closed().await.contains("hello"), "nothing is served without TLS");
    assert_eq!(Peer::connect(server.port).await.closed().await, "", "a handshake has its time");

    fs::write(&cert, "broken").unwrap();
    assert!(connect(server.port, &first.cert).await.is_some());
    put(&second);
    wait::until(wait::SOON, "the new certificate is taken", async || {
        connect(server.port, &second.cert).await.is_some()
    })
    .await;
    assert_eq!(old.get("/").await.body, "hello", "those that are there stay");
    server.stops().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (pair(&folder, "one"), pair(&folder, "other"));
    let (nowhere, empty) = (folder.path().join("nowhere"), folder.path().join("empty"));
    fs::write(&empty, "").unwrap();
    let table: [(&Path, &Path, &[&str]); 6] = [
        (&nowhere, &one.key, &["http.tls_cert_file: read /", "nowhere"]),
        (&one.cert, &nowhere, &["http.tls_key_file: read /", "nowhere"]),
        (&empty, &one.key, &["http.tls_cert_file", "no certificate"]),
        (&one.cert, &empty, &["http.tls_key_file", "private key"]),
        (&one.cert, &one.cert, &["http.tls_key_file", "private key"]),
        (&one.cert, &other.key, &["http.tls_cert_file", "certificate and key together"]),
    ];
    for (cert, key, says) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let served = http::serve(listener, axum::Router::new(), &settings(cert, key), stop);
        let error = format!("{:#}", served.err().expect("these files cannot be used"));
        for part in says {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    }
}

#[tokio::test]
async fn a_token_is_valid_as_soon_as_it_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let write = |name: &str, sha256: &str| {
        let token = format!("[[tokens]]\nname = '{name}'\nsha256 = '{sha256}'\nscopes = ['read']");
        fs::write(&file, token).unwrap();
    };
    write("old", &"0".repeat(64));
    let tokens = Arc::new(Tokens::load(file.to_str()).unwrap());
    let stop = CancellationToken::new();
    let (watched, stopped) = (Arc::clone(&tokens), stop.clone());
    let watching = tokio::spawn(async move { watched.watch(stopped).await });
    // SHA-256 of `alpha`.
    write("new", "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8");
    let alpha = HeaderValue::from_static("Bearer alpha");
    wait::until(wait::SOON, "the token is known", async || {
        tokens.check(Some(&alpha), &[Scope::Read], "192.0.2.1:1".parse().unwrap()).is_ok()
    })
    .await;
    stop.cancel();
    watching.await.unwrap().unwrap();
}
