-- Why: rings come and go, and each key keeps its order: the line of turns says which source is
-- consumed, and markers in the queues say where a turn ends.
-- Locks: keylane.generations and keylane.dead_letters, for a moment; nothing of the user's.
-- Old binary beside it: must be stopped before. It knows of no turns, and would apply a ring's
-- writes before those that wait in front of them.

do $$
begin
    if (select count(*) from keylane.generations where state = 'open') > 1 then
        raise exception 'more than one generation is open, and nobody knows their order'
            using hint = 'let the workers of the old version empty the queues of the older ones, '
                'then: update keylane.generations set state = ''closed'' where generation < '
                '(select max(generation) from keylane.generations)';
    end if;
end $$;

-- A source of writes in the line: the first that is not closed is consumed, the last one receives.
create table keylane.turns (
    turn       bigint      primary key check (turn > 0),
    generation integer     not null, -- 0: held
    marker     uuid,                 -- which markers are, or will be, its end
    began_at   timestamptz not null default clock_timestamp(),
    ended_at   timestamptz,          -- these markers count; the next turn stands behind it
    closed_at  timestamptz           -- all that was before them is committed
);
create index turns_not_closed on keylane.turns (turn) where closed_at is null;
create unique index turns_generation on keylane.turns (generation) where generation > 0;

-- planned -> declared -> open (it has a turn) -> closed (its turn is over, or never came) ->
-- deleted (its queues are gone).
alter table keylane.generations drop constraint generations_state_check;
update keylane.generations set state = 'closed' where state in ('planned', 'bound');
alter table keylane.generations add constraint generations_state_check
    check (state in ('planned', 'declared', 'open', 'closed', 'deleted'));
-- The last marker of its queues: behind it nothing comes any more.
alter table keylane.generations add column farewell uuid;
alter table keylane.partitions add column emptied_at timestamptz;

insert into keylane.turns (turn, generation)
select 1, generation from keylane.generations where state = 'open';

-- One row: where writes are routed, as somebody wants it, and who sees to it just now.
create table keylane.routing (
    single       boolean     primary key default true check (single),
    broker       text        not null, -- virtual host and prefix
    partitions   integer     not null check (partitions between 1 and 1000),
    abandoned    integer,             -- a generation that is gone for good, with all that was in it
    roller       text,
    roller_until timestamptz
);
insert into keylane.routing (broker, partitions)
select broker, partitions from keylane.generations where state = 'open';

-- A message that is no write has no name to be known by. It may come twice (again after a lost
-- acknowledgement, or by two sources while routing changes), and is one open dead letter all the
-- same: SHA-256 of all that its sender made of it.
alter table keylane.dead_letters add column digest bytea;
create unique index dead_letters_digest on keylane.dead_letters (digest)
    where digest is not null and state in ('dead', 'replaying');
