//! Each bound from both sides.

use super::*;
use crate::settings::{OnReject, load::from_text};

/// Settings as TOML, and the paths that are complained about with a word of the complaint.
#[test]
#[expect(clippy::too_many_lines, reason = "a table is read as a whole")]
fn every_wrong_setting_is_complained_about_by_its_path() {
    let prefix_40 = format!("amqp.prefix = 'p{}'", "x".repeat(39));
    let prefix_41 = format!("amqp.prefix = 'p{}'", "x".repeat(40));
    let id_200 = format!("worker.id = '{}'", "é".repeat(200));
    let id_201 = format!("worker.id = '{}'", "é".repeat(201));
    let table: &[(&str, &[(&str, &str)])] = &[
        ("", &[]),
        (&prefix_40, &[]),
        (&prefix_41, &[("amqp.prefix", "40 bytes")]),
        ("amqp.prefix = 'a-b_9'", &[]),
        ("amqp.prefix = '9a'", &[("amqp.prefix", "[a-z][a-z0-9_-]*")]),
        ("amqp.prefix = ''", &[("amqp.prefix", "[a-z][a-z0-9_-]*")]),
        ("amqp.prefix = 'a.b'", &[("amqp.prefix", "`a.b`")]),
        ("amqp.partitions = 1000", &[]),
        ("amqp.partitions = 1001", &[("amqp.partitions", "1 to 1000")]),
        ("amqp.reply_to_prefixes = []", &[]),
        ("amqp.reply_to_prefixes = ['']", &[("amqp.reply_to_prefixes", "empty prefix")]),
        ("amqp.url = 'amqps://mq'", &[]),
        ("amqp.url = 'http://u:hunter2@mq'", &[("amqp.url", "not http://")]),
        ("amqp.url = 'amqp:///x'", &[("amqp.url", "no host")]),
        ("amqp.url = 'hunter2'", &[("amqp.url", "amqp:// or amqps://")]),
        (
            "amqp = { url = 'amqps://mq', tls_ca_file = 'a', tls_cert_file = 'c', \
             tls_key_file = 'k' }",
            &[],
        ),
        ("amqp = { url = 'amqps://mq', tls_ca_file = 'a' }", &[]),
        ("amqp.tls_ca_file = 'a'", &[("amqp.tls_ca_file", "make it amqps://")]),
        (
            "amqp = { url = 'amqps://mq', tls_cert_file = 'c' }",
            &[("amqp.tls_key_file", "with amqp.tls_cert_file")],
        ),
        (
            "amqp = { url = 'amqps://mq', tls_key_file = '' }",
            &[
                ("amqp.tls_key_file", "leave it out"),
                ("amqp.tls_cert_file", "with amqp.tls_key_file"),
            ],
        ),
        ("amqp.management_url = 'https://u:hunter2@mq:15671'", &[]),
        ("amqp.management_url = 'amqp://mq'", &[("amqp.management_url", "http:// or https://")]),
        ("database.url = 'postgresql://db/x'", &[]),
        ("database.url = 'postgres:///x?host=/run/postgresql'", &[]),
        ("database.url = 'postgres:///x'", &[("database.url", "no host")]),
        ("database.connections_max = 3", &[]),
        ("database.connections_max = 2", &[("database.connections_max", "at least 3")]),
        ("database.lock_timeout_ms = 29999", &[]),
        ("database.lock_timeout_ms = 30000", &[("database.lock_timeout_ms", "less than")]),
        ("database.tcp_user_timeout_ms = 2147483647", &[]),
        ("database.tcp_user_timeout_ms = 2147483648", &[("database.tcp_user_timeout_ms", "most")]),
        ("batch.bytes_max = 536870912", &[]),
        ("batch.bytes_max = 536870913", &[("batch.bytes_max", "512 MiB")]),
        ("batch.body_bytes_max = 8388608", &[]),
        ("batch.body_bytes_max = 8388609", &[("batch.body_bytes_max", "batch.bytes_max")]),
        (&id_200, &[]),
        (&id_201, &[("worker.id", "200 printable")]),
        ("worker.id = ''", &[("worker.id", "1 to 200")]),
        ("worker.id = \"a\\tb\"", &[("worker.id", "printable")]),
        ("worker.partitions = [0, 999]", &[]),
        ("worker.partitions = [1000]", &[("worker.partitions", "0 to 999")]),
        ("park = { key_max = 1000000, total_max = 1000000, wait_max_s = 86400 }", &[]),
        (
            "park.key_max = 1000001",
            &[("park.key_max", "at most 1000000"), ("park.total_max", "at least park.key_max")],
        ),
        ("park.wait_max_s = 86401", &[("park.wait_max_s", "a day")]),
        ("generations = { settle_ms = 60000, keep_minutes = 10080 }", &[]),
        ("generations.settle_ms = 60001", &[("generations.settle_ms", "a minute")]),
        ("generations.rest_ms = 60001", &[("generations.rest_ms", "a minute")]),
        ("generations.spread_ms = 60001", &[("generations.spread_ms", "a minute")]),
        ("generations.copies_max_s = 241", &[("generations.copies_max_s", "at most 240")]),
        ("generations.keep_minutes = 10081", &[("generations.keep_minutes", "a week")]),
        ("ledger.retention_hours = 87600", &[]),
        ("ledger.retention_hours = 87601", &[("ledger.retention_hours", "ten years")]),
        ("http.listen = '[::1]:0'", &[]),
        ("http.listen = 'localhost:80'", &[("http.listen", "`localhost:80`")]),
        ("http.body_bytes_max = 536870912", &[]),
        ("http.body_bytes_max = 536870913", &[("http.body_bytes_max", "at most 536870912")]),
        ("http.requests_max = 1000000", &[]),
        ("http.requests_max = 1000001", &[("http.requests_max", "at most 1000000")]),
        ("http.waiting_max = 10000000", &[]),
        ("http.waiting_max = 10000001", &[("http.waiting_max", "at most 10000000")]),
        ("http.bulk_window = 1000000", &[]),
        ("http.bulk_window = 1000001", &[("http.bulk_window", "at most 1000000")]),
        ("http.connections_max = 1000000", &[]),
        ("http.connections_max = 1000001", &[("http.connections_max", "at most 1000000")]),
        ("http = { wait_ms = 0, wait_max_ms = 1 }", &[]),
        ("http = { wait_ms = 7, wait_max_ms = 7 }", &[]),
        ("http = { wait_ms = 8, wait_max_ms = 7 }", &[("http.wait_ms", "http.wait_max_ms (7)")]),
        ("http.wait_max_ms = 3600000", &[]),
        ("http.wait_max_ms = 3600001", &[("http.wait_max_ms", "at most 3600000")]),
        ("http.confirm_max_ms = 600000", &[]),
        ("http.confirm_max_ms = 600001", &[("http.confirm_max_ms", "at most 600000")]),
        ("http.header_timeout_ms = 600000", &[]),
        ("http.header_timeout_ms = 600001", &[("http.header_timeout_ms", "at most 600000")]),
        ("http.body_timeout_ms = 600000", &[]),
        ("http.body_timeout_ms = 600001", &[("http.body_timeout_ms", "at most 600000")]),
        ("http = { tls_cert_file = 'c', tls_key_file = 'k', tokens_file = 't' }", &[]),
        ("http.tls_cert_file = 'c'", &[("http.tls_key_file", "with http.tls_cert_file")]),
        ("http.tls_key_file = 'k'", &[("http.tls_cert_file", "with http.tls_key_file")]),
        (
            "http = { tls_cert_file = '', tls_key_file = '', tokens_file = '' }",
            &[
                ("http.tls_cert_file", "leave it out"),
                ("http.tls_key_file", "leave it out"),
                ("http.tokens_file", "leave it out"),
            ],
        ),
        ("http.body_bytes_max = 400000000", &[]),
        ("telemetry.log = 'info,keylane=debug'", &[]),
        ("telemetry.log = 'keylane=loud'", &[("telemetry.log", "filter")]),
        (
            "amqp.partitions = 2000\nhttp.listen = 'x'\nbatch.body_bytes_max = 9999999",
            &[("amqp.partitions", ""), ("batch.body_bytes_max", ""), ("http.listen", "")],
        ),
    ];
    for (toml, expected) in table {
        let complaints = check(&from_text(toml).expect(toml));
        let paths: Vec<&str> = complaints.iter().map(|complaint| complaint.path.as_str()).collect();
        let expected_paths: Vec<&str> = expected.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths, expected_paths, "{toml}: {complaints:?}");
        for (complaint, (_, word)) in complaints.iter().zip(*expected) {
            assert!(complaint.detail.contains(word), "{toml}: {complaint}");
            assert!(!complaint.detail.contains("hunter2"), "{toml}: {complaint}");
        }
    }
}

