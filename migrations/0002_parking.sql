-- Why: a key's order outlives a rejection: keys that stand still (parked_keys), what operators
-- ask for and did (replays, revisions, actions), and which keys are busy (hot_keys).
-- Locks: exclusive on dead_letters and operator_actions for a moment (constant defaults, nothing
-- is rewritten); dead_letters takes no new lines while its indexes are built.
-- Old binary beside it: it does not know of keys that stand still, so stop workers of an older
-- version before the first one of this version starts.

-- A key is here while its writes must not be applied as they come: something rests before them,
-- an operator paused it, or an operator's request is to be served first.
create table keylane.parked_keys (
    entity        text        not null,
    key           text        not null,
    generation    integer     not null, -- with partition: the lane that looks at it
    partition     integer     not null,
    resting       integer     not null default 0, -- dead letters of the key that are parked or waiting
    paused        boolean     not null default false,
    waits_for     text        check (waits_for in ('parent', 'lock')), -- tried again by itself
    waiting_since timestamptz,
    tries         integer     not null default 0,
    blocker       text,        -- who holds the lock, as far as the server tells
    due_at        timestamptz, -- when its lane looks at it; null: when somebody asks
    woken_at      timestamptz, -- when a worker last sent a control message because nobody looked
    parked_at     timestamptz not null default clock_timestamp(),
    primary key (entity, key)
);
create index parked_keys_due on keylane.parked_keys (generation, partition, due_at)
    where due_at is not null;
create index parked_keys_key on keylane.parked_keys (key);
create index parked_keys_locked on keylane.parked_keys (generation, partition)
    where waits_for = 'lock';

alter table keylane.dead_letters
    add column stops    boolean not null default false, -- its key stands still behind it
    add column revision integer not null default 0,     -- how often it was edited
    add column result   jsonb;                          -- the outcome that replaced the rejection

-- The line of a key: what its lane takes, in this order, up to the first that stops it.
create index dead_letters_line on keylane.dead_letters (entity, key, id)
    where state in ('parked', 'waiting', 'replaying') or (state = 'dead' and stops);
-- The same write is one open dead letter however often it is delivered. A closed one hides nothing:
-- once the ledger has forgotten the write, it is a new write, and may have to rest.
drop index keylane.dead_letters_write;
create unique index dead_letters_write on keylane.dead_letters (entity, key, write_id, fingerprint)
    where write_id is not null and entity is not null
      and state in ('dead', 'parked', 'waiting', 'replaying');
drop index keylane.dead_letters_key;
create index dead_letters_key on keylane.dead_letters (entity, key, write_id);
-- What is open, counted without reading a body.
create index dead_letters_open on keylane.dead_letters (entity, reason, state, dead_at)
    where state in ('dead', 'parked', 'waiting', 'replaying');

-- What a dead letter was before an operator edited it.
create table keylane.dead_letter_revisions (
    dead_letter bigint      not null references keylane.dead_letters (id) on delete cascade,
    revision    integer     not null, -- 0 is what the sender sent
    properties  jsonb       not null,
    body        bytea       not null,
    replaced_at timestamptz not null default clock_timestamp(),
    replaced_by text        not null,
    reason      text        not null,
    primary key (dead_letter, revision)
);

-- One run of `dead-letters replay`: its set is frozen when it starts.
create table keylane.replays (
    id         bigint generated always as identity primary key,
    actor      text        not null,
    filter     jsonb       not null,
    state      text        not null default 'running'
        check (state in ('running', 'stopped', 'done')),
    total      bigint      not null default 0,
    note       text,        -- why it stopped
    started_at timestamptz not null default clock_timestamp(),
    ended_at   timestamptz
);
create table keylane.replay_letters (
    replay      bigint not null references keylane.replays (id) on delete cascade,
    dead_letter bigint not null,
    reason      text   not null, -- why it was dead when the set was frozen
    state       text   not null default 'waiting'
        check (state in ('waiting', 'requested', 'done', 'skipped')),
    result      jsonb,
    primary key (replay, dead_letter)
);
create index replay_letters_open on keylane.replay_letters (replay, dead_letter)
    where state in ('waiting', 'requested');

-- The busiest keys of the last minutes, as each worker saw them.
create table keylane.hot_keys (
    worker     text        not null,
    entity     text        not null,
    key        text        not null,
    writes     bigint      not null, -- within the last minutes, at most so many
    counted_at timestamptz not null default clock_timestamp(),
    primary key (worker, entity, key)
);

alter table keylane.operator_actions
    add column filter jsonb,  -- what was asked for, where it was more than one thing
    add column count  bigint; -- how many things were touched
create index operator_actions_acted_at on keylane.operator_actions (acted_at);
