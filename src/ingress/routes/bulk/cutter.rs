//! Cuts the items of a bulk request out of text that comes in pieces.
//!
//! Owns: where one item ends and the next begins, in lines or in an array; and the bound of one
//! item.

use axum::body::Bytes;

/// How items stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Newline-delimited JSON.
    Lines,
    /// One JSON array.
    Array,
}

/// What the text so far holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A line, or an object of the array.
    Item(Vec<u8>),
    /// An element that is no object; it was passed over.
    NoObject,
    /// An item above the bound; it was passed over.
    TooLong,
    /// Nothing more can come; maybe with what is wrong.
    Over(Option<&'static str>),
    /// More text is needed.
    More,
}

/// Where in an array the text so far ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before its bracket.
    Before,
    /// Behind the opening bracket.
    First,
    /// Behind a comma.
    Next,
    /// In an element.
    Element(Kind),
    /// Behind an element.
    Behind,
    /// Behind the closing bracket.
    Closed,
}

/// How an element began, which says how it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    /// A text, or an array.
    Other,
    /// A number or a word: ends before what is none of it.
    Bare,
}

/// Where in an element the text so far ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// Cuts items out of text that comes in pieces.
pub(super) struct Cutter {
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
    /// The rest of an item that is too long passes by without being kept.
    skips: bool,
    over: bool,
}

