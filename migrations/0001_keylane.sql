-- Why: the tables that keep keylane's promise: who may write (partitions), what was decided
-- (ledger), what could not be applied (dead_letters), where keys are routed (generations).
-- Locks: none that anybody waits for, everything here is new.
-- Old binary beside it: there is none.

create schema if not exists keylane;

-- One line a write, for as long as its write id is remembered. Split by `part`, a number that
-- grows with time, so that forgetting is dropping a table and looking up touches few of them.
create table keylane.ledger (
    part        integer     not null,
    id          uuid        not null, -- first 16 bytes of the SHA-256 of entity and write id
    entity      text        not null,
    write_id    text        not null,
    key         text        not null,
    fingerprint bytea       not null, -- SHA-256 of the canonical form
    outcome     text        not null,
    effect      text,
    reason      text,
    detail      text,
    pointer     text,        -- JSON pointer to the field to blame
    version     bigint,
    applied_at  timestamptz not null,
    primary key (id, key, part)
) partition by list (part);

-- Catches what no part was made for, so that a missing part never looks like a bad write.
create table keylane.ledger_default partition of keylane.ledger default;
create table keylane.ledger_1 partition of keylane.ledger for values in (1);

create table keylane.ledger_parts (
    part      integer     primary key,
    opened_at timestamptz not null default clock_timestamp()
);
insert into keylane.ledger_parts (part) values (1);

create table keylane.dead_letters (
    id               bigint generated always as identity primary key,
    entity           text,
    key              text,
    write_id         text,
    fingerprint      bytea,
    reason           text        not null,
    detail           text,
    pointer          text,        -- JSON pointer to the field to blame
    routing_key      text        not null, -- not printable bytes as \xNN, a backslash as \\
    properties       jsonb       not null,
    body             bytea       not null,
    generation       integer     not null,
    partition        integer     not null,
    attempts         integer     not null default 1,
    dead_at          timestamptz not null default clock_timestamp(),
    state            text        not null default 'dead'
        check (state in ('dead', 'parked', 'waiting', 'replaying', 'resolved', 'discarded')),
    state_changed_at timestamptz,
    state_changed_by text,
    note             text
);
-- The same write is one dead letter however often it is delivered.
create unique index dead_letters_write on keylane.dead_letters (entity, key, write_id, fingerprint)
    where write_id is not null and entity is not null;
create index dead_letters_state on keylane.dead_letters (state, id);
create index dead_letters_key on keylane.dead_letters (entity, key);

-- Who may write: a commit under an epoch that is not the newest fails.
-- Generation 0 stands for the queues outside of any ring: partition 0 is held, 1 is dead.
create table keylane.partitions (
    generation    integer     not null,
    partition     integer     not null,
    epoch         bigint      not null,
    owner         text        not null,
    backend_pid   integer     not null,
    backend_start timestamptz not null,
    claimed_at    timestamptz not null default clock_timestamp(),
    settled_at    timestamptz,
    closed_at     timestamptz,
    primary key (generation, partition)
);

-- A ring is declared once in its life, by the worker that inserted its row.
-- planned -> bound (stored before the binding is made) -> open.
create table keylane.generations (
    generation       integer     primary key check (generation > 0),
    partitions       integer     not null check (partitions between 1 and 1000),
    state            text        not null check (state in ('planned', 'bound', 'open', 'closed')),
    broker           text        not null,
    planned_by       text        not null,
    planned_at       timestamptz not null default clock_timestamp(),
    state_changed_at timestamptz not null default clock_timestamp()
);

create table keylane.operator_actions (
    id        bigint generated always as identity primary key,
    actor     text        not null,
    action    text        not null,
    target    text        not null,
    reason    text,
    result    text        not null,
    acted_at  timestamptz not null default clock_timestamp()
);
