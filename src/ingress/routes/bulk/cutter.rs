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
    /// The rest of a line that is too long.
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

    pub(super) fn cut(&mut self) -> Cut {
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