impl Cutter {
    pub(super) const fn new(form: Form, bytes_max: usize) -> Self {
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

    pub(super) fn add(&mut self, bytes: &Bytes) {
        self.text.extend_from_slice(bytes);
    }

    pub(super) fn end(&mut self) {
        self.whole = true;
    }

    pub(super) fn give_up(&mut self) {
        self.text.clear();
        self.at = 0;
        self.over = true;
    }

    /// Whether the text begins as its form does; `None` while that cannot be seen yet.
    pub(super) fn opens(&self) -> Option<bool> {
        match (self.form, self.text.trim_ascii_start().first()) {
            (Form::Lines, _) => Some(true),
            (Form::Array, Some(byte)) => Some(*byte == b'['),
            (Form::Array, None) => self.whole.then_some(false),
        }
    }

    pub(super) fn cut(&mut self) -> Cut {
        if self.over {
            return Cut::Over(None);
        }
        match self.form {
            Form::Lines => self.line(),
            Form::Array => self.element(),
        }
    }

    const fn over(&mut self, detail: Option<&'static str>) -> Cut {
        self.over = true;
        Cut::Over(detail)
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
                    if self.skips || line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                        return self.bounded(line);
                    }
                }
                None if self.text.len() > self.bytes_max => {
                    self.pass_by();
                    return Cut::More;
                }
                None if self.whole => {
                    self.over = true;
                    let line = std::mem::take(&mut self.text);
                    if !self.skips && line.iter().all(u8::is_ascii_whitespace) {
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

    fn pass_by(&mut self) {
        drop(self.take(self.text.len()));
        self.skips = true;
    }

    fn bounded(&mut self, item: Vec<u8>) -> Cut {
        if std::mem::take(&mut self.skips) || item.len() > self.bytes_max {
            return Cut::TooLong;
        }
        Cut::Item(item)
    }

    fn element(&mut self) -> Cut {
        while let Some(byte) = self.text.get(self.at).copied() {
            let space = byte.is_ascii_whitespace();
            match (self.place, byte) {
                (Place::Element(kind), byte) => {
                    if let Some(cut) = self.inside(kind, byte) {
                        return cut;
                    }
                    continue;
                }
                (_, _) if space => {}
                (Place::Before, b'[') => self.place = Place::First,
                (Place::Behind, b',') => self.place = Place::Next,
                (Place::First | Place::Behind, b']') => self.place = Place::Closed,
                (Place::Next, b']') => {
                    return self.over(Some("a comma stands behind the last item"));
                }
                (Place::First | Place::Next, b',' | b':' | b'}') => {
                    return self.over(Some("an item is expected"));
                }
                (Place::First | Place::Next, byte) => {
                    self.begin(byte);
                    continue;
                }
                (Place::Before, _) => return self.over(Some("the body is no JSON array")),
                (Place::Behind, _) => {
                    return self.over(Some("a comma is expected behind an item"));
                }
                (Place::Closed, _) => return self.over(Some("there is text behind the array")),
            }
            self.at += 1;
        }
        match (self.whole, self.place) {
            (false, _) => Cut::More,
            (true, Place::Closed) => self.over(None),
            (true, _) => self.over(Some("the body ends before its array does")),
        }
    }

    /// The first byte of an element.
    fn begin(&mut self, byte: u8) {
        drop(self.take(self.at));
        self.place = Place::Element(match byte {
            b'{' => Kind::Object,
            b'[' | b'"' => Kind::Other,
            _ => Kind::Bare,
        });
    }

    /// One byte of an element, which may end with it, or before it.
    fn inside(&mut self, kind: Kind, byte: u8) -> Option<Cut> {
        let ends = match (kind, byte) {
            (Kind::Bare, b'{' | b'[' | b'}' | b':' | b'"') => {
                return Some(self.over(Some("a comma is expected behind an item")));
            }
            (Kind::Bare, b',' | b']') => true,
            (Kind::Bare, byte) if byte.is_ascii_whitespace() => true,
            (Kind::Bare, _) => {
                self.at += 1;
                false
            }
            (Kind::Object | Kind::Other, _) => {
                self.pass(byte);
                self.at += 1;
                self.depth == 0 && self.within == Within::Plain
            }
        };
        if ends {
            self.place = Place::Behind;
            let item = self.take(self.at);
            let cut = self.bounded(item);
            return Some(if kind == Kind::Object { cut } else { Cut::NoObject });
        }
        if self.at > self.bytes_max {
            drop(self.take(self.at));
            self.skips = true;
        }
        None
    }

    /// One byte of an element that has a closing one.
    fn pass(&mut self, byte: u8) {
        match (self.within, byte) {
            (Within::Text, b'\\') => self.within = Within::Escape,
            (Within::Text, b'"') => self.within = Within::Plain,
            (Within::Escape, _) | (Within::Plain, b'"') => self.within = Within::Text,
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
                Cut::NoObject => found.push("?".to_owned()),
                Cut::TooLong => found.push("!".to_owned()),
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
        let table: [(Form, &str, &[&str]); 27] = [
            (Form::Lines, "{}\n{\"a\":1}\n", &["{}", "{\"a\":1}"]),
            (Form::Lines, "{}\r\n\n  \n{}", &["{}\r", "{}"]),
            (Form::Lines, "", &[]),
            (Form::Lines, "aaaaaaaaaaaaaaaaaaaaa\n{}\n", &["!", "{}"]),
            (Form::Lines, "{}\naaaaaaaaaaaaaaaaaaaaa", &["{}", "!"]),
            (Form::Array, "[]", &[]),
            (Form::Array, " [ {} , {\"a\":[{}]} ] \n", &["{}", "{\"a\":[{}]}"]),
            (Form::Array, r#"[{"a":"]}\"{"},{}]"#, &[r#"{"a":"]}\"{"}"#, "{}"]),
            (Form::Array, "[{},1,{}]", &["{}", "?", "{}"]),
            (Form::Array, r#"["a,]\"",null ,[[1],{}],{}]"#, &["?", "?", "?", "{}"]),
            (Form::Array, "[1.5e3]", &["?"]),
            (Form::Array, r#"[{},{"a":"bbbbbbbbbbbbbbbbbbbb"},{}]"#, &["{}", "!", "{}"]),
            (Form::Array, r#"["bbbbbbbbbbbbbbbbbbbbbbbbb",{}]"#, &["?", "{}"]),
            (Form::Array, "[11111111111111111111111111,{}]", &["?", "{}"]),
            (Form::Array, "[{},]", &["{}", "!!"]),
            (Form::Array, "[,{}]", &["!!"]),
            (Form::Array, "[{},,{}]", &["{}", "!!"]),
            (Form::Array, "[{} {}]", &["{}", "!!"]),
            (Form::Array, "[1{}]", &["!!"]),
            (Form::Array, "[{}}]", &["{}", "!!"]),
            (Form::Array, "[:]", &["!!"]),
            (Form::Array, "[\"abc", &["!!"]),
            (Form::Array, "[12", &["!!"]),
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
