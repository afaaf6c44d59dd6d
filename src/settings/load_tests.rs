//! Which source wins, and what is said about a wrong one.

use std::path::PathBuf;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::settings::{Fold, OnReject};

const SHIPPED: &str = include_str!("../../config/keylane.toml");

/// Loads `toml` under the variables; errors with all their causes.
fn load_with(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keylane.toml");
    fs::write(&file, toml).expect("a file");
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    load_from(Some(file.clone()), variables)
        .map_err(|error| error.to_string().replace(&file.display().to_string(), "FILE"))
}

#[test]
fn the_shipped_file_holds_the_defaults() {
    let shipped = from_text(SHIPPED).expect("the shipped file loads");
    let defaults = Settings::default();
    assert_eq!(shipped.shown(), defaults.shown());
    assert_eq!(shipped.amqp.url.expose_secret(), defaults.amqp.url.expose_secret());
    assert_eq!(shipped.database.url.expose_secret(), defaults.database.url.expose_secret());
    assert_eq!(check(&defaults), []);
}

#[test]
fn the_shipped_file_shows_an_entity_that_loads() {
    let example = SHIPPED
        .split_once("# [entities.customer]")
        .map(|(_, example)| example.replace("\n# ", "\n").replace("\n#\n", "\n\n"));
    let example = format!("[entities.customer]{}", example.expect("an example"));
    let settings = from_text(&example).expect("the example loads");
    let shown = settings.shown();
    assert_eq!(shown["entities"]["customer"]["version"], "version");
    assert_eq!(check(&settings), []);
}

#[test]
fn the_shipped_file_names_every_setting() {
    let mut settings = Settings::default();
    let entity = "table = 't'\nkey = ['k']";
    settings.entities = from_text(&format!("[entities.customer]\n{entity}")).unwrap().entities;
    let mut section = String::new();
    let mut named = Vec::new();
    for line in SHIPPED.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((field, _)) = line.split_once(" = ") {
            named.push(format!("{section}.{field}"));
        }
    }
    let shown = settings.shown();
    let paths = leaves("", &shown);
    assert!(paths.len() > 25, "{paths:?}");
    for path in paths {
        assert!(named.contains(&path), "{path} is not in config/keylane.toml: {named:?}");
    }
}

fn leaves(path: &str, value: &Value) -> Vec<String> {
    let Value::Object(fields) = value else { return vec![path.to_owned()] };
    let dot = if path.is_empty() { "" } else { "." };
    fields.iter().flat_map(|(name, below)| leaves(&format!("{path}{dot}{name}"), below)).collect()
}

#[test]
fn the_environment_goes_over_the_file_and_the_file_over_the_defaults() {
    let toml = "amqp.prefix = 'a'\namqp.prefetch = 7\n[entities.customer]\ntable='x'\nkey=['k']";
    let settings = load_with(
        toml,
        &[
            ("KEYLANE_CONFIG", "/nowhere"),
            ("KEYLANE_OTHER", "x"),
            ("KEYLANE__AMQP__PREFIX", "b"),
            ("KEYLANE__AMQP__REPLY_TO_PREFIXES", "one., two."),
            ("KEYLANE__WORKER__PARTITIONS", "3,4"),
            ("KEYLANE__WORKER__ID", "007"),
            ("KEYLANE__BATCH__WRITES_MAX", "50"),
            ("KEYLANE__TELEMETRY__FORMAT", "json"),
            ("KEYLANE__ENTITIES__CUSTOMER__TABLE", "public.customers"),
            ("KEYLANE__ENTITIES__ORDER_ITEM__TABLE", "items"),
            ("KEYLANE__ENTITIES__ORDER_ITEM__KEY", "order_id,line"),
            ("KEYLANE__ENTITIES__ORDER_ITEM__FOLD", "always"),
        ],
    );
    let settings = settings.expect("loads");
    assert_eq!(settings.amqp.prefix, "b");
    assert_eq!(settings.amqp.prefetch.get(), 7);
    assert_eq!(settings.amqp.partitions.get(), 8);
    assert_eq!(settings.amqp.reply_to_prefixes, ["one.", "two."]);
    assert_eq!(settings.worker.partitions, [3, 4]);
    assert_eq!(settings.worker.id.as_deref(), Some("007"));
    assert_eq!(settings.shown()["telemetry"], json!({"log": "info,lapin=error", "format": "json"}));
    assert_eq!(settings.entities["customer"].table, "public.customers");
    assert_eq!(settings.entities["customer"].on_reject, OnReject::Continue);
    let item = &settings.entities["order_item"];
    assert_eq!((&item.key[..], item.fold), (&["order_id".into(), "line".into()][..], Fold::Always));
    assert_eq!(item.schema_and_table(), ("public", "items"));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let missing = || PathBuf::from("/nowhere/keylane.toml");
    let error = load_from(Some(missing()), []).expect_err("a missing file");
    assert!(error.to_string().contains("/nowhere/keylane.toml"), "{error}");
    let variable = ("KEYLANE_CONFIG".into(), missing().into());
    assert!(load_from(None, [variable]).is_err());
}

