//! The items of a bulk request, one after the other, out of a body that may be larger than memory.
//!
//! Owns: where one item ends and the next begins, in lines or in an array; and the bound of one
//! item. What is wrong with an item is the item's own matter; only a body that cannot be followed
//! any further ends it.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::StreamExt;

use crate::core::message::{Message, Properties};
use crate::core::outcome::{Reason, Rejection};
use crate::ingress::problem::Problem;
use crate::settings::Http;
use crate::wire::line::Write;

/// The broker writes it to disk before it confirms.
const PERSISTENT: u8 = 2;
/// An item is its body with a name around it: so many bytes more than the body may be.
const ENVELOPE_BYTES_MAX: usize = 4096;

/// How items stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Newline-delimited JSON.
    Lines,
    /// One JSON array.
    Array,
}

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
                    self.cutter.give_up("the body broke off, or did not come in time");
                }
            }
        }
    }
}

/// What the text so far holds.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    Item(Vec<u8>),
    Wrong(String),
    /// Nothing more can come; maybe with what is wrong.
    Over(Option<String>),
    /// More text is needed.
    More,
}

/// Where in an array the text so far ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before its bracket.
    Before,
    /// Where an item may begin.
    Item,
    /// Behind an item.
    Behind,
    /// Behind the closing bracket.
    Closed,
}

/// Where in an item the text so far ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// Cuts items out of text that comes in pieces.
struct Cutter {
    form: Form,
    bytes_max: usize,
    text: Vec<u8>,
    /// How much of `text` was looked at.
    at: usize,
    depth: usize,
    place: Place,
    within: Within,
    /// Nothing more is added.
    whole: bool,
    /// The rest of a line that is too long.
    skips: bool,
    over: bool,
}

impl Cutter {
    const fn new(form: Form, bytes_max: usize) -> Self {
        Self {
            form,
            bytes_max,
            text: Vec::new(),
            at: 0,
            depth: 0,
            place: Place::Before,
            within: Within::Plain,
            whole: false,
            skips: false,
            over: false,
        }
    }

    fn add(&mut self, bytes: &Bytes) {
        self.text.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.whole = true;
    }

    fn give_up(&mut self, _why: &str) {
        self.text.clear();
        self.at = 0;
        self.over = true;
    }

    fn cut(&mut self) -> Cut {
        if self.over {
            return Cut::Over(None);
        }
        match self.form {
            Form::Lines => self.line(),
            Form::Array => self.element(),
        }
    }

    fn over(&mut self, detail: Option<&str>) -> Cut {
        self.over = true;
        Cut::Over(detail.map(str::to_owned))
    }

    fn take(&mut self, upto: usize) -> Vec<u8> {
        let rest = self.text.split_off(upto);
        self.at = 0;
        std::mem::replace(&mut self.text, rest)
    }

