//! The items of a bulk request, one after the other, out of a body that may be larger than memory.
//!
//! Owns: what an item's text means. What is wrong with an item is the item's own matter; only a
//! body that cannot be followed any further ends them.

use std::pin::Pin;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::StreamExt;

use crate::core::message::{Message, Properties};
use crate::core::outcome::{Reason, Rejection};
use crate::ingress::problem::Problem;
use crate::settings::Http;
use crate::wire::line::Write;

use super::cutter::{Cut, Cutter, Form};

/// The broker writes it to disk before it confirms.
const PERSISTENT: u8 = 2;
/// An item is its body with a name around it: so many bytes more than the body may be.
const ENVELOPE_BYTES_MAX: usize = 4096;

impl Form {
    /// As the content type says.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Lines),
            "application/json" => Ok(Self::Array),
            _ => Err(Problem::new(
                Reason::UnsupportedMediaType,
                "send application/x-ndjson, one item a line, or application/json, an array",
            )),
        }
    }

    pub(super) const fn before(self, count: usize) -> &'static [u8] {
        match (self, count) {
            (Self::Lines, _) => b"",
            (Self::Array, 0) => b"[",
            (Self::Array, _) => b",",
        }
    }

    pub(super) const fn after(self) -> &'static [u8] {
        match self {
            Self::Lines => b"\n",
            Self::Array => b"",
        }
    }

    pub(super) const fn end(self, count: usize) -> &'static [u8] {
        match (self, count) {
            (Self::Lines, _) => b"",
            (Self::Array, 0) => b"[]",
            (Self::Array, _) => b"]",
        }
    }
}

/// One item: a message, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Item {
    pub entity: Option<String>,
    pub message: Option<Message>,
    pub wrong: Option<Rejection>,
}

impl Item {
    fn wrong(detail: impl Into<String>) -> Self {
        let wrong = Some(Rejection::new(Reason::MalformedBody, detail));
        Self { entity: None, message: None, wrong }
    }

    fn read(text: &[u8]) -> Self {
        let write = match Write::parse(text) {
            Ok(write) => write,
            Err(detail) => return Self::wrong(detail),
        };
        let mut properties = Properties {
            message_id: Some(write.id.clone()),
            kind: Some(write.kind.clone()),
            content_type: Some("application/json".to_owned()),
            delivery_mode: Some(PERSISTENT),
            ..Properties::default()
        };
        let mut header = |name: &str, value: &Option<String>| {
            let value = value.clone().map(|value| (name.to_owned(), value.into()));
            properties.headers.extend(value);
        };
        header("if-version", &write.if_version);
        header("occurred-at", &write.occurred_at);
        let entity = Some(write.entity().to_owned());
        let body = write.body.into_bytes();
        let message = Message { routing_key: write.routing_key, properties, body };
        Self { entity, message: Some(message), wrong: None }
    }
}

/// The items of a body.
pub(super) struct Items {
    body: Pin<Box<BodyDataStream>>,
    cutter: Cutter,
    pause_max: Duration,
    ended: bool,
}

impl Items {
    pub(super) fn new(
        body: BodyDataStream,
        form: Form,
        body_bytes_max: usize,
        http: &Http,
    ) -> Self {
        Self {
            body: Box::pin(body),
            cutter: Cutter::new(form, body_bytes_max.saturating_add(ENVELOPE_BYTES_MAX)),
            pause_max: Duration::from_millis(http.body_timeout_ms.get().into()),
            ended: false,
        }
    }

    /// The next item; `None` at the end, or after a body that cannot be followed. Giving up the
    /// wait loses nothing.
    pub(super) async fn next(&mut self) -> Option<Item> {
        loop {
            match self.cutter.cut() {
                Cut::Item(text) => return Some(Item::read(&text)),
                Cut::Wrong(detail) => return Some(Item::wrong(detail)),
                Cut::Over(detail) => {
                    self.ended = true;
                    return detail.map(Item::wrong);
                }
                Cut::More if self.ended => return None,
                Cut::More => {}
            }
            match tokio::time::timeout(self.pause_max, self.body.next()).await {
                Ok(Some(Ok(bytes))) => self.cutter.add(&bytes),
                Ok(None) => self.cutter.end(),
                Ok(Some(Err(_))) | Err(_) => {
                    self.ended = true;
                    self.cutter.give_up();
                    let why =
                        "the body broke off, or did not come in time; nothing behind this was read";
                    return Some(Item::wrong(why));
                }
            }
        }
    }
}
