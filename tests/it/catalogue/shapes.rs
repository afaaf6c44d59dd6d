//! What an entity is once its table is good: columns, types, defaults, fold.

use keylane::core::column::ColumnType::{
    Array, Bool, Bytea, Date, Enum, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Numeric, Other,
    Text, Time, Timestamp, TimestampTz, Uuid,
};
use keylane::core::entity::Entity;
use sqlx::PgConnection;

use super::{T, entity, run};
use crate::support;

const TYPES: &str = "
    create schema \"S\";
    create type mood as enum ('b', 'a');
    create type \"S\".\"Mood\" as enum ('x');
    create type point2 as (x int, y int);
    create domain email as text check (value like '%@%');
    create domain short as varchar(5);
    create domain amount as numeric(12,2) default 1.5 not null;
    create domain price as amount check (value > 0);
    create domain tags as text[];
    create domain at3 as timestamptz(3);";

#[tokio::test]
async fn each_column_type_is_known_by_what_it_can_hold() {
    let mood = || Enum(vec!["b".to_owned(), "a".to_owned()]);
    let array = |of| Array(Box::new(of));
    let table = [
        ("smallint", Int2, "smallint"),
        ("int", Int4, "integer"),
        ("bigint", Int8, "bigint"),
        ("numeric", Numeric(None), "numeric"),
        ("numeric(12,2)", Numeric(Some((12, 2))), "numeric"),
        ("numeric(5)", Numeric(Some((5, 0))), "numeric"),
        ("real", Float4, "real"),
        ("double precision", Float8, "double precision"),
        ("text", Text(None), "text"),
        ("varchar", Text(None), "text"),
        ("varchar(20)", Text(Some(20)), "text"),
        ("char(3)", Text(Some(3)), "text"),
        ("bpchar", Text(None), "text"),
        ("name", Text(Some(15)), "text"),
        ("bool", Bool, "boolean"),
        ("uuid", Uuid, "uuid"),
        ("date", Date, "date"),
        ("time", Time(6), "time without time zone"),
        ("time(0)", Time(0), "time without time zone"),
        ("timestamp(3)", Timestamp(3), "timestamp without time zone"),
        ("timestamptz", TimestampTz(6), "timestamp with time zone"),
        ("timestamptz(0)", TimestampTz(0), "timestamp with time zone"),
        ("timetz", Other, "time with time zone"),
        ("json", Json, "json"),
        ("jsonb", Jsonb, "jsonb"),
        ("bytea", Bytea, "bytea"),
        ("mood", mood(), "public.mood"),
        ("\"S\".\"Mood\"", Enum(vec!["x".to_owned()]), "\"S\".\"Mood\""),
        ("int[]", array(Int4), "integer[]"),
        ("varchar(5)[][]", array(Text(Some(5))), "text[]"),
        ("numeric(4,1)[]", array(Numeric(Some((4, 1)))), "numeric[]"),
        ("mood[]", array(mood()), "public.mood[]"),
        ("interval", Other, "interval"),
        ("inet", Other, "inet"),
        ("bit(3)", Other, "\"bit\""),
        ("\"char\"", Other, "\"char\""),
        ("int4range", Other, "int4range"),
        ("int2vector", Other, "int2vector"),
        ("point2", Other, "public.point2"),
        ("email", Text(None), "text"),
        ("short", Text(Some(5)), "text"),
        ("price", Numeric(Some((12, 2))), "numeric"),
        ("tags", array(Text(None)), "text[]"),
        ("at3", TimestampTz(3), "timestamp with time zone"),
        ("email[]", array(Text(None)), "public.email[]"),
        ("tags[]", Other, "public.tags[]"),
    ];
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    run(&mut connection, TYPES).await;
    for (kind, expected, sql_type) in table {
        let ddl = format!("create table t (k int primary key, c {kind})");
        let entity = entity(&ddl, T, &mut connection).await;
        let column = &entity.columns[0];
        assert_eq!((&column.kind, &*column.sql_type), (&expected, sql_type), "{kind}");
        // Text must be castable to it, or no row could be written.
        run(&mut connection, &format!("select null::text::{sql_type}")).await;
    }
}

#[tokio::test]
async fn a_negative_scale_is_read_where_postgresql_has_it() {
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    if version >= 150_000 {
        let ddl = "create table t (k int primary key, c numeric(2,-3))";
        let entity = entity(ddl, T, &mut connection).await;
        assert_eq!(entity.columns[0].kind, Numeric(Some((2, -3))));
    }
}

/// Column definitions, whether NULL is refused, and the default.
#[tokio::test]
async fn a_default_comes_as_an_expression_with_schemas() {
    let table = [
        ("int", false, None),
        ("int not null", true, None),
        ("int default 0", false, Some("0")),
        ("text default 'it''s'", false, Some("'it''s'::text")),
        ("mood default 'a'", false, Some("'a'::public.mood")),
        ("int default nextval('s')", false, Some("nextval('public.s'::regclass)")),
        ("timestamptz default now()", false, Some("now()")),
        ("amount", true, Some("1.5")),
        ("price", true, Some("1.5")),
        ("amount default 2", true, Some("2")),
    ];
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    run(&mut connection, &format!("{TYPES} create sequence s")).await;
    for (definition, not_null, default) in table {
        let ddl = format!("create table t (k int primary key, c {definition})");
        let entity = entity(&ddl, T, &mut connection).await;
        let column = &entity.columns[0];
        assert_eq!((column.not_null, column.default.as_deref()), (not_null, default), "{ddl}");
    }
}

