//! Troubles with the columns of key and guards, and keys that are good.

use super::{ROLE, T, assert_troubles, entity, load, only, run};
use crate::support;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table is read as a whole")]
async fn only_a_plain_unique_index_on_exactly_the_key_will_do() {
    const K2: &str = r#""table": "t", "key": ["b", "a"]"#;
    const CREATE: &str = "create unique index concurrently on public.t (k)";
    let both = format!("{CREATE}; alter table public.t drop constraint u");
    assert_troubles(&[
        (
            "create table t (k int not null)",
            T,
            "public.t has no unique index on exactly the key (k)",
            CREATE,
        ),
        (
            "create table t (a int not null, b int not null, c int, unique (a), unique (a, b, c))",
            K2,
            "on exactly the key (b, a)",
            "create unique index concurrently on public.t (b, a)",
        ),
        (
            "create table t (k int not null); create index on t (k)",
            T,
            "has no unique index",
            CREATE,
        ),
        (
            "create table t (k int not null constraint u unique deferrable)",
            T,
            "public.u is deferrable",
            &both,
        ),
        (
            "create table t (k int primary key constraint u unique deferrable initially deferred)",
            T,
            "public.u is deferrable",
            "alter table public.t drop constraint u",
        ),
        (
            "create table t (k int not null, b int); create unique index u on t (k) where b > 0",
            T,
            "public.u is partial",
            CREATE,
        ),
        (
            "create table t (k text not null); create unique index u on t (lower(k))",
            T,
            "public.u is on expressions",
            CREATE,
        ),
        (
            "create table t (k text not null, c text); create unique index u on t (lower(c))",
            T,
            "public.t has no unique index",
            CREATE,
        ),
        (
            "create table t (k int not null); create unique index u on t (k);
             update pg_index set indisvalid = false where indexrelid = 'u'::regclass",
            T,
            "public.u is invalid",
            "reindex index concurrently public.u",
        ),
        (
            "create collation ci (provider = icu, locale = 'und', deterministic = false);
             create table t (k text not null); create unique index u on t (k collate ci)",
            T,
            "public.u is under a non-deterministic collation",
            CREATE,
        ),
        (
            "create table t (k int not null) partition by list (k)",
            T,
            "has no unique index",
            "create unique index on public.t (k)",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_key_column_has_one_text_for_one_value() {
    let refused = [
        ("char(3)", "char(n)", "type text"),
        ("name", "name", "type text"),
        ("citext", "citext", "type text"),
        ("float4", "float4", "type bigint"),
        ("float8", "float8", "type bigint"),
        ("numeric", "numeric", "type bigint"),
        ("numeric(5,0)", "numeric", "type bigint"),
        ("timestamptz", "timestamptz", "type text"),
        ("timetz", "timetz", "type text"),
        ("json", "json", "type text"),
        ("jsonb", "jsonb", "type text"),
        ("bytea", "bytea", "type text"),
        ("int[]", "integer[]", "type text"),
        ("inet", "inet", "type text"),
        ("amount", "numeric", "type bigint"),
    ];
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    run(&mut connection, "create extension citext; create domain amount as numeric(12,2)").await;
    for (kind, name, better) in refused {
        // Without an index, since not every type can have one: that is a trouble of its own.
        run(&mut connection, &format!("create table t (k {kind} not null)")).await;
        let troubles = load(&mut connection, &only("e", T)).await.expect_err(kind);
        assert_eq!(troubles.len(), 2, "{kind}: {troubles:?}");
        let problem = format!("key column `k` is {name}");
        assert!(troubles[0].problem.starts_with(&problem), "{kind}: {troubles:?}");
        let remedy = format!("alter table public.t alter column k {better}");
        assert_eq!(troubles[0].remedy, remedy, "{kind}");
        run(&mut connection, "drop table t").await;
    }
}

#[tokio::test]
async fn a_key_column_can_be_found_and_written() {
    const ALTER: &str = "alter table public.t alter column k";
    let alter = |change: &str| format!("{ALTER} {change}");
    assert_troubles(&[
        ("create table t (k int unique)", T, "key column `k` may be null", &alter("set not null")),
        (
            "create collation ci (provider = icu, locale = 'und', deterministic = false);
             create table t (k text collate ci primary key)",
            T,
            "key column `k` has a non-deterministic collation",
            &alter("type text collate \"C\""),
        ),
        (
            "create table t (k int primary key generated always as identity)",
            T,
            "key column `k` is generated always as identity",
            &alter("set generated by default"),
        ),
        (
            "create table t (a int, k int generated always as (a) stored not null unique)",
            T,
            "key column `k` is generated,",
            &alter("drop expression"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_version_column_is_a_bigint_that_keylane_writes() {
    const V: &str = r#""table": "t", "key": ["k"], "version": "v""#;
    const ALTER: &str = "alter table public.t alter column v";
    let alter = |change: &str| format!("{ALTER} {change}");
    assert_troubles(&[
        (
            "create table t (k int primary key, v int)",
            V,
            "version column `v` is int4, must be bigint",
            &alter("type bigint"),
        ),
        (
            "create table t (k int primary key, v bigint generated always as identity)",
            V,
            "version column `v` is generated always as identity",
            &alter("drop identity"),
        ),
        (
            "create table t (k int primary key, v bigint generated always as (k) stored)",
            V,
            "version column `v` is generated,",
            &alter("drop expression"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_time_column_is_a_timestamptz_that_may_be_null() {
    const AT: &str = r#""table": "t", "key": ["k"], "occurred_at": "at""#;
    const DELETED: &str = r#""table": "t", "key": ["k"], "deleted_at": "at""#;
    const ALTER: &str = "alter table public.t alter column at";
    let alter = |change: &str| format!("{ALTER} {change}");
    assert_troubles(&[
        (
            "create table t (k int primary key, at timestamp)",
            AT,
            "occurred_at column `at` is timestamp, must be timestamptz",
            &alter("type timestamptz"),
        ),
        (
            "create table t (k int primary key, at timestamptz(3))",
            AT,
            "occurred_at column `at` is timestamptz(3), must be timestamptz",
            &alter("type timestamptz"),
        ),
        (
            "create table t (k int primary key, at timestamptz not null)",
            AT,
            "occurred_at column `at` must be nullable: null means no time given",
            &alter("drop not null"),
        ),
        (
            "create table t (k int primary key, at timestamp)",
            DELETED,
            "deleted_at column `at` is timestamp, must be timestamptz",
            &alter("type timestamptz"),
        ),
        (
            "create domain moment as timestamptz not null;
             create table t (k int primary key, at moment)",
            DELETED,
            "deleted_at column `at` must be nullable: null means a row that is there",
            &alter("type timestamptz"),
        ),
    ])
    .await;
}

/// All the ways to have a key.
#[tokio::test]
async fn a_good_key_is_taken() {
    let serial = format!(
        "{ROLE} create table t (k bigserial primary key);
         grant select, insert, update, delete on t to keylane_it; set local role keylane_it"
    );
    let keys = [
        &*serial,
        "create table t (k int primary key)",
        "create table t (k bigint generated by default as identity primary key)",
        "create table t (k bigserial primary key)",
        "create table t (k varchar(20) not null unique)",
        "create table t (k uuid not null, b int); create unique index on t (k) include (b)",
        "create table t (k date not null, b int); create unique index on t (k desc)",
        "create table t (k bool primary key)",
        "create table t (k timestamp(0) primary key)",
        "create table t (k time primary key)",
        "create type mood as enum ('ok'); create table t (k mood primary key)",
        "create domain code as text not null; create table t (k code unique)",
        "create table t (k int primary key) partition by hash (k)",
        "create table p (k int primary key) partition by hash (k);
         create table t partition of p for values with (modulus 1, remainder 0)",
        "create table t (k int primary key); create rule r as on delete to t do also select 1",
        "create table t (k int primary key); create rule r as on insert to t do instead nothing;
         alter table t disable rule r",
        "create table t (k int primary key); alter table t enable row level security",
    ];
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    for ddl in keys {
        let entity = entity(ddl, T, &mut connection).await;
        assert_eq!((&*entity.table, &*entity.key[0].name), ("\"public\".\"t\"", "k"), "{ddl}");
        assert!(entity.key[0].not_null, "{ddl}");
    }
    let ddl = "create schema \"A b\";
        create table \"A b\".\"T\" (a int, b int, primary key (a, b))";
    let entity = entity(ddl, r#""table": "A b.T", "key": ["b", "a"]"#, &mut connection).await;
    assert_eq!(entity.table, "\"A b\".\"T\"");
    let names: Vec<&str> = entity.key.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in configured order");
}
