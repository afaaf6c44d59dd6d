//! The items of a bulk request, one after the other, out of a body that may be larger than memory.
//!
//! Owns: what an item's text means. What is wrong with an item is the item's own matter; only a
//! body that cannot be followed any further ends them.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::core::message::{Message, Properties};
use crate::core::outcome::{Reason, Rejection};
use crate::http::{BodyError, Pieces};
use crate::ingress::code::Own;
use crate::ingress::problem::Problem;
use crate::settings::Http;
use crate::wire::line::{Names, Write};

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

/// One item: its names as far as they can be read, and a message or what is wrong with it.
pub(super) struct Item {
    pub names: Names,
    pub content: Result<Message, Wrong>,
}

/// Why an item is no message.
pub(super) enum Wrong {
    /// It can never be applied as it is.
    Rejected(Rejection),
    /// It, and whatever was to follow, did not arrive.
    CutOff(Box<Problem>),
}

impl Item {
    fn wrong(reason: Reason, detail: impl Into<String>) -> Self {
        let wrong = Wrong::Rejected(Rejection::new(reason, detail));
        Self { names: Names::default(), content: Err(wrong) }
    }

    fn cut_off(error: BodyError) -> Self {
        let problem = cut_off(error);
        let detail = format!("{}; nothing behind this was read", problem.detail);
        let problem = Problem { detail, ..problem };
        Self { names: Names::default(), content: Err(Wrong::CutOff(Box::new(problem))) }
    }

    fn read(text: &[u8]) -> Self {
        let write = match Write::parse(text) {
            Ok(write) => write,
            Err(rejection) => {
                return Self { names: Names::of(text), content: Err(Wrong::Rejected(rejection)) };
            }
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
        let names = Names {
            entity: Some(write.entity().to_owned()),
            key: Some(write.routing_key.clone()),
            id: Some(write.id),
        };
        let body = write.body.into_bytes();
        let message = Message { routing_key: write.routing_key, properties, body };
        Self { names, content: Ok(message) }
    }
}

/// What is said of a body that did not arrive whole.
fn cut_off(error: BodyError) -> Problem {
    let code = if error == BodyError::TooSlow { Own::BodyTooSlow } else { Own::BodyIncomplete };
    Problem::new(code, error.to_string())
}

/// The items of a body.
pub(super) struct Items {
    body: Pieces,
    cutter: Cutter,
    bytes_max: usize,
    ended: bool,
}

impl Items {
    pub(super) fn new(body: Body, form: Form, body_bytes_max: usize, http: &Http) -> Self {
        let bytes_max = body_bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
        let pause_max = Duration::from_millis(http.body_timeout_ms.get().into());
        Self {
            body: Pieces::new(body, pause_max),
            cutter: Cutter::new(form, bytes_max),
            bytes_max,
            ended: false,
        }
    }

    /// Waits until it can be seen that the body is of its form; what is not can still be answered
    /// with a status of its own.
    pub(super) async fn open(&mut self) -> Result<(), Problem> {
        loop {
            match self.cutter.opens() {
                Some(true) => return Ok(()),
                Some(false) => {
                    let detail = "send an array of items, or application/x-ndjson for lines";
                    return Err(Problem::new(Reason::MalformedBody, detail));
                }
                None => self.read_on().await.map_err(cut_off)?,
            }
        }
    }

    /// The next item; `None` at the end, or after a body that cannot be followed. Giving up the
    /// wait loses nothing.
    pub(super) async fn next(&mut self) -> Option<Item> {
        loop {
            match self.cutter.cut() {
                Cut::Item(text) => return Some(Item::read(&text)),
                Cut::NoObject => {
                    let detail = "an item must be a JSON object";
                    return Some(Item::wrong(Reason::MalformedBody, detail));
                }
                Cut::TooLong => {
                    let detail = format!("the item has more than {} bytes", self.bytes_max);
                    return Some(Item::wrong(Reason::BodyTooLarge, detail));
                }
                Cut::Over(detail) => {
                    self.ended = true;
                    let detail = format!("{}; nothing behind this was read", detail?);
                    return Some(Item::wrong(Reason::MalformedBody, detail));
                }
                Cut::More if self.ended => return None,
                Cut::More => {}
            }
            if let Err(error) = self.read_on().await {
                self.ended = true;
                self.cutter.give_up();
                return Some(Item::cut_off(error));
            }
        }
    }

    async fn read_on(&mut self) -> Result<(), BodyError> {
        match self.body.next().await? {
            Some(bytes) => self.cutter.add(&bytes),
            None => self.cutter.end(),
        }
        Ok(())
    }
}
