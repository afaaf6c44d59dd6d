//! How lists are printed: a table for people, JSON for programs.
//!
//! Never: colours. A table reads the same in a file, in a pager and under `NO_COLOR`.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Columns, for people
    #[default]
    Table,
    /// One JSON value
    Json,
    /// One JSON value a line
    Ndjson,
}

/// What is printed of a list's row in a table.
pub trait Cells {
    /// The headings.
    const HEADINGS: &'static [&'static str];

    /// One text a heading.
    fn cells(&self) -> Vec<String>;
}

/// Standard output, which somebody may stop reading: `keylane … | head -1`.
///
/// It remembers that. The error alone does not say whose pipe is broken: a connection may be one.
pub struct Pipe<W> {
    inner: W,
    reader_left: bool,
}

impl<W: Write> Pipe<W> {
    pub const fn new(inner: W) -> Self {
        Self { inner, reader_left: false }
    }

    /// Whether nobody reads any more.
    pub const fn reader_left(&self) -> bool {
        self.reader_left
    }

    fn note<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.reader_left |= written.as_ref().is_err_and(broken);
        written
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}

/// Prints a list.
pub fn list<Row: Cells + Serialize>(
    out: &mut dyn Write,
    output: Output,
    rows: &[Row],
) -> io::Result<()> {
    match output {
        Output::Table => table(out, rows),
        Output::Json => json(out, &rows),
        Output::Ndjson => rows.iter().try_for_each(|row| json_line(out, row)),
    }
}

/// Prints a table; one without rows has its headings all the same.
pub fn table<Row: Cells>(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(Row::HEADINGS.iter().copied());
    for row in rows {
        table.add_row(row.cells().iter().map(|cell| printable(cell)));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints one value over several lines.
pub fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Prints one value on one line.
pub fn json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Text from outside for a terminal: it must not move the cursor, or ring the bell.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The beginning of a long text.
pub fn shortened(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair(&'static str, u8);

    impl Cells for Pair {
        const HEADINGS: &'static [&'static str] = &["NAME", "N"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    fn printed(output: Output, rows: &[Pair]) -> String {
        let mut out = Vec::new();
        list(&mut out, output, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_is_printed_in_three_forms() {
        let rows = [Pair("a\u{1b}[31m", 1), Pair("long name", 20)];
        assert_eq!(printed(Output::Ndjson, &rows), "[\"a\\u001b[31m\",1]\n[\"long name\",20]\n");
        assert!(printed(Output::Json, &rows).starts_with("[\n  [\n"));
        let table = printed(Output::Table, &rows);
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        assert_eq!(lines, ["NAME         N", "a\\u{1b}[31m  1", "long name    20"]);
    }

    #[test]
    fn a_pipe_remembers_that_its_reader_left_and_no_other_trouble() {
        struct Failing(io::ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        for (kind, left) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::Other, false)] {
            let mut pipe = Pipe::new(Failing(kind));
            json(&mut pipe, &1).unwrap_err();
            assert_eq!(pipe.reader_left(), left);
            let mut pipe = Pipe::new(Failing(kind));
            pipe.flush().unwrap_err();
            assert_eq!(pipe.reader_left(), left);
        }
    }

    #[test]
    fn an_empty_list_is_still_a_list() {
        assert_eq!(printed(Output::Json, &[]), "[]\n");
        assert_eq!(printed(Output::Ndjson, &[]), "");
        assert_eq!(printed(Output::Table, &[]).trim(), "NAME  N");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöü", 2), "äö…");
    }
}
