//! The fields of a frame that a sender can fill in, and what stands in place of unreadable ones.
//!
//! Owns: which frames have such fields, and where.
//! Never: allocates for a frame that is readable as it is.

use std::borrow::Cow;

use crate::core::message::NOT_TEXT;

/// Arrays and tables within the headers. Those below come out as bytes: whoever reads a value
/// recurses, and the broker lets 25,000 levels through. Its own `x-death` has four.
const DEPTH_MAX: usize = 32;
/// What is kept of properties that are given up. With it, a frame fits any `frame_max` of AMQP.
const KEPT_BYTES_MAX: usize = 1024;
/// The longest text of AMQP.
const TEXT_BYTES_MAX: usize = 255;
/// Class, weight and body size: what comes before the properties.
const HEADER_BYTES: usize = 12;
const CLASS_BASIC: [u8; 2] = [0, 60];

#[derive(Clone, Copy)]
enum Field {
    Bytes(usize),
    Text,
    Table,
}
use Field::{Bytes, Table, Text};

/// The properties in the order of their flags, from the highest bit.
const PROPERTIES: [Field; 14] = [
    Text,     // content_type
    Text,     // content_encoding
    Table,    // headers
    Bytes(1), // delivery_mode
    Bytes(1), // priority
    Text,     // correlation_id
    Text,     // reply_to
    Text,     // expiration
    Text,     // message_id
    Bytes(8), // timestamp
    Text,     // type
    Text,     // user_id
    Text,     // app_id
    Text,     // cluster_id
];

/// The arguments of the methods in which the broker quotes a sender. It also cuts its own reply
/// texts where they get too long, in the middle of a character.
const fn arguments(class: u8, method: u8) -> &'static [Field] {
    match (class, method) {
        (10, 50) | (20, 40) => &[Bytes(2), Text, Bytes(4)], // connection.close, channel.close
        (60, 50) => &[Bytes(2), Text, Text, Text],          // basic.return
        (60, 60) => &[Text, Bytes(9), Text, Text],          // basic.deliver
        (60, 71) => &[Bytes(9), Text, Text, Bytes(4)],      // basic.get-ok
        _ => &[],
    }
}

/// A method's payload as it must be for the client library; `None` if it is already.
pub(super) fn method(payload: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = payload.split_first_chunk::<4>()?;
    let [0, class, 0, method] = *id else { return None };
    let fields = arguments(class, method);
    let mut check = Check { readable: true };
    walk(fields.iter().copied(), rest, &mut check)?;
    if check.readable {
        return None;
    }
    let mut rewrite = Rewrite { out: id.to_vec() };
    walk(fields.iter().copied(), rest, &mut rewrite)?;
    Some(rewrite.out)
}

/// A content header's payload of at most `bytes_max` as it must be for the client library; `None`
/// if it is already.
pub(super) fn header(payload: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let (head, properties) = payload.split_at_checked(HEADER_BYTES)?;
    if !head.starts_with(&CLASS_BASIC) {
        return None;
    }
    let mut check = Check { readable: true };
    let walked = walk_properties(properties, &mut check);
    if walked.is_some() && check.readable && payload.len() <= bytes_max {
        return None;
    }
    let mut rewrite = Rewrite { out: head.to_vec() };
    match walk_properties(properties, &mut rewrite) {
        Some(()) if rewrite.out.len() <= bytes_max => Some(rewrite.out),
        _ => Some(given_up(head, properties)),
    }
}

/// A header without properties, so also without a message id: nobody can take it for a write
/// whose guards were lost. The bytes stand in its headers, for whoever looks for the sender.
fn given_up(head: &[u8], properties: &[u8]) -> Vec<u8> {
    const ONLY_HEADERS: [u8; 2] = [0b0010_0000, 0];
    let mut rewrite = Rewrite { out: head.to_vec() };
    rewrite.plain(&ONLY_HEADERS);
    let table = rewrite.open();
    rewrite.text(NOT_TEXT.encode_utf8(&mut [0; 4]).as_bytes());
    rewrite.folded(properties.get(..KEPT_BYTES_MAX).unwrap_or(properties));
    rewrite.close(table);
    rewrite.out
}

fn walk_properties(properties: &[u8], visit: &mut impl Visit) -> Option<()> {
    let (flags, rest) = properties.split_first_chunk::<2>()?;
    visit.plain(flags);
    let flags = u16::from_be_bytes(*flags);
    let there =
        |(place, field): (usize, &Field)| (flags & (0x8000 >> place) != 0).then_some(*field);
    walk(PROPERTIES.iter().enumerate().filter_map(there), rest, visit)
}