    fn line(&mut self) -> Cut {
        loop {
            let end = self.text.iter().skip(self.at).position(|byte| *byte == b'\n');
            match end {
                Some(offset) => {
                    let mut line = self.take(self.at + offset + 1);
                    line.pop();
                    if std::mem::take(&mut self.skips) {
                        return Cut::Wrong("the line is longer than one item may be".to_owned());
                    }
                    if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                        return self.bounded(line);
                    }
                }
                None if self.text.len() > self.bytes_max => {
                    // The rest of the line passes by without being kept.
                    self.text.clear();
                    self.at = 0;
                    self.skips = true;
                    return Cut::More;
                }
                None if self.whole => {
                    self.over = true;
                    let line = std::mem::take(&mut self.text);
                    if self.skips {
                        return Cut::Wrong("the line is longer than one item may be".to_owned());
                    }
                    if line.iter().all(u8::is_ascii_whitespace) {
                        return Cut::Over(None);
                    }
                    return self.bounded(line);
                }
                None => {
                    self.at = self.text.len();
                    return Cut::More;
                }
            }
        }
    }

    fn bounded(&self, item: Vec<u8>) -> Cut {
        if item.len() > self.bytes_max {
            return Cut::Wrong("the item is longer than one item may be".to_owned());
        }
        Cut::Item(item)
    }

    fn element(&mut self) -> Cut {
        while let Some(byte) = self.text.get(self.at).copied() {
            if self.depth == 0 {
                match (self.place, byte) {
                    (_, byte) if byte.is_ascii_whitespace() => {}
                    (Place::Closed, _) => return self.over(Some("there is text behind the array")),
                    (Place::Before, b'[') | (Place::Behind, b',') => self.place = Place::Item,
                    (Place::Before, _) => return self.over(Some("the body is no JSON array")),
                    (Place::Item | Place::Behind, b']') => self.place = Place::Closed,
                    (Place::Item, b'{') => {
                        drop(self.take(self.at));
                        self.depth = 1;
                    }
                    _ => return self.over(Some("an array of objects is expected")),
                }
            } else {
                self.pass(byte);
                if self.depth == 0 {
                    self.place = Place::Behind;
                    let item = self.take(self.at + 1);
                    return self.bounded(item);
                }
            }
            self.at += 1;
            if self.depth > 0 && self.at > self.bytes_max {
                return self.over(Some("an item is longer than one item may be"));
            }
        }
        match (self.whole, self.place) {
            (false, _) => Cut::More,
            (true, Place::Closed) => self.over(None),
            (true, _) => self.over(Some("the body ends before its array does")),
        }
    }

    /// One byte of an item.
    fn pass(&mut self, byte: u8) {
        match (self.within, byte) {
            (Within::Escape, _) => self.within = Within::Text,
            (Within::Text, b'\\') => self.within = Within::Escape,
            (Within::Text, b'"') => self.within = Within::Plain,
            (Within::Plain, b'"') => self.within = Within::Text,
            (Within::Plain, b'{' | b'[') => self.depth += 1,
            (Within::Plain, b'}' | b']') => self.depth -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `step` bytes; items as text, errors with `!`.
    fn cut(form: Form, text: &str, step: usize, bytes_max: usize) -> Vec<String> {
        let mut cutter = Cutter::new(form, bytes_max);
        let mut pieces = text.as_bytes().chunks(step);
        let mut found = Vec::new();
        loop {
            match cutter.cut() {
                Cut::Item(item) => found.push(String::from_utf8(item).unwrap()),
                Cut::Wrong(_) => found.push("!".to_owned()),
                Cut::Over(detail) => {
                    found.extend(detail.map(|_| "!!".to_owned()));
                    return found;
                }
                Cut::More => match pieces.next() {
                    Some(piece) => cutter.add(&Bytes::copy_from_slice(piece)),
                    None => cutter.end(),
                },
            }
        }
    }

    #[test]
    fn items_are_cut_wherever_the_pieces_end() {
        let table: [(Form, &str, &[&str]); 12] = [
            (Form::Lines, "{}\n{\"a\":1}\n", &["{}", "{\"a\":1}"]),
            (Form::Lines, "{}\r\n\n  \n{}", &["{}\r", "{}"]),
            (Form::Lines, "", &[]),
            (Form::Lines, "aaaaaaaaaaaaaaaaaaaaa\n{}\n", &["!", "{}"]),
            (Form::Array, "[]", &[]),
            (Form::Array, " [ {} , {\"a\":[{}]} ] \n", &["{}", "{\"a\":[{}]}"]),
            (Form::Array, r#"[{"a":"]}\"{"},{}]"#, &[r#"{"a":"]}\"{"}"#, "{}"]),
            (Form::Array, "[{},1]", &["{}", "!!"]),
            (Form::Array, "[{}{}]", &["{}", "!!"]),
            (Form::Array, "[{}", &["{}", "!!"]),
            (Form::Array, "{}", &["!!"]),
            (Form::Array, "[{}]x", &["{}", "!!"]),
        ];
        for (form, text, items) in table {
            for step in [1, 2, 3, 7, 100] {
                assert_eq!(cut(form, text, step, 20), items, "{text} in pieces of {step}");
            }
        }
    }
}
