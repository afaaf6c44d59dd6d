//! Changes single members of a body; all others keep the text that their sender wrote.

use serde_json::Value;
use serde_json::value::RawValue;

use super::body::parse_members;

/// One change of a body.
#[derive(Debug, Clone)]
pub enum Step {
    /// Puts this JSON text where the path points.
    Set(String, Box<RawValue>),
    /// Takes away what stands there.
    Unset(String),
}

impl Step {
    /// Reads `PATH=VALUE`. The value is JSON where it can be read as JSON, else a text.
    pub fn parse_set(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or("must be PATH=VALUE")?;
        tokens(path)?;
        let json = serde_json::from_str::<Box<RawValue>>(value);
        let raw = json.or_else(|_text| serde_json::value::to_raw_value(value));
        Ok(Self::Set(path.to_owned(), raw.map_err(|error| error.to_string())?))
    }

    /// Reads `PATH`.
    pub fn parse_unset(path: &str) -> Result<Self, String> {
        tokens(path).map(|_| Self::Unset(path.to_owned()))
    }
}

/// A path's names: a JSON pointer, or the name of a column.
fn tokens(path: &str) -> Result<Vec<String>, String> {
    if path.is_empty() {
        return Err("PATH is empty: name a column, or a JSON pointer like /a/0".into());
    }
    let Some(pointer) = path.strip_prefix('/') else { return Ok(vec![path.to_owned()]) };
    pointer
        .split('/')
        .map(|token| {
            let rest = token.replace("~0", "").replace("~1", "");
            if rest.contains('~') {
                return Err(format!("`{path}`: a `~` in a JSON pointer is followed by 0 or 1"));
            }
            Ok(token.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}

/// The body after these steps, in their order; an error says which step cannot be done.
pub fn edited(body: &[u8], steps: &[Step]) -> Result<Vec<u8>, String> {
    let empty = body.is_empty();
    let members = parse_members(if empty { b"{}" } else { body })?;
    let mut members: Vec<(String, Box<RawValue>)> =
        members.into_iter().map(|(name, raw)| (name.into_owned(), raw.to_owned())).collect();
    for step in steps {
        apply(&mut members, step)?;
    }
    let mut text = String::from("{");
    for (name, raw) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&Value::String(name).to_string());
        text.push(':');
        text.push_str(raw.get());
    }
    text.push('}');
    Ok(text.into_bytes())
}

fn apply(members: &mut Vec<(String, Box<RawValue>)>, step: &Step) -> Result<(), String> {
    let (Step::Set(path, _) | Step::Unset(path)) = step;
    let tokens = tokens(path)?;
    let Some((first, below)) = tokens.split_first() else { return Ok(()) };
    let position = members.iter().position(|(name, _)| name == first);
    match (position, below, step) {
        (Some(at), [], Step::Unset(_)) => drop(members.remove(at)),
        (Some(at), [], Step::Set(_, raw)) => {
            if let Some(member) = members.get_mut(at) {
                member.1.clone_from(raw);
            }
        }
        (None, [], Step::Set(_, raw)) => members.push((first.clone(), raw.clone())),
        (None, _, _) => return Err(missing(path)),
        (Some(at), below, step) => {
            let Some(member) = members.get_mut(at) else { return Err(missing(path)) };
            let mut value: Value =
                serde_json::from_str(member.1.get()).map_err(|error| error.to_string())?;
            apply_below(&mut value, below, step)?;
            member.1 =
                serde_json::value::to_raw_value(&value).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn apply_below(value: &mut Value, tokens: &[String], step: &Step) -> Result<(), String> {
    let (Step::Set(path, _) | Step::Unset(path)) = step;
    let Some((last, above)) = tokens.split_last() else { return Ok(()) };
    let mut place = value;
    for token in above {
        let below = match place {
            Value::Object(members) => members.get_mut(token),
            Value::Array(items) => index(token).and_then(|at| items.get_mut(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        place = below.ok_or_else(|| missing(path))?;
    }
    let new = match step {
        Step::Set(_, raw) => {
            Some(serde_json::from_str(raw.get()).map_err(|error| error.to_string())?)
        }
        Step::Unset(_) => None,
    };
    match (place, new) {
        (Value::Object(members), Some(new)) => {
            members.insert(last.clone(), new);
        }
        (Value::Object(members), None) => {
            members.remove(last).ok_or_else(|| missing(path))?;
        }
        (Value::Array(items), new) => {
            let at = if last == "-" { Some(items.len()) } else { index(last) };
            match (at.filter(|at| *at <= items.len()), new) {
                (Some(at), Some(new)) if at == items.len() => items.push(new),
                (Some(at), Some(new)) => items.splice(at..=at, [new]).for_each(drop),
                (Some(at), None) if at < items.len() => drop(items.remove(at)),
                _ => return Err(missing(path)),
            }
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => {
            return Err(missing(path));
        }
    }
    Ok(())
}

/// An index as RFC 6901 writes it: digits without a zero before them.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| plain)
}

fn missing(path: &str) -> String {
    format!("`{path}` points to nothing in this body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(body: &str, steps: &[&str]) -> Result<String, String> {
        let steps: Result<Vec<Step>, String> = steps
            .iter()
            .map(|step| match step.strip_prefix("unset ") {
                Some(path) => Step::parse_unset(path),
                None => Step::parse_set(step),
            })
            .collect();
        edited(body.as_bytes(), &steps?).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_step_changes_its_place_and_nothing_else() {
        let table: [(&str, &[&str], &str); 12] = [
            ("{}", &["a=1"], r#"{"a":1}"#),
            ("", &["a=1"], r#"{"a":1}"#),
            (r#"{"b": 1.50e1,"a":2}"#, &["a=3"], r#"{"b":1.50e1,"a":3}"#),
            (r#"{"a":1}"#, &["a=text with = in it"], r#"{"a":"text with = in it"}"#),
            (r#"{"a":1}"#, &[r#"a="1""#], r#"{"a":"1"}"#),
            (r#"{"a":1}"#, &["a="], r#"{"a":""}"#),
            (r#"{"a":{"b":[1,2]}}"#, &["/a/b/1=9"], r#"{"a":{"b":[1,9]}}"#),
            (r#"{"a":{"b":[1,2]}}"#, &["/a/b/-=null"], r#"{"a":{"b":[1,2,null]}}"#),
            (r#"{"a":{"b":1,"c":2}}"#, &["unset /a/b"], r#"{"a":{"c":2}}"#),
            (r#"{"a":1,"b":2}"#, &["unset a"], r#"{"b":2}"#),
            (r#"{"a/b":1,"~":2}"#, &["/a~1b=3", "/~0=4"], r#"{"a/b":3,"~":4}"#),
            (r#"{"a":[1,2,3]}"#, &["unset /a/0", "/a/0=7"], r#"{"a":[7,3]}"#),
        ];
        for (body, steps, expected) in table {
            assert_eq!(edit(body, steps).as_deref(), Ok(expected), "{body} {steps:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_with_its_path() {
        let table: [(&str, &[&str], &str); 9] = [
            ("{}", &["/a/b=1"], "/a/b"),
            (r#"{"a":1}"#, &["/a/b=1"], "/a/b"),
            (r#"{"a":[1]}"#, &["/a/2=1"], "/a/2"),
            (r#"{"a":[1]}"#, &["/a/00=1"], "/a/00"),
            (r#"{"a":[1]}"#, &["unset /a/1"], "/a/1"),
            ("{}", &["unset a"], "`a`"),
            ("{}", &["/a~2=1"], "followed by 0 or 1"),
            ("{}", &["=1"], "empty"),
            ("[1]", &["a=1"], "no JSON object"),
        ];
        for (body, steps, says) in table {
            let error = edit(body, steps).unwrap_err();
            assert!(error.contains(says), "{body} {steps:?}: {error}");
        }
        assert!(Step::parse_set("a").is_err());
    }
}