#[tokio::test]
async fn a_body_may_name_what_neither_keylane_nor_postgresql_fills() {
    let ddl = "create table t (
        z int, \"B\" int, a int, gone int, k int primary key,
        version bigint not null default 0, seen_at timestamptz, deleted_at timestamptz,
        always int generated always as identity, id int generated by default as identity,
        twice int generated always as (a * 2) stored, number bigserial);
        alter table t drop column gone";
    let fields = r#""table": "public.t", "key": ["k"], "version": "version",
        "occurred_at": "seen_at", "deleted_at": "deleted_at""#;
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let entity = entity(ddl, fields, &mut connection).await;
    let names: Vec<&str> = entity.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["B", "a", "z"], "in byte order, which the search relies on");
    assert_eq!(entity.column("z"), Some(2));
    assert_eq!(entity.name, "e");
    assert_eq!(entity.version.as_deref(), Some("version"));
    assert_eq!(entity.occurred_at.as_deref(), Some("seen_at"));
    assert_eq!(entity.deleted_at.as_deref(), Some("deleted_at"));
}

async fn shape(ddl: &str, fold: &str, connection: &mut PgConnection) -> Entity {
    let fields = format!("{T}, \"version\": \"v\", \"fold\": \"{fold}\"");
    let ddl =
        format!("create table t (k int primary key, v bigint, c text, n int not null); {ddl}");
    entity(&ddl, &fields, connection).await
}

/// What a table has, and whether its writes may be folded.
#[tokio::test]
async fn writes_are_folded_where_nobody_can_see_the_difference() {
    const FUNCTION: &str = "create function f() returns trigger language plpgsql as
        'begin return new; end'; create trigger r before update on t for each row
        execute function f();";
    let table = [
        ("", true),
        ("create index on t (c); create index on t (c, n)", true),
        ("create unique index on t (k)", true),
        ("alter table t add id int generated always as identity unique", true),
        ("alter table t add id int generated by default as identity unique", true),
        ("alter table t add id serial unique", true),
        ("alter table t add d filled default 'x'", true),
        ("alter table t add d mood, add a int[]", true),
        ("alter table t add unique (c)", false),
        ("alter table t add unique (k, c)", false),
        ("alter table t add unique (v)", false),
        ("create index on t (lower(c))", false),
        ("create index on t (c) where n > 0", false),
        ("alter table t add check (n > 0)", false),
        ("alter table t add check (n > 0) not valid", false),
        ("alter table t add d email", false),
        ("alter table t add d email[]", false),
        ("alter table t add d work_email", false),
        ("alter table t add d price default 1", false),
        ("alter table t add foreign key (n) references t", false),
        ("create table u (k int references t)", false),
        ("alter table t add exclude using btree (n with =)", false),
        ("alter table t add g int generated always as (n / n) stored", false),
        ("alter table t add address inet", false),
        ("alter table t add addresses inet[]", false),
        ("create rule r as on delete to t do also select 1", false),
        (
            "create table p (like t) partition by list (k);
          alter table p attach partition t for values in (1)",
            false,
        ),
        (FUNCTION, false),
    ];
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    run(
        &mut connection,
        &format!(
            "{TYPES} create domain filled as text not null;
             create domain work_email as email"
        ),
    )
    .await;
    for (ddl, fold) in table {
        let auto = shape(ddl, "auto", &mut connection).await;
        assert_eq!(auto.fold, fold, "{ddl}");
        assert_eq!(auto.user_triggers, ddl == FUNCTION, "{ddl}");
        assert!(shape(ddl, "always", &mut connection).await.fold, "{ddl}");
    }
    let disabled = format!("{FUNCTION} alter table t disable trigger r");
    let disabled = shape(&disabled, "auto", &mut connection).await;
    assert!(disabled.fold && !disabled.user_triggers);
}

#[tokio::test]
async fn a_partitioned_table_is_not_folded_and_shows_the_triggers_of_its_partitions() {
    let ddl = "create table t (k int primary key) partition by hash (k);
        create table t0 partition of t for values with (modulus 1, remainder 0);";
    let trigger = "create function f() returns trigger language plpgsql as
        'begin return new; end'; create trigger r before insert on t0 for each row
        execute function f();";
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let plain = entity(ddl, T, &mut connection).await;
    assert!(!plain.fold && !plain.user_triggers);
    assert!(entity(&format!("{ddl}{trigger}"), T, &mut connection).await.user_triggers);
}

/// What a column of key or guard is written to can be taken, whoever fills it otherwise.
#[tokio::test]
async fn a_unique_index_on_columns_that_fill_themselves_counts_where_keylane_writes_them() {
    let database = support::database().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let fields = r#""table": "t", "key": ["a", "b"], "version": "v""#;
    let columns = "create table t (a int, b int generated by default as identity,
        v bigint generated by default as identity, primary key (b, a)";
    for (more, fold) in
        [("", true), (", unique (a)", false), (", unique (b)", false), (", unique (v)", false)]
    {
        let entity = entity(&format!("{columns}{more})"), fields, &mut connection).await;
        assert_eq!(entity.fold, fold, "{more}");
    }
}
