//! Who may call: the built ingress with a file of tokens, and the file changed while it runs.

use std::fs;
use std::path::Path;

use super::{Stage, brief, patch};
use crate::support::{Request, request, wait};

/// SHA-256 of `alpha`, `beta` and `gamma`, as `sha256sum` makes them.
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const BETA: &str = "f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753";
const GAMMA: &str = "be9d587defa1f0c09ef49eb17e206983a5f8f8289e4281860bd0ee5a19592c67";

fn write(file: &Path, tokens: &[(&str, &str, &str)]) {
    let tokens = tokens.iter().map(|(name, sha256, scopes)| {
        format!("[[tokens]]\nname = '{name}'\nsha256 = '{sha256}'\nscopes = [{scopes}]\n")
    });
    // Whole at every moment.
    let fresh = file.with_extension("new");
    fs::write(&fresh, tokens.collect::<String>()).unwrap();
    fs::rename(&fresh, file).unwrap();
}

fn by(request: Request, authorization: &str) -> Request {
    if authorization.is_empty() { request } else { request.header("authorization", authorization) }
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_name_for_as_long_as_it_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let desks = [("desk", BETA, "'read'"), ("ops", GAMMA, "'operate'")];
    write(&file, &[&[("shop", ALPHA, "'write'")], desks.as_slice()].concat());
    let mut stage = Stage::with(&[("http.tokens_file", file.to_str().unwrap())]).await;
    let put = || patch("customer/A", "1", "{}");
    let read = || request("GET", "/v1/customer/A");
    let status = || request("GET", "/v1/writes/customer/1");
    let bulk = || request("POST", "/v1/writes").header("content-type", "application/x-ndjson");
    let bearer = "Bearer";
    let invalid = "Bearer error=\"invalid_token\"";
    let lacks = |scope| format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    let table = [
        (put(), "", 401, bearer.to_owned()),
        (put(), "Bearer nobody", 401, invalid.to_owned()),
        (put(), "Basic YTpi", 401, invalid.to_owned()),
        (put(), "Bearer beta", 403, lacks("write")),
        (bulk(), "", 401, bearer.to_owned()),
        (bulk(), "Bearer beta", 403, lacks("write")),
        (put(), "bearer alpha", 201, String::new()),
        (read(), "", 401, bearer.to_owned()),
        (read(), "Bearer alpha", 403, lacks("read")),
        (read(), "Bearer beta", 200, String::new()),
        (status(), "Bearer beta", 200, String::new()),
        (status(), "Bearer alpha", 200, String::new()),
        (status(), "Bearer gamma", 403, lacks("read")),
        (request("GET", "/livez"), "", 200, String::new()),
        (request("GET", "/readyz"), "", 200, String::new()),
        (request("GET", "/metrics"), "", 200, String::new()),
        (request("GET", "/openapi.json"), "", 200, String::new()),
        (request("GET", "/problems/unauthorized"), "", 200, String::new()),
    ];
    for (call, authorization, expected, challenge) in table {
        let shown = format!("{} {} as `{authorization}`", call.method, call.path);
        let answer = stage.send(by(call, authorization)).await;
        assert_eq!(answer.status, expected, "{shown}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").unwrap_or_default(), challenge, "{shown}");
        match expected {
            401 => assert_eq!(brief(&answer), "401 unauthorized", "{shown}"),
            403 => assert_eq!(brief(&answer), "403 forbidden", "{shown}"),
            _ => {}
        }
    }

    // One more for a while, then one less: nobody is locked out in between.
    write(&file, &[("shop", ALPHA, "'write'"), ("next", BETA, "'write'")]);
    stage.ingress.signal("HUP");
    wait::until(wait::SOON, "the other token may write", async || {
        stage.client.send(by(put(), "Bearer beta")).await.status == 201
    })
    .await;
    stage.send(by(put(), "Bearer alpha")).await.was(201);
    write(&file, &[("next", BETA, "'write'")]);
    stage.ingress.signal("HUP");
    wait::until(wait::SOON, "the first token is gone", async || {
        stage.client.send(by(put(), "Bearer alpha")).await.status == 401
    })
    .await;
    stage.send(by(put(), "Bearer beta")).await.was(201);
    let log = stage.ingress.log();
    assert!(!log.contains("alpha") && !log.contains("beta"), "no token is logged: {log}");
}

#[tokio::test]
async fn who_may_only_write_is_shown_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    write(&file, &[("shop", ALPHA, "'write'"), ("desk", BETA, "'write', 'read'")]);
    let mut stage = Stage::with(&[("http.tokens_file", file.to_str().unwrap())]).await;
    let call = |id: &str| {
        let call = patch("customer/A", id, r#"{"name":"Ada"}"#);
        call.header("prefer", "return=representation")
    };
    let table = [("alpha", None), ("beta", Some("return=representation"))];
    for (token, honoured) in table {
        let answer = stage.send(by(call(token), &format!("Bearer {token}"))).await;
        let shown = answer.json()["points"].is_number();
        assert_eq!(shown, honoured.is_some(), "{token}: {answer:?}");
        assert_eq!(answer.header("preference-applied"), honoured, "{token}");
    }
}
