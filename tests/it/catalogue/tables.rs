//! Troubles with a table as a whole, and with what is not there.

use std::collections::BTreeMap;

use keylane::postgres::catalogue;

use super::{T, assert_troubles, entity_settings, run};
use crate::support;

const VERSIONED: &str = r#""table": "t", "key": ["k"], "version": "v""#;

#[tokio::test]
async fn a_table_that_is_not_one_is_refused() {
    assert_troubles(&[
        ("", T, "there is no table public.t", "create table public.t"),
        (
            "create schema crm; create table crm.t (k int primary key)",
            T,
            "there is no table public.t, but there is crm.t",
            "entities.e.table = \"crm.t\"",
        ),
        (
            "create table \"T\" (k int primary key)",
            T,
            "there is public.T",
            "entities.e.table = \"public.T\"",
        ),
        ("", r#""table": "crm.t", "key": ["k"]"#, "no table crm.t", "create table crm.t"),
        ("create view t as select 1 as k", T, "public.t is a view", "name the table beneath"),
        ("create materialized view t as select 1 as k", T, "a materialized view", "beneath"),
        (
            "create foreign data wrapper w; create server s foreign data wrapper w;
             create foreign table t (k int) server s",
            T,
            "a foreign table",
            "beneath",
        ),
        (
            "create table t (k int primary key); create table c () inherits (t)",
            T,
            "other tables inherit from public.t",
            "entities.e.table",
        ),
        (
            "create table t (k int primary key);
             create rule r as on delete to t do instead nothing",
            T,
            "rule r on public.t",
            "drop rule r on public.t",
        ),
        (
            "create table t (k int primary key); create rule r as on insert to t do also select 1",
            T,
            "forbids `on conflict`",
            "drop rule r on public.t",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_column_that_is_not_there_is_named_with_those_that_are() {
    assert_troubles(&[
        (
            "create table t (id int primary key, \"Other\" int)",
            T,
            "public.t has no column `k` (entities.e.key); it has: id, Other",
            "name columns of the table in entities.e.key",
        ),
        (
            "create table t (k int primary key)",
            VERSIONED,
            "no column `v` (entities.e.version); it has: k",
            "alter table public.t add column \"v\" bigint, or leave out entities.e.version",
        ),
        (
            "create table t (k int primary key)",
            r#""table": "t", "key": ["k"], "occurred_at": "at""#,
            "no column `at` (entities.e.occurred_at)",
            "alter table public.t add column \"at\" timestamptz, or leave out",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_role_may_do_what_keylane_does() {
    const ALL: &str = "grant select, insert, update, delete on t to keylane_it;";
    let become_role = |ddl: &str| format!("{ddl}; set local role keylane_it");
    let table = [
        (
            become_role("create table t (k int primary key)"),
            T,
            "keylane_it lacks privileges on public.t: select, insert, update, delete",
            "grant select, insert, update, delete on public.t to keylane_it",
        ),
        (
            become_role("create table t (k int primary key); grant select, update on t to public"),
            T,
            "public.t: insert, delete",
            "grant insert, delete on public.t to keylane_it",
        ),
        (
            become_role(&format!(
                "create schema \"S\"; create table \"S\".t (k int primary key);
                 set local search_path = \"S\"; {ALL}"
            )),
            r#""table": "S.t", "key": ["k"]"#,
            "keylane_it may not use the schema \"S\"",
            "grant usage on schema \"S\" to keylane_it",
        ),
        (
            become_role(&format!("create table t (k int primary key, id serial); {ALL}")),
            T,
            "may not use public.t_id_seq, which a default of public.t counts up",
            "grant usage on sequence public.t_id_seq to keylane_it",
        ),
        (
            become_role(&format!(
                "create table t (k int primary key); alter table t enable row level security; {ALL}"
            )),
            T,
            "row-level security of public.t is in force for keylane_it",
            "alter role keylane_it bypassrls",
        ),
    ];
    let table: Vec<_> = table.iter().map(|(ddl, a, b, c)| (ddl.as_str(), *a, *b, *c)).collect();
    assert_troubles(&table).await;
}

#[tokio::test]
async fn all_troubles_of_all_entities_come_at_once() {
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    run(&mut connection, "create table t (k int, v int); create table u (k int primary key)").await;
    let settings = BTreeMap::from([
        ("a".to_owned(), entity_settings(VERSIONED)),
        ("b".to_owned(), entity_settings(r#""table": "nowhere", "key": ["k"]"#)),
        ("c".to_owned(), entity_settings(r#""table": "u", "key": ["k"]"#)),
        ("d".to_owned(), entity_settings(r#""table": "public.u", "key": ["k"]"#)),
    ]);
    let error = catalogue::load(&mut connection, &settings).await.expect_err("troubles");
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("entity d: public.u is the table of entity c too"), "{text}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("entity a: ")).count(), 3, "{text}");
    assert!(lines[4].starts_with("entity b: there is no table public.nowhere; to mend"), "{text}");
    let path: String =
        sqlx::query_scalar("show search_path").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(path, "\"$user\", public", "the search path of the connection is as before");
}
