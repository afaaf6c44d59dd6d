//! Reads the settings: defaults, the file over them, the environment over both.
//!
//! Owns: which source wins, and that a trouble names its setting and its source.
//! Never: judges a value beyond its type (that is [`super::check()`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, File, FileFormat};
use serde_json::{Map, Value};

use super::Settings;
use super::check::{Complaint, check};

/// Read if nobody names another file; it may be missing.
const DEFAULT_FILE: &str = "config/keylane.toml";
/// Names the file, where `--config` does not.
const FILE_VARIABLE: &str = "KEYLANE_CONFIG";
/// Before the variables that set something: `KEYLANE__DATABASE__URL`.
const VARIABLE_PREFIX: &str = "KEYLANE__";
/// Between section and field.
const VARIABLE_SEPARATOR: &str = "__";
/// What `<name>_file` may stand beside.
const SECRETS: [(&str, &str); 3] =
    [("amqp", "url"), ("amqp", "management_url"), ("database", "url")];

/// Why there are no settings: the operator has to change something.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A named file is not there, or cannot be read.
    #[error("read settings from {}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    /// A file is no TOML.
    #[error("{file} is not TOML: {detail}")]
    Syntax { file: String, detail: String },
    /// A key that does not exist, or a value of the wrong type.
    #[error("{path} (from {origin}): {detail}")]
    Value { path: String, origin: String, detail: String },
    /// A secret is given as it is, and in a file too.
    #[error("{path} and {path}_file (from {origin}) are both given; leave one out")]
    SecretTwice { path: String, origin: String },
    /// The file of a secret cannot be read.
    #[error("{path}_file (from {origin}): read {file}")]
    Secret { path: String, origin: String, file: String, source: io::Error },
    /// Settings that cannot be as they are.
    #[error("{}", lines(.0))]
    Wrong(Vec<Complaint>),
}

fn lines(complaints: &[Complaint]) -> String {
    complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The settings of this process, checked.
///
/// `path` is what `--config` names.
pub fn load(path: Option<PathBuf>) -> Result<Settings, SettingsError> {
    let settings = load_from(path, std::env::vars_os())?;
    let complaints = check(&settings);
    if complaints.is_empty() { Ok(settings) } else { Err(SettingsError::Wrong(complaints)) }
}

/// The settings out of the file and the `variables`, not yet checked.
pub(super) fn load_from(
    path: Option<PathBuf>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, SettingsError> {
    let variables: BTreeMap<OsString, OsString> = variables.into_iter().collect();
    let named = path.or_else(|| variables.get(&OsString::from(FILE_VARIABLE)).map(PathBuf::from));
    let file = named.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(SettingsError::Unreadable { file: file.to_owned(), source }),
    };
    let mut sources = Sources::parse(file.display().to_string(), &text)?;
    for (name, value) in &variables {
        if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
            sources.set_variable(name, value)?;
        }
    }
    sources.read_secrets()?;
    sources.settings()
}

/// The settings out of a file's text alone, not yet checked.
#[cfg(test)]
pub(super) fn from_text(text: &str) -> Result<Settings, SettingsError> {
    Sources::parse("test.toml".to_owned(), text)?.settings()
}

/// What was given, as a tree, and where each branch of it comes from.
struct Sources {
    tree: Map<String, Value>,
    file: String,
    /// Setting to variable, for those that the environment has set.
    variables: BTreeMap<String, String>,
}

impl Sources {
    fn parse(file: String, text: &str) -> Result<Self, SettingsError> {
        let syntax = |error: &ConfigError| SettingsError::Syntax {
            file: file.clone(),
            detail: without_quotation(&error.to_string()),
        };
        let tree = Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .and_then(Config::try_deserialize::<Map<String, Value>>)
            .map_err(|error| syntax(&error))?;
        Ok(Self { tree, file, variables: BTreeMap::new() })
    }

