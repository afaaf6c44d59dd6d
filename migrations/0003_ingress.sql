-- Why: a caller asks what became of a write id without naming its key; one that rests has no line
-- in the ledger yet.
-- Locks: dead_letters takes no new lines while the index is built; it holds only what rests.
-- Old binary beside it: goes on, and does not use it.

create index dead_letters_resting on keylane.dead_letters (entity, write_id)
    where state in ('parked', 'waiting');