fn order() -> EntitySettings {
    EntitySettings {
        table: "shop.orders".to_owned(),
        key: vec!["tenant".to_owned(), "number".to_owned()],
        version: Some("version".to_owned()),
        occurred_at: Some("seen_at".to_owned()),
        deleted_at: None,
        on_reject: OnReject::Continue,
        fold: crate::settings::Fold::Auto,
    }
}

fn complaints_about(name: &str, change: impl FnOnce(&mut EntitySettings)) -> Vec<String> {
    let mut settings = Settings::default();
    let mut entity = order();
    change(&mut entity);
    settings.entities.insert(name.to_owned(), entity);
    check(&settings).into_iter().map(|complaint| complaint.path).collect()
}

#[test]
fn the_name_of_an_entity_is_judged_as_it_is_written() {
    let settings = from_text("[entities.Customer]\ntable = 't'\nkey = ['k']").expect("loads");
    assert_eq!(check(&settings).len(), 1, "{settings:?}");
}

#[test]
fn an_entity_has_a_plain_name() {
    let long_60 = "e".repeat(60);
    let long_61 = "e".repeat(61);
    for name in ["order", "o2_x", "writes_", &long_60] {
        assert!(complaints_about(name, |_| {}).is_empty(), "{name}");
    }
    for name in ["Order", "2o", "_o", "", "a__b", "writes", "a-b", "a.b", "ä", &long_61] {
        assert_eq!(complaints_about(name, |_| {}), [format!("entities.{name}")], "{name}");
    }
}