fn walk(fields: impl Iterator<Item = Field>, bytes: &[u8], visit: &mut impl Visit) -> Option<()> {
    let mut rest = Cursor(bytes);
    for field in fields {
        match field {
            Bytes(len) => visit.plain(rest.take(len)?),
            Text => visit.text(rest.text()?),
            Table => {
                let bytes = rest.sized()?;
                let table_size = visit.open();
                table(bytes, 1, visit)?;
                visit.close(table_size);
            }
        }
    }
    rest.0.is_empty().then_some(())
}

fn table(bytes: &[u8], depth: usize, visit: &mut impl Visit) -> Option<()> {
    let mut rest = Cursor(bytes);
    while !rest.0.is_empty() {
        visit.text(rest.text()?);
        value(&mut rest, depth, visit)?;
    }
    Some(())
}

fn value(rest: &mut Cursor<'_>, depth: usize, visit: &mut impl Visit) -> Option<()> {
    let kind = rest.take(1)?;
    let len = match kind {
        b"V" => 0,
        b"t" | b"b" | b"B" => 1,
        b"s" | b"U" | b"u" => 2,
        b"I" | b"i" | b"f" => 4,
        b"D" => 5,
        b"L" | b"l" | b"d" | b"T" => 8,
        b"S" | b"x" => Cursor(rest.0).sized()?.len().checked_add(4)?,
        b"A" | b"F" if depth < DEPTH_MAX => {
            visit.plain(kind);
            return nested(kind == b"F", rest.sized()?, depth + 1, visit);
        }
        b"A" | b"F" => {
            visit.folded(rest.sized()?);
            return Some(());
        }
        _ => return None,
    };
    visit.plain(kind);
    visit.plain(rest.take(len)?);
    Some(())
}

fn nested(named: bool, bytes: &[u8], depth: usize, visit: &mut impl Visit) -> Option<()> {
    let size = visit.open();
    if named {
        table(bytes, depth, visit)?;
    } else {
        let mut rest = Cursor(bytes);
        while !rest.0.is_empty() {
            value(&mut rest, depth, visit)?;
        }
    }
    visit.close(size);
    Some(())
}

/// Bytes that have not been looked at.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = *self.take(1)?.first()?;
        self.take(usize::from(len))
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let (size, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        self.take(usize::try_from(u32::from_be_bytes(*size)).ok()?)
    }
}

/// What is done with each field on a walk.
trait Visit {
    /// Where the size of a table or an array stands.
    type Size;

    /// Bytes that mean themselves.
    fn plain(&mut self, bytes: &[u8]);
    /// A short string, without its length.
    fn text(&mut self, bytes: &[u8]);
    /// The size of what follows until [`Self::close`].
    fn open(&mut self) -> Self::Size;
    fn close(&mut self, size: Self::Size);
    /// A value that nobody shall look into, without its type and size.
    fn folded(&mut self, bytes: &[u8]);
}

/// Whether the client library can read the fields as they are.
struct Check {
    readable: bool,
}

impl Visit for Check {
    type Size = ();

    fn plain(&mut self, _: &[u8]) {}

    fn text(&mut self, bytes: &[u8]) {
        self.readable &= std::str::from_utf8(bytes).is_ok();
    }

    fn open(&mut self) {}

    fn close(&mut self, (): ()) {}

    fn folded(&mut self, _: &[u8]) {
        self.readable = false;
    }
}

/// The same fields in a form that can be read.
struct Rewrite {
    out: Vec<u8>,
}

impl Visit for Rewrite {
    type Size = usize;

    fn plain(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(stand_in_for(bytes)),
        };
        self.out.push(u8::try_from(text.len()).expect("a text has at most 255 bytes"));
        self.out.extend_from_slice(text.as_bytes());
    }

    fn open(&mut self) -> usize {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        at
    }

    fn close(&mut self, at: usize) {
        let size = self.out.len() - at - 4;
        let size = u32::try_from(size).expect("a frame that is held has less than 4 GiB");
        let place = self.out.get_mut(at..at + 4).expect("`open` has made room for it");
        place.copy_from_slice(&size.to_be_bytes());
    }

    fn folded(&mut self, bytes: &[u8]) {
        self.out.push(b'x');
        let size = self.open();
        self.out.extend_from_slice(bytes);
        self.close(size);
    }
}

/// [`NOT_TEXT`] and the bytes; those that are not printable ASCII, and backslashes, as `\xNN`.
fn stand_in_for(bytes: &[u8]) -> String {
    let mut text = String::from(NOT_TEXT);
    for byte in bytes {
        let shown = match byte {
            b'\\' | ..=0x1f | 0x7f.. => format!("\\x{byte:02x}"),
            _ => char::from(*byte).to_string(),
        };
        if text.len() + shown.len() > TEXT_BYTES_MAX {
            break;
        }
        text.push_str(&shown);
    }
    text
}
