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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::column::ColumnType::{
        Array, Bytea, Float8, Int4, Json, Jsonb, Numeric, Other, Text,
    };
    use super::*;

    fn array(element: ColumnType) -> ColumnType {
        Array(Box::new(element))
    }

    #[test]
    fn an_array_becomes_a_literal_with_every_element_quoted() {
        let table = [
            (Int4, "[]", "{}"),
            (Int4, "[ 1, null, 2.0 ]", r#"{"1",NULL,"2"}"#),
            (Int4, "[[1,2],[3,null]]", r#"{{"1","2"},{"3",NULL}}"#),
            (Int4, "[[[[[[1]]]]]]", r#"{{{{{{"1"}}}}}}"#),
            (Text(None), r#"["NULL","","a,{b}"," \"\\ é"]"#, r#"{"NULL","","a,{b}"," \"\\ é"}"#),
            (Bytea, r#"["\\x00"]"#, r#"{"\\x00"}"#),
            (Jsonb, r#"[[1, 2], {"a": "b"}, null]"#, r#"{"[1, 2]","{\"a\": \"b\"}",NULL}"#),
            (Json, "[[], [1]]", r#"{"[]","[1]"}"#),
            (Float8, r#"["NaN", 1]"#, r#"{"NaN","1"}"#),
            (Other, r#"["10.0.0.1", 1, true]"#, r#"{"10.0.0.1","1","true"}"#),
        ];
        for (element, json, literal) in table {
            assert_eq!(array(element).check(json).as_deref(), Ok(literal), "{json}");
        }
    }

    #[test]
    fn a_mismatch_points_at_the_element() {
        let long = format!("[{}]", vec!["1e131071"; 100].join(","));
        let table = [
            (Int4, r#"[1, 2, "x"]"#, "/2", "expects an integer"),
            (Int4, "[[1, 2.5]]", "/0/1", "expects an integer"),
            (Int4, "[[1, 2], [3]]", "/1", "expects arrays of equal"),
            (Int4, "[[1], 2]", "/1", "expects arrays of equal"),
            (Int4, "[1, [2]]", "/1", "expects arrays of equal"),
            (Int4, "[null, [2]]", "/1", "expects arrays of equal"),
            (Int4, "[[1], null]", "/1", "expects arrays of equal"),
            (Int4, "[[]]", "/0", "expects no empty array"),
            (Int4, "[[1], []]", "/1", "expects no empty array"),
            (Int4, "[[[[[[[1]]]]]]]", "/0/0/0/0/0/0", "expects at most 6 dimensions"),
            (Text(None), r#"["\u0000"]"#, "/0", "expects text without"),
            (Jsonb, r#"[1, ["\u0000"]]"#, "/1", "expects JSON without"),
            (Other, r#"["a", {}]"#, "/1", "expects a JSON string"),
            (Numeric(None), &long, "/8", "expects an array of fewer"),
        ];
        for (element, json, pointer, detail) in table {
            let mismatch = array(element).check(json).unwrap_err();
            assert_eq!(mismatch.pointer, pointer, "{mismatch:?}");
            assert!(mismatch.detail.starts_with(detail), "{mismatch:?}");
        }
    }

    /// Reads a literal of one dimension as PostgreSQL does.
    fn read(literal: &str) -> Vec<Option<String>> {
        let mut rest = literal.strip_prefix('{').unwrap();
        let mut elements = Vec::new();
        while rest != "}" {
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if let Some(tail) = rest.strip_prefix("NULL") {
                elements.push(None);
                rest = tail;
                continue;
            }
            let mut chars = rest.strip_prefix('"').unwrap().chars();
            let mut text = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => text.push(chars.next().unwrap()),
                    plain => text.push(plain),
                }
            }
            elements.push(Some(text));
            rest = chars.as_str();
        }
        elements
    }

    fn elements() -> impl Strategy<Value = Vec<Option<String>>> {
        prop::collection::vec(prop::option::of("[^\0]{0,6}|[\\\\\"{},NUL ]{0,6}"), 0..8)
    }

    proptest! {
        #[test]
        fn a_literal_reads_back_as_the_elements(elements in elements()) {
            let json = serde_json::to_string(&elements).unwrap();
            let literal = array(Text(None)).check(&json).unwrap();
            prop_assert_eq!(read(&literal), elements);
        }
    }
}
