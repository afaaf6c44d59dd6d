-- The tables that the stream of flights is written to.
set client_min_messages = warning;

create table if not exists public.aircraft (
    tail_number    text primary key,
    carrier        text,
    last_flight    text,
    last_origin    text,
    last_dest      text,
    last_dep_delay integer,
    last_distance  integer,
    seen_at        timestamptz,
    version        bigint not null default 0
);

create table if not exists public.airport (
    code          text   primary key,
    departures    bigint not null default 0,
    delay_minutes bigint not null default 0,
    version       bigint not null default 0
);
