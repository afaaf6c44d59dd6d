-- The example tables of the model. `_each` is what folding must not touch: it has a check.
create table item (
    id text primary key, name text, qty integer default 5, price numeric(12,2),
    note varchar(10) not null default 'x',
    version bigint, occurred_at timestamptz, deleted_at timestamptz
);
create table item_each (like item including all, check (qty >= 0));
create table plain (
    id text primary key, name text, qty integer default 5, price numeric(12,2),
    note varchar(10) not null default 'x'
);
create table plain_each (like plain including all, check (qty >= 0));
create table park (like item including all);
create table park_each (like plain_each including all);