#[test]
fn an_entity_names_a_table_and_different_columns() {
    type Change = fn(&mut EntitySettings);
    let table: [(Change, &[&str]); 13] = [
        (|_| {}, &[]),
        (|e| "orders".clone_into(&mut e.table), &[]),
        (|e| "Some Table".clone_into(&mut e.table), &[]),
        (|e| "a.b.c".clone_into(&mut e.table), &["entities.order.table"]),
        (|e| ".orders".clone_into(&mut e.table), &["entities.order.table"]),
        (|e| "orders.".clone_into(&mut e.table), &["entities.order.table"]),
        (|e| "\"orders\"".clone_into(&mut e.table), &["entities.order.table"]),
        (|e| e.key.clear(), &["entities.order.key"]),
        (|e| e.key.push("tenant".to_owned()), &["entities.order.key"]),
        (|e| e.key.push(String::new()), &["entities.order.key"]),
        (|e| e.version = Some("number".to_owned()), &["entities.order.version"]),
        (|e| e.occurred_at = Some("version".to_owned()), &["entities.order.occurred_at"]),
        (|e| e.deleted_at = Some("seen_at".to_owned()), &["entities.order.deleted_at"]),
    ];
    for (row, (change, expected)) in table.into_iter().enumerate() {
        assert_eq!(complaints_about("order", change), expected, "row {row}");
    }
}
