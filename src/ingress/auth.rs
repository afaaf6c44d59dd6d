//! Who may call `/v1`: bearer tokens in a file, or loopback alone.
//!
//! Owns: the tokens' hashes and their reload.
//! Never: holds, logs or shows a token. What the file holds is SHA-256, which suffices for what a
//! random generator has made and for nothing that a person has thought of.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::{HeaderValue, StatusCode};
use config::{Config, File, FileFormat};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::{Files, Look};
use crate::settings::load::without_quotation;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Names stand in logs.
const NAME_CHARS_MAX: usize = 100;
/// Each request is compared with all of them.
const TOKENS_MAX: usize = 1_000;
/// What a file looks like, for whoever has written another one.
const EXAMPLE: &str = "each token is written as\n\
    [[tokens]]\n\
    name = \"shop\"\n\
    sha256 = \"…\"    # 64 hexadecimal digits: printf %s TOKEN | sha256sum\n\
    scopes = [\"write\", \"read\", \"operate\"]\n\
    and a good TOKEN is made by: openssl rand -hex 32";

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To send writes, and to ask what became of them.
    Write,
    /// To read rows, and what became of writes.
    Read,
    /// To see and to change dead letters and keys: a name of the contract that no call asks for.
    Operate,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Operate => "operate",
        })
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token, or `loopback`.
    pub name: Arc<str>,
}

/// Why somebody may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no `Authorization`.
    #[error("a bearer token is needed: `Authorization: Bearer …`")]
    Missing,
    /// There is one, but with none of our tokens.
    #[error("the header `Authorization` holds no valid bearer token")]
    Invalid,
    /// The token is for something else.
    #[error("the token lacks the scope `{scope}`")]
    Forbidden { scope: Scope },
    /// No tokens are configured, and the call comes from elsewhere.
    #[error("no tokens are configured (http.tokens_file): only loopback addresses are served")]
    NotLoopback,
}

impl Denied {
    /// As HTTP says it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Missing | Self::Invalid => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::NotLoopback => StatusCode::FORBIDDEN,
        }
    }

    /// The value of `WWW-Authenticate`, as RFC 6750 has it.
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("Bearer"),
            Self::Invalid => Some("Bearer error=\"invalid_token\""),
            Self::Forbidden { scope } => Some(match scope {
                Scope::Write => "Bearer error=\"insufficient_scope\", scope=\"write\"",
                Scope::Read => "Bearer error=\"insufficient_scope\", scope=\"read\"",
                Scope::Operate => "Bearer error=\"insufficient_scope\", scope=\"operate\"",
            }),
            Self::NotLoopback => None,
        }
    }
}

/// The tokens in use.
pub struct Tokens {
    /// `None`: no file is configured.
    file: Option<Mutex<Files>>,
    known: RwLock<Arc<[Token]>>,
}

#[derive(Debug)]
struct Token {
    name: Arc<str>,
    sha256: [u8; 32],
    scopes: BTreeSet<Scope>,
}

impl Tokens {
    /// Reads `http.tokens_file`; says so if there is none.
    pub fn load(file: Option<&str>) -> anyhow::Result<Self> {
        let Some(file) = file else {
            warn!("http.tokens_file is not set: /v1 is served to loopback addresses only");
            return Ok(Self { file: None, known: RwLock::new(Arc::new([])) });
        };
        let named = vec![("http.tokens_file", PathBuf::from(file))];
        let (files, tokens) = Files::open(named, parse).context(EXAMPLE)?;
        info!(tokens = tokens.len(), "Bearer tokens are read");
        Ok(Self { file: Some(Mutex::new(files)), known: RwLock::new(tokens.into()) })
    }

