-- Tables for the check of the API against its description: every type of column, a composite key, every guard and none.
set client_min_messages = warning;

create type public.mood as enum ('calm', 'cross');

create table public.customers (
    external_id       varchar(40)   primary key,
    name              text,
    email             varchar(80),
    points            integer       not null default 0,
    balance           numeric(12,2) not null default 0 check (balance > -1000000),
    tags              text[],
    version           bigint        not null default 0,
    source_updated_at timestamptz,
    deleted_at        timestamptz
);

create table public.order_lines (
    order_number text    not null,
    line         integer not null,
    sku          uuid,
    quantity     bigint  not null default 1,
    version      bigint,
    primary key (order_number, line)
);

-- No version, no time: nothing that a guard could look at.
create table public.samples (
    id        uuid primary key,
    small     smallint,
    ratio     double precision,
    thin      real,
    anything  numeric,
    flag      boolean,
    on_day    date,
    at_time   time,
    at_moment timestamp,
    with_zone timestamptz,
    document  jsonb,
    verbatim  json,
    bytes     bytea,
    mood      public.mood,
    address   inet,
    matrix    integer[]
);
