-- The shop's own tables. keylane writes their rows and never changes their definition.
set client_min_messages = warning;

create table if not exists public.customers (
    id                bigint        generated always as identity primary key,
    external_id       text          not null unique,
    name              text,
    email             text,
    balance           numeric(12,2) not null default 0,
    tags              text[],
    created_at        timestamptz   default now(),
    version           bigint        not null default 0,
    source_updated_at timestamptz
);

create table if not exists public.orders (
    order_number         text          primary key,
    customer_external_id text,
    status               text,
    total                numeric(12,2),
    lines                jsonb,
    version              bigint        not null default 0
);
