#!/usr/bin/env bash
# Owns `make run`: servers, a worker and the shop example, ready to play with; Ctrl-C stops everything it started.
# AMQP_URL and DATABASE_URL name other servers than private ones; KEYLANE_PROFILE=release builds the fast program.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"
caller=$PPID
state=$project/.keylane/run
config=$project/examples/shop/keylane.toml
example=examples/shop

mkdir -p "$state"
exec {lock}<"$state"
flock -w 5 "$lock" || die "it runs already; stop that one first (its folder: $state)"

follower=
clean_up() {
  local status=$?
  trap '' INT TERM
  [[ -z $follower ]] || kill "$follower" 2>/dev/null || say "the log was not followed any more"
  say "stopping the worker and the servers"
  stop_worker TERM
  scripts/servers.sh stop "$state/servers"
  exit "$status"
}
trap clean_up EXIT
trap 'interrupted 0' INT TERM

# The example's writes as a temporary table, so that SQL can say which of them have an outcome.
writes_sql() {
  cat <<EOF
create temporary table line (line text);
\\copy line from '$example/writes.ndjson' with (format csv, delimiter e'\\x01', quote e'\\x02')
create temporary view write as
  select distinct j->>'entity' as entity, j->>'key' as key, j->>'id' as write_id from (select line::jsonb as j from line) as lines;
EOF
}
writes_with_outcome() {
  { writes_sql && echo "select count(*) || '/' || (select count(*) from write) from write join keylane.ledger using (entity, key, write_id);"; } | sql -At
}
all_have_outcomes() {
  local counts
  counts=$(writes_with_outcome)
  [[ ${counts%/*} == "${counts#*/}" ]]
}

show_outcomes() {
  { writes_sql && cat <<'EOF'; } | sql
select count(*) as writes,
  case outcome
    when 'applied' then 'applied: ' || effect
    when 'precondition_failed' then 'not applied, the sender''s own condition did not hold: ' || reason
    when 'rejected' then 'rejected, kept as a dead letter: ' || reason
    else outcome
  end as "what became of them"
from write join keylane.ledger using (entity, key, write_id)
group by 2 order by 2;
select external_id, name, email, balance, tags, version, source_updated_at from customers order by external_id;
select order_number, customer_external_id, status, total, lines, version from orders order by order_number;
EOF
}

write_env() {
  cat >"$state/env" <<EOF
export KEYLANE_CONFIG=$(printf %q "$config") PATH=$(printf %q "$(dirname "$keylane")"):\$PATH
export AMQP_URL=$(printf %q "$AMQP_URL") KEYLANE__AMQP__URL=$(printf %q "$AMQP_URL")
export DATABASE_URL=$(printf %q "$DATABASE_URL") KEYLANE__DATABASE__URL=$(printf %q "$DATABASE_URL")
EOF
}

# A make that alone got a SIGINT does not pass it on: it sits in its handler, the signal blocked, and waits for us.
make_wants_to_stop() {
  local blocked
  [[ $caller_name == make ]] || return 1
  blocked=$(sed -n 's/^SigBlk:\s*//p' "/proc/$caller/status" 2>/dev/null) || return 0
  ((0x${blocked:-2} & 2))
}
caller_name=$(cat "/proc/$caller/comm")

stop_worker TERM # what an earlier run left behind when it was killed
build_keylane
use_servers {lock}<&-
"$keylane" migrate
sql -f $example/tables.sql
export KEYLANE__TELEMETRY__FORMAT=text # people read this log
: >"$state/worker.log"
role=run start_worker {lock}<&-

known=$(writes_with_outcome)
"$keylane" publish $example/writes.ndjson
wait_until 60 all_have_outcomes || die "not every write has an outcome in time; see $state/worker.log"
echo
if [[ ${known%/*} == 0 ]]; then
  echo "$(wc -l <$example/writes.ndjson) messages were published, one of them a repeat that changed nothing. What became of the writes:"
else
  echo "${known%/*} of ${known#*/} writes were known from an earlier run, so publishing them again changed nothing:"
fi
show_outcomes

write_env
cat <<EOF
Ready. Health, metrics, API: http://$http/readyz http://$http/metrics http://$http/openapi.json   In another terminal:

  source ${state#"$project"/}/env
  echo '{"entity":"customer","change":"increment","key":"CUST-4892","id":"try-1","body":{"balance":5}}' | keylane publish -
  keylane key show customer CUST-4892
  curl -X PATCH -H 'Idempotency-Key: "try-2"' -H 'Content-Type: application/json' -d '{"name":"Ada"}' http://$http/v1/customer/CUST-4892
  KEYLANE_URL=http://$http python3 examples/http/shop.py CUST-1
  keylane dead-letters list

The worker's log follows; Ctrl-C stops everything.
EOF
tail -n 0 -F --pid=$$ "$state/worker.log" {lock}<&- &
follower=$!
while worker_pid >/dev/null; do
  sleep 1 {lock}<&- &
  wait $! # a signal ends this wait at once, it would not end a sleep in the foreground
  if make_wants_to_stop; then exit 0; fi
done
die "the worker has ended by itself; see $state/worker.log"
