//! Reads the lines of a file, or of standard input, on a thread of its own.
//!
//! Owns: line numbers, the longest line, and what is compressed.
//! Never: keeps more than a few bundles of lines in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc::Sender;

use crate::wire::line::Write;

/// The longest line, in bytes: the largest message that a broker takes by default (16 MiB from
/// RabbitMQ 4.0).
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// How much is handed over at once: enough to make the hand-over cheap, little enough to stay in
/// a processor's cache.
const BUNDLE_BYTES_MAX: usize = 256 << 10;
const BUNDLE_LINES_MAX: usize = 512;

/// A line and what became of checking it.
pub struct Checked {
    /// From 1.
    pub line: u64,
    pub write: Result<Write, String>,
}

/// Where the lines come from.
pub struct Source {
    reader: BufReader<Box<dyn Read + Send>>,
    /// Bytes of the file that were read, still compressed.
    pub bytes_read: Arc<AtomicU64>,
    /// How long the file is, where that is known.
    pub bytes: Option<u64>,
}

struct Counting<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Source {
    /// Opens a file; `-` is standard input, and a name that ends in `.gz` is compressed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let counted = Arc::new(AtomicU64::new(0));
        let bytes_read = Arc::clone(&counted);
        if path.as_os_str() == "-" {
            let reader = buffered(Box::new(Counting { inner: io::stdin(), bytes: counted }));
            return Ok(Self { reader, bytes_read, bytes: None });
        }
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let bytes = about.is_file().then_some(about.len());
        let plain = buffered(Box::new(Counting { inner: file, bytes: counted }));
        let compressed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
        let reader =
            if compressed { buffered(Box::new(MultiGzDecoder::new(plain))) } else { plain };
        Ok(Self { reader, bytes_read, bytes })
    }

    /// Reads to the end, or until nobody listens any more. Gives back how many lines there were.
    pub fn read(mut self, bundles: &Sender<Vec<Checked>>) -> io::Result<u64> {
        let mut line = 0_u64;
        let (mut text, mut bundle, mut bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let found = next_line(&mut self.reader, &mut text, LINE_BYTES_MAX);
            if matches!(found, Ok(Found::Line | Found::TooLong)) {
                line += 1;
            }
            let write = match &found {
                Ok(Found::Line) if text.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(Found::Line) => Some(Write::parse(&text).map_err(|wrong| wrong.detail)),
                Ok(Found::TooLong) => {
                    Some(Err(format!("the line has more than {LINE_BYTES_MAX} bytes")))
                }
                Ok(Found::End) | Err(_) => None,
            };
            let ends = write.is_none();
            bytes += text.len();
            bundle.extend(write.map(|write| Checked { line, write }));
            let full = bundle.len() >= BUNDLE_LINES_MAX || bytes >= BUNDLE_BYTES_MAX;
            // The next line may be long in coming (`tail -f`): this one does not wait for it.
            let waits = self.reader.buffer().is_empty();
            if full || ends || waits {
                bytes = 0;
                if bundles.blocking_send(std::mem::take(&mut bundle)).is_err() {
                    return Ok(line);
                }
            }
            if ends {
                return found.map(|_| line);
            }
        }
    }
}

fn buffered(reader: Box<dyn Read + Send>) -> BufReader<Box<dyn Read + Send>> {
    BufReader::with_capacity(BUNDLE_BYTES_MAX, reader)
}

enum Found {
    Line,
    TooLong,
    End,
}

/// Reads up to the end of a line into `text`; what is longer than `bytes_max` is skipped.
fn next_line(reader: &mut dyn BufRead, text: &mut Vec<u8>, bytes_max: usize) -> io::Result<Found> {
    text.clear();
    let (mut any, mut too_long) = (false, false);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let ended = buffer.is_empty();
        any |= !ended;
        let mut pieces = buffer.splitn(2, |byte| *byte == b'\n');
        let piece = pieces.next().unwrap_or_default();
        let newline = pieces.next().is_some();
        if text.len() + piece.len() > bytes_max {
            too_long = true;
            text.clear();
        }
        if !too_long {
            text.extend_from_slice(piece);
        }
        let consumed = piece.len() + usize::from(newline);
        reader.consume(consumed);
        if newline || ended {
            return Ok(match (any, too_long) {
                (false, _) => Found::End,
                (true, true) => Found::TooLong,
                (true, false) => Found::Line,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_skipped_and_counted() {
        let mut reader = BufReader::with_capacity(3, &b"ab\n\nabcdefgh\nabcde\nlast"[..]);
        let mut text = Vec::new();
        let mut seen = Vec::new();
        loop {
            match next_line(&mut reader, &mut text, 5).unwrap() {
                Found::Line => seen.push(String::from_utf8(text.clone()).unwrap()),
                Found::TooLong => seen.push("too long".into()),
                Found::End => break,
            }
        }
        assert_eq!(seen, ["ab", "", "too long", "abcde", "last"]);
    }

    #[test]
    fn every_member_of_a_compressed_file_is_read() {
        use flate2::Compression;
        use flate2::write::GzEncoder;
        use std::io::Write as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("writes.ndjson.gz");
        let mut bytes = Vec::new();
        for id in ["a", "b"] {
            let mut member = GzEncoder::new(&mut bytes, Compression::fast());
            let text = r#"{"entity":"e","change":"delete","key":"k","id":"#;
            writeln!(member, "{text}\"{id}\"}}").unwrap();
            member.finish().unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        assert_eq!(Source::open(&path).unwrap().read(&sender).unwrap(), 2);
        drop(sender);
        let mut ids = Vec::new();
        while let Some(bundle) = receiver.blocking_recv() {
            ids.extend(bundle.into_iter().map(|checked| checked.write.unwrap().id));
        }
        assert_eq!(ids, ["a", "b"]);
    }
}
