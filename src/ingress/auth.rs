//! Who may do what.

use std::net::SocketAddr;

use axum::http::HeaderValue;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Write,
    Read,
    Operate,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: Option<String>,
}

/// Why a call is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    Missing,
    Invalid,
    Forbidden { scope: Scope },
    NotLoopback,
}

/// The tokens that are valid now.
pub struct Tokens;

impl Tokens {
    pub fn load(_file: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self)
    }

    pub fn check(
        &self,
        _authorization: Option<&HeaderValue>,
        _scope: Scope,
        _peer: SocketAddr,
    ) -> Result<Caller, Denied> {
        Ok(Caller { name: None })
    }
}
