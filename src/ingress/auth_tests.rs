//! Who is let in, what a file may hold, and that no token is shown.

use std::fs;

use super::*;

/// SHA-256 of `alpha` and of `beta`.
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const BETA: &str = "f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753";

fn token(name: &str, sha256: &str, scopes: &str) -> String {
    format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nscopes = [{scopes}]\n")
}

fn both() -> String {
    let alpha = ALPHA.to_uppercase();
    token("shop", &alpha, "\"write\", \"read\"") + &token("desk", BETA, "\"operate\"")
}

fn check(tokens: &Tokens, authorization: Option<&str>, scope: Scope) -> Result<String, Denied> {
    let value = authorization.map(|text| HeaderValue::from_bytes(text.as_bytes()).unwrap());
    let peer = "192.0.2.1:999".parse().unwrap();
    tokens.check(value.as_ref(), &[scope], peer).map(|caller| caller.name.as_ref().to_owned())
}

#[test]
fn a_caller_is_known_by_their_token_and_may_do_what_its_scopes_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    fs::write(&file, both()).unwrap();
    let tokens = Tokens::load(file.to_str()).unwrap();
    let (write, read, operate) = (Scope::Write, Scope::Read, Scope::Operate);
    let table = [
        (Some("Bearer alpha"), write, Ok("shop")),
        (Some("Bearer alpha"), read, Ok("shop")),
        (Some("Bearer alpha"), operate, Err(Denied::Forbidden { scope: operate })),
        (Some("bEaReR   beta "), operate, Ok("desk")),
        (Some("Bearer beta"), write, Err(Denied::Forbidden { scope: write })),
        (None, write, Err(Denied::Missing)),
        (Some(""), write, Err(Denied::Invalid)),
        (Some("Bearer"), write, Err(Denied::Invalid)),
        (Some("Bearer "), write, Err(Denied::Invalid)),
        (Some("Bearer gamma"), write, Err(Denied::Invalid)),
        (Some("Bearer alpha beta"), write, Err(Denied::Invalid)),
        (Some("Bearer alph\u{e4}"), write, Err(Denied::Invalid)),
        (Some("Basic alpha"), write, Err(Denied::Invalid)),
        (Some("alpha"), write, Err(Denied::Invalid)),
        (Some("Beareralpha"), write, Err(Denied::Invalid)),
    ];
    for (authorization, scope, expected) in table {
        let expected = expected.map(str::to_owned);
        assert_eq!(check(&tokens, authorization, scope), expected, "{authorization:?} {scope}");
    }
    let loopback = "127.0.0.1:9".parse().unwrap();
    assert_eq!(
        tokens.check(None, &[write], loopback),
        Err(Denied::Missing),
        "with a file, from anywhere"
    );
}

#[test]
fn without_a_file_only_loopback_is_served() {
    let tokens = Tokens::load(None).unwrap();
    let table = [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("[::ffff:192.0.2.1]:1", false),
        ("192.0.2.1:1", false),
        ("10.0.0.1:1", false),
        ("0.0.0.0:1", false),
        ("[::2]:1", false),
    ];
    let any = HeaderValue::from_static("Bearer alpha");
    for (peer, served) in table {
        for authorization in [None, Some(&any)] {
            let caller = tokens.check(authorization, &[Scope::Operate], peer.parse().unwrap());
            let expected = if served { Ok("loopback") } else { Err(Denied::NotLoopback) };
            assert_eq!(
                caller.as_ref().map(|c| c.name.as_ref()).map_err(|d| *d),
                expected,
                "{peer}"
            );
        }
    }
}