    /// Looks at the file every two seconds, and at once after a SIGHUP, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => {}
                () = sleep(LOOK_EVERY) => {}
            }
            self.look().await;
        }
    }

    /// Takes what is new in the file, if it is good.
    pub async fn look(&self) {
        let Some(file) = &self.file else { return };
        match file.lock().await.look(parse).await {
            Look::Same => {}
            Look::New(tokens) => {
                info!(tokens = tokens.len(), "Bearer tokens are read again");
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
            }
            Look::Broken(error) => warn!("The old bearer tokens stay in use: {error:#}"),
        }
    }

    /// Who calls, if they may do what any of `scopes` says; the first is named to whoever may not.
    pub fn check(
        &self,
        authorization: Option<&HeaderValue>,
        scopes: &[Scope],
        peer: SocketAddr,
    ) -> Result<Caller, Denied> {
        if self.file.is_none() {
            return if peer.ip().to_canonical().is_loopback() {
                Ok(Caller { name: "loopback".into() })
            } else {
                Err(Denied::NotLoopback)
            };
        }
        let presented = bearer(authorization.ok_or(Denied::Missing)?).ok_or(Denied::Invalid)?;
        let known = Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        let token = find(&known, &Sha256::digest(presented).into()).ok_or(Denied::Invalid)?;
        match scopes.first() {
            Some(scope) if scopes.iter().all(|scope| !token.scopes.contains(scope)) => {
                Err(Denied::Forbidden { scope: *scope })
            }
            _ => Ok(Caller { name: Arc::clone(&token.name) }),
        }
    }
}

/// Compares with every token, so that the time taken tells nothing about any of them.
fn find<'t>(tokens: &'t [Token], sha256: &[u8; 32]) -> Option<&'t Token> {
    let mut found = 0_u32;
    for (place, token) in (1_u32..).zip(tokens) {
        found.conditional_assign(&place, token.sha256.ct_eq(sha256));
    }
    tokens.get(usize::try_from(found.checked_sub(1)?).ok()?)
}

/// The token behind `Bearer`, which may be written in any case.
fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tokens: Vec<WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    sha256: String,
    scopes: BTreeSet<Scope>,
}

fn parse(read: &[Vec<u8>]) -> anyhow::Result<Vec<Token>> {
    let text = std::str::from_utf8(read.first().map_or(&[], Vec::as_slice));
    let text = text.context("read the file as UTF-8")?;
    let written = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
    let written = match written.and_then(Config::try_deserialize::<serde_json::Value>) {
        Ok(written) => written,
        Err(error) => bail!("the file is not TOML: {}", without_quotation(&error.to_string())),
    };
    let written: Written = match serde_path_to_error::deserialize(written) {
        Ok(written) => written,
        Err(error) => bail!("{}: {}", error.path(), without_value(&error.inner().to_string())),
    };
    ensure!(written.tokens.len() <= TOKENS_MAX, "there are more than {TOKENS_MAX} tokens");
    let mut tokens: Vec<Token> = Vec::with_capacity(written.tokens.len());
    for (place, written) in written.tokens.into_iter().enumerate() {
        let chars = written.name.chars().count();
        let fits =
            (1..=NAME_CHARS_MAX).contains(&chars) && !written.name.contains(char::is_control);
        ensure!(fits, "tokens[{place}].name: must be 1 to {NAME_CHARS_MAX} printable characters");
        let name = written.name;
        let digits = digits(&written.sha256);
        let sha256 = digits.with_context(|| {
            format!("tokens[{place}].sha256 of {name}: must be 64 hexadecimal digits")
        })?;
        let scoped = !written.scopes.is_empty();
        ensure!(scoped, "tokens[{place}].scopes of {name}: must name at least one scope");
        let twice = tokens.iter().find(|other| other.sha256 == sha256);
        if let Some(other) = twice {
            bail!("tokens[{place}].sha256 of {name}: {} has the same", other.name);
        }
        tokens.push(Token { name: name.into(), sha256, scopes: written.scopes });
    }
    Ok(tokens)
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// What is said about a wrong value, without the value: it may be a token.
fn without_value(detail: &str) -> String {
    match detail.rsplit_once(", expected ") {
        Some((_, expected)) if detail.starts_with("invalid ") => format!("expected {expected}"),
        _ if detail.starts_with("unknown variant ") => {
            "a scope must be one of write, read, operate".to_owned()
        }
        _ => detail.to_owned(),
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
