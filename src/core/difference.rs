//! Where two JSON values differ, by JSON pointer.

use serde::Serialize;
use serde_json::Value;

/// One place where they differ; `None` is where nothing stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Every place where they differ, in the order of the pointers' names. Numbers are compared as
/// they are written: an edit of `1` to `1.0` is one.
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(old), Some(new), &mut found);
    found
}

fn compare(pointer: String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            let mut names: Vec<&String> = old.keys().chain(added).collect();
            names.sort_unstable();
            for name in names {
                let below = format!("{pointer}/{}", token(name));
                compare(below, old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(format!("{pointer}/{index}"), old.get(index), new.get(index), found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            found.push(Difference { pointer, old: old.cloned(), new: new.cloned() });
        }
    }
}

/// A member's name inside of a pointer.
fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_pointer() {
        let table: [(&str, &str, &[&str]); 9] = [
            ("{}", "{}", &[]),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, &[]),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, &["/a 1 1.0"]),
            (r#"{"a":1}"#, r#"{"b":1}"#, &["/a 1 -", "/b - 1"]),
            (r#"{"a":null}"#, "{}", &["/a null -"]),
            (
                r#"{"x":{"a/b~":[1,2]}}"#,
                r#"{"x":{"a/b~":[1,3,4]}}"#,
                &["/x/a~1b~0/1 2 3", "/x/a~1b~0/2 - 4"],
            ),
            (r#"{"a":[]}"#, r#"{"a":{}}"#, &["/a [] {}"]),
            ("1", "[]", &[" 1 []"]),
            (
                r#"{"n":9007199254740993}"#,
                r#"{"n":9007199254740992}"#,
                &["/n 9007199254740993 9007199254740992"],
            ),
        ];
        for (old, new, expected) in table {
            let parse = |text| serde_json::from_str(text).unwrap();
            let shown = |value: Option<Value>| value.map_or("-".into(), |value| value.to_string());
            let found: Vec<String> = differences(&parse(old), &parse(new))
                .into_iter()
                .map(|d| format!("{} {} {}", d.pointer, shown(d.old), shown(d.new)))
                .collect();
            assert_eq!(found, expected, "{old} {new}");
        }
    }
}
