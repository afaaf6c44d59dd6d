//! JSON arrays as PostgreSQL's array literals.
//!
//! Owns: dimensions and quoting.
//! Never: judges an element; its type does.

use serde_json::value::RawValue;

use super::column::{ColumnType, Mismatch};
use super::json::{Kind, expects};

/// PostgreSQL's own bound (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// How much longer than its JSON a literal may be: room for any quoting, but `1e131071` written
/// out a thousand times would be a way to fill our memory with a small body.
const LITERAL_GROWTH_MAX: usize = 8;
const LITERAL_EXTRA_BYTES_MAX: usize = 1 << 20;

/// Checks a JSON array whose elements belong to `element`, and writes PostgreSQL's literal.
pub(super) fn check(element: &ColumnType, json: &str) -> Result<String, Mismatch> {
    if Kind::of(json) != Kind::Array {
        return Err(expects("a JSON array", json));
    }
    let mut literal = Literal {
        element,
        // A JSON array is itself a JSON value: there only the outermost one is a dimension.
        nests: !matches!(element, ColumnType::Json | ColumnType::Jsonb),
        lengths: Vec::new(),
        measured: false,
        text: String::with_capacity(json.len().saturating_mul(2)),
        bytes_max: json.len().saturating_mul(LITERAL_GROWTH_MAX) + LITERAL_EXTRA_BYTES_MAX,
    };
    literal.array(json, 0)?;
    Ok(literal.text)
}

struct Literal<'a> {
    element: &'a ColumnType,
    nests: bool,
    /// The length of each dimension, outermost first.
    lengths: Vec<usize>,
    /// Whether the first innermost element was seen, so that the dimensions are known.
    measured: bool,
    text: String,
    bytes_max: usize,
}

impl Literal<'_> {
    /// Writes an array that `depth` arrays are around.
    fn array(&mut self, json: &str, depth: usize) -> Result<(), Mismatch> {
        let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(json) else {
            return Err(Mismatch::new("expects a JSON array"));
        };
        self.measure(elements.len(), depth)?;
        self.text.push('{');
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.element(element.get(), depth + 1).map_err(|mismatch| mismatch.inside(index))?;
        }
        self.text.push('}');
        Ok(())
    }

    fn measure(&mut self, length: usize, depth: usize) -> Result<(), Mismatch> {
        if length == 0 && depth > 0 {
            return Err(Mismatch::new("expects no empty array inside an array"));
        }
        match self.lengths.get(depth) {
            Some(known) if *known == length => Ok(()),
            Some(_) => Err(ragged()),
            None if self.measured => Err(ragged()),
            None if depth == DIMENSIONS_MAX => {
                Err(Mismatch::new(format!("expects at most {DIMENSIONS_MAX} dimensions")))
            }
            None => {
                self.lengths.push(length);
                Ok(())
            }
        }
    }

    /// Writes an element that `depth` arrays are around.
    fn element(&mut self, json: &str, depth: usize) -> Result<(), Mismatch> {
        let kind = Kind::of(json);
        if self.nests && kind == Kind::Array {
            return self.array(json, depth);
        }
        if depth < self.lengths.len() {
            return Err(ragged());
        }
        self.measured = true;
        if kind == Kind::Null {
            self.text.push_str("NULL");
            return Ok(());
        }
        let text = self.element.check(json)?;
        if self.text.len().saturating_add(text.len()) > self.bytes_max {
            return Err(Mismatch::new("expects an array of fewer such large numbers"));
        }
        self.quote(&text);
        Ok(())
    }

    fn quote(&mut self, text: &str) {
        self.text.push('"');
        for piece in text.split_inclusive(['"', '\\']) {
            match piece.strip_suffix(['"', '\\']) {
                Some(plain) => {
                    self.text.push_str(plain);
                    self.text.push('\\');
                    self.text.push_str(piece.get(plain.len()..).unwrap_or_default());
                }
                None => self.text.push_str(piece),
            }
        }
        self.text.push('"');
    }
}

fn ragged() -> Mismatch {
    Mismatch::new("expects arrays of equal length and depth inside an array")
}
