//! JSON text over several lines, with every number and name as it was written.

use std::iter::repeat_n;

const INDENT: usize = 2;

/// The same JSON, indented; `json` must be valid.
pub fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len().saturating_mul(2));
    let mut depth: usize = 0;
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = json.chars().peekable();
    while let Some(character) = rest.next() {
        if in_string {
            text.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                text.push(character);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            other => {
                in_string = other == '"';
                text.push(other);
            }
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(repeat_n(' ', depth.saturating_mul(INDENT)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_nothing_in_it_changes() {
        let table = [
            ("1", "1"),
            (" { } ", "{}"),
            ("[ ]", "[]"),
            (r#"{"b":1.50e1,"a":"x"}"#, "{\n  \"b\": 1.50e1,\n  \"a\": \"x\"\n}"),
            (r#"{"a":[1,{}]}"#, "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"),
            (r#"{"a":"{,:\"\\"}"#, "{\n  \"a\": \"{,:\\\"\\\\\"\n}"),
            (r#"{"a":"\\","b":"é"}"#, "{\n  \"a\": \"\\\\\",\n  \"b\": \"é\"\n}"),
        ];
        for (json, expected) in table {
            assert_eq!(pretty(json), expected, "{json}");
            assert_eq!(pretty(expected), expected, "{json}");
        }
    }
}