    /// Sets what the variable `name` names, for example `KEYLANE__AMQP__URL` `amqp.url`.
    fn set_variable(&mut self, name: &OsString, value: &OsString) -> Result<(), SettingsError> {
        let shown = name.to_string_lossy().into_owned();
        let path = shown.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_lowercase();
        let path: Vec<&str> = path.split(VARIABLE_SEPARATOR).collect();
        let wrong = |detail: &str| SettingsError::Value {
            path: path.join("."),
            origin: shown.clone(),
            detail: detail.to_owned(),
        };
        let value = value.to_str().ok_or_else(|| wrong("must be UTF-8"))?;
        let (field, sections) = path.split_last().ok_or_else(|| wrong("names no setting"))?;
        if sections.is_empty() || path.iter().any(|part| part.is_empty()) {
            return Err(wrong("the variable must be named KEYLANE__SECTION__FIELD"));
        }
        let mut branch = &mut self.tree;
        for section in sections {
            let below = branch.entry(*section).or_insert_with(|| Value::Object(Map::new()));
            branch = below.as_object_mut().ok_or_else(|| wrong("is not below a section"))?;
        }
        branch.insert((*field).to_owned(), typed(&path, value));
        // What the environment says about a secret replaces both forms of it in the file.
        if let [section, field] = *path.as_slice() {
            let secret = field.strip_suffix("_file").unwrap_or(field);
            let other = if secret == field { format!("{field}_file") } else { secret.to_owned() };
            if SECRETS.contains(&(section, secret))
                && !self.variables.contains_key(&format!("{section}.{other}"))
            {
                branch.remove(&other);
            }
        }
        self.variables.insert(path.join("."), shown);
        Ok(())
    }

    /// Puts the content of a secret's file where the secret belongs.
    fn read_secrets(&mut self) -> Result<(), SettingsError> {
        for (section, field) in SECRETS {
            let path = format!("{section}.{field}");
            let origin = self.origin(&format!("{path}_file"));
            let Some(branch) = self.tree.get_mut(section).and_then(Value::as_object_mut) else {
                continue;
            };
            let Some(file) = branch.remove(&format!("{field}_file")) else { continue };
            if branch.contains_key(field) {
                return Err(SettingsError::SecretTwice { path, origin });
            }
            let Value::String(file) = file else {
                let detail = "must be the name of a file".to_owned();
                return Err(SettingsError::Value { path: format!("{path}_file"), origin, detail });
            };
            match fs::read_to_string(&file) {
                Ok(secret) => branch.insert(field.to_owned(), secret.trim().into()),
                Err(source) => return Err(SettingsError::Secret { path, origin, file, source }),
            };
        }
        Ok(())
    }

    fn settings(self) -> Result<Settings, SettingsError> {
        // From text, since a tree says no more than "invalid number" about 70000 partitions.
        let json = Value::Object(self.tree.clone()).to_string();
        let mut json = serde_json::Deserializer::from_str(&json);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let detail = error.into_inner().to_string();
            let detail = detail.rsplit_once(" at line ").map_or(&*detail, |(detail, _)| detail);
            SettingsError::Value { origin: self.origin(&path), path, detail: without_value(detail) }
        })
    }

    /// The variable that has set `path`, else the file.
    fn origin(&self, path: &str) -> String {
        self.variables.get(path).unwrap_or(&self.file).clone()
    }
}

/// A variable's text as what its setting holds; text that is no number is left as it is, and
/// complained about with all the others of a wrong type.
fn typed(path: &[&str], text: &str) -> Value {
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    match *path {
        ["amqp", "reply_to_prefixes"] | ["entities", _, "key"] => {
            items().map(Value::from).collect()
        }
        ["worker", "partitions"] => items().map(number).collect(),
        [section, field] if is_number(section, field) => number(text),
        _ => Value::from(text),
    }
}

fn is_number(section: &str, field: &str) -> bool {
    let defaults = Settings::default().shown();
    defaults.get(section).and_then(|section| section.get(field)).is_some_and(Value::is_number)
}

fn number(text: &str) -> Value {
    text.trim().parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

/// What is said about a value of the wrong type, without the value where it is an address: whoever
/// writes `database = "postgres://…"` has a password in it.
fn without_value(detail: &str) -> String {
    match detail.rsplit_once(", expected ") {
        Some((value, expected)) if value.contains("://") => format!("expected {expected}"),
        _ => detail.to_owned(),
    }
}

/// An error of the parser without the line that it quotes: there may be a password in it.
pub(crate) fn without_quotation(error: &str) -> String {
    let kept: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.contains('|')).collect();
    kept.join(" ")
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