/// A file, a variable, and what the error says.
#[test]
fn a_wrong_setting_is_named_with_its_source() {
    let table: &[(&str, &[(&str, &str)], &str)] = &[
        ("amqp.urll = 'x'", &[], "amqp.urll (from FILE): unknown field `urll`, expected one of"),
        ("[broker]\nurl = 'x'", &[], "broker (from FILE): unknown field `broker`"),
        ("amqp.prefetch = 'many'", &[], "amqp.prefetch (from FILE): invalid type: string \"many\""),
        ("amqp.prefetch = 0", &[], "amqp.prefetch (from FILE): invalid value: integer `0`"),
        ("amqp.partitions = 70000", &[], "amqp.partitions (from FILE): invalid value"),
        ("amqp = 5", &[], "amqp (from FILE): invalid type"),
        ("amqp.prefix = 5", &[], "amqp.prefix (from FILE): invalid type: integer `5`"),
        ("database = 'postgres://u:x, expected hunter2@h'", &[], "database (from FILE): expected "),
        ("worker.partitions = [1, 'x']", &[], "worker.partitions[1] (from FILE)"),
        ("telemetry.format = 'xml'", &[], "telemetry.format (from FILE): unknown variant `xml`"),
        ("[entities.a]\nkey = ['k']", &[], "entities.a (from FILE): missing field `table`"),
        (
            "[entities.a]\ntable='t'\nkey=['k']\non_reject='stop'",
            &[],
            "entities.a.on_reject (from FILE): unknown variant `stop`, expected `continue` or `park`",
        ),
        ("", &[("KEYLANE__AMQP__URLL", "x")], "amqp.urll (from KEYLANE__AMQP__URLL): unknown"),
        (
            "amqp.prefetch = 5",
            &[("KEYLANE__AMQP__PREFETCH", "many")],
            "amqp.prefetch (from KEYLANE__AMQP__PREFETCH): invalid type: string \"many\"",
        ),
        ("", &[("KEYLANE__AMQP", "x")], "amqp (from KEYLANE__AMQP): the variable must be named"),
        ("", &[("KEYLANE__AMQP____URL", "x")], "KEYLANE__SECTION__FIELD"),
        ("amqp = 5", &[("KEYLANE__AMQP__URL", "x")], "amqp.url (from KEYLANE__AMQP__URL): is not"),
        ("amqp.url = 'x'\namqp.url_file = 'y'", &[], "amqp.url and amqp.url_file (from FILE)"),
        (
            "",
            &[("KEYLANE__DATABASE__URL", "x"), ("KEYLANE__DATABASE__URL_FILE", "y")],
            "database.url and database.url_file (from KEYLANE__DATABASE__URL_FILE) are both given",
        ),
        ("database.url_file = 5", &[], "database.url_file (from FILE): must be the name of a file"),
        ("database.url_file = '/nowhere'", &[], "database.url_file (from FILE): read /nowhere"),
        ("[database]\nurl = 'postgres://u:hunter2@h", &[], "FILE is not TOML"),
    ];
    for (toml, variables, expected) in table {
        let error = load_with(toml, variables).expect_err(toml);
        assert!(error.contains(expected), "{toml} {variables:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_secret_is_read_from_its_file_and_the_environment_replaces_either_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "postgres://u:p@h/d\n").expect("a file");
    let secret = secret.to_str().expect("UTF-8");
    let url = |toml: &str, variables: &[(&str, &str)]| {
        let settings = load_with(toml, variables).expect(toml);
        settings.database.url.expose_secret().to_owned()
    };
    let from_file = format!("database.url_file = '{secret}'");
    assert_eq!(url(&from_file, &[]), "postgres://u:p@h/d");
    assert_eq!(url(&from_file, &[("KEYLANE__DATABASE__URL", "x")]), "x");
    let variable = [("KEYLANE__DATABASE__URL_FILE", secret)];
    assert_eq!(url("database.url = 'y'", &variable), "postgres://u:p@h/d");
}