#[test]
fn a_refusal_says_what_would_be_right() {
    let forbidden = Denied::Forbidden { scope: Scope::Read };
    let table = [
        (Denied::Missing, 401, Some("Bearer"), "bearer token"),
        (Denied::Invalid, 401, Some("Bearer error=\"invalid_token\""), "valid"),
        (forbidden, 403, Some("Bearer error=\"insufficient_scope\", scope=\"read\""), "`read`"),
        (Denied::NotLoopback, 403, None, "http.tokens_file"),
    ];
    for (denied, status, challenge, word) in table {
        assert_eq!(denied.status(), status);
        assert_eq!(denied.challenge(), challenge);
        assert!(denied.to_string().contains(word), "{denied}");
    }
}

/// A file, and what is said about it; `hunter2` is never said.
#[test]
fn a_file_that_is_wrong_is_refused_with_what_is_wrong_and_an_example() {
    let long = "n".repeat(101);
    let digits_63 = ALPHA.strip_prefix('8').unwrap();
    let one = |name: &str, sha256: &str| token(name, sha256, "\"read\"");
    let many: String = (0..=TOKENS_MAX).map(|i| one("n", &format!("{i:064}"))).collect();
    let table = [
        ("", "tokens"),
        ("tokens = 'hunter2'", "tokens: expected a sequence"),
        ("hunter2 hunter2", "not TOML"),
        ("[[token]]", "token"),
        (&(both() + "more = 1"), "unknown field `more`"),
        ("[[tokens]]\nname = 'a'\nscopes = ['read']", "missing field `sha256`"),
        (&one("a", "hunter2"), "tokens[0].sha256 of a: must be 64"),
        (&one("a", digits_63), "must be 64"),
        (&one("a", &format!("{ALPHA}0")), "must be 64"),
        (&one("a", &format!("g{digits_63}")), "must be 64"),
        (&one("a", &format!("+{digits_63}")), "must be 64"),
        (&one("", ALPHA), "tokens[0].name"),
        (&one(&long, ALPHA), "tokens[0].name"),
        (&token("a", ALPHA, ""), "at least one scope"),
        (&token("a", ALPHA, "\"hunter2\""), "write, read, operate"),
        (&token("a", ALPHA, "\"Read\""), "write, read, operate"),
        ("tokens = [{ name = 1, sha256 = 'hunter2', scopes = [] }]", "tokens[0].name: expected"),
        (&(one("a", ALPHA) + &one("b", &ALPHA.to_uppercase())), "of b: a has the same"),
        (&many, "more than 1000"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    for (text, word) in table {
        fs::write(&file, text).unwrap();
        let error = Tokens::load(file.to_str()).err().expect(text);
        let error = format!("{error:#}");
        assert!(error.contains(word), "{text}: {error}");
        assert!(error.contains("http.tokens_file"), "{error}");
        assert!(error.contains("tokens.toml") && error.contains("sha256sum"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for good in ["tokens = []", &(one("a", ALPHA) + &one("a", BETA))] {
        fs::write(&file, good).unwrap();
        assert!(Tokens::load(file.to_str()).is_ok(), "{good}");
    }
    fs::remove_file(&file).unwrap();
    let error = format!("{:#}", Tokens::load(file.to_str()).err().unwrap());
    assert!(error.contains("http.tokens_file: read /"), "{error}");
}

#[tokio::test]
async fn tokens_come_and_go_with_the_file_and_outlive_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    fs::write(&file, token("shop", ALPHA, "\"write\"")).unwrap();
    let tokens = Tokens::load(file.to_str()).unwrap();
    let known =
        |token: &str| check(&tokens, Some(&format!("Bearer {token}")), Scope::Write).is_ok();
    let table = [
        (token("shop", ALPHA, "\"write\"") + &token("shop", BETA, "\"write\""), [true, true]),
        ("broken".to_owned(), [true, true]),
        (token("shop", BETA, "\"write\""), [false, true]),
        ("tokens = []".to_owned(), [false, false]),
    ];
    assert!(known("alpha") && !known("beta"));
    for (text, expected) in table {
        fs::write(&file, &text).unwrap();
        for _ in 0..3 {
            tokens.look().await;
            assert_eq!([known("alpha"), known("beta")], expected, "{text}");
        }
    }
}
