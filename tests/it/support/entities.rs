//! Tables and entities that several tests use.

/// An entity with everything: version, time, soft delete.
pub(crate) const CUSTOMERS: &str = "
    create table customers (
        external_id text primary key, name text, points bigint not null default 10,
        balance numeric(12,2), version bigint, source_updated_at timestamptz,
        deleted_at timestamptz);";
pub(crate) const CUSTOMER: &str = "
    [entities.customer]
    table = 'customers'
    key = ['external_id']
    version = 'version'
    occurred_at = 'source_updated_at'
    deleted_at = 'deleted_at'
    ";

/// An entity whose deletes are hard.
pub(crate) const ITEMS: &str = "
    create table items (
        sku text primary key, label text default 'none', stock integer not null default 0,
        version bigint not null);";
pub(crate) const ITEM: &str = "
    [entities.item]
    table = 'items'
    key = ['sku']
    version = 'version'
    ";

/// What load is made of: one table that folds, and one whose trigger keeps each write.
pub(crate) const LOAD_TABLES: &str = "
    create table counters (key text primary key, n bigint not null default 0, version bigint);
    create table lines (key text primary key, seq bigint not null, version bigint);
    create table history (id bigserial primary key, key text not null, seq bigint not null);
    create function remember() returns trigger language plpgsql as $$
        begin insert into history (key, seq) values (new.key, new.seq); return new; end $$;
    create trigger remember before insert or update on lines
        for each row execute function remember();";
pub(crate) const LOAD_ENTITIES: &str = "
    [entities.counter]
    table = 'counters'
    key = ['key']
    version = 'version'
    [entities.line]
    table = 'lines'
    key = ['key']
    version = 'version'
    ";

/// A table that is slow for as long as `slow` has a row.
pub(crate) const SLOW: &str = "
    create table slow (seconds double precision);
    create table things (id text primary key, version bigint);
    create function wait_a_while() returns trigger language plpgsql as $$
        begin perform pg_sleep(seconds) from slow; return new; end $$;
    create trigger wait_a_while before insert or update on things
        for each row execute function wait_a_while();";
pub(crate) const THING: &str = "
    [entities.thing]
    table = 'things'
    key = ['id']
    version = 'version'
    ";
