#!/usr/bin/env bash
# Owns the run over a file of real writes: publish, apply, measure, compare with what must come of them.
#   flights.sh FILE      FLIGHTS_EXPECTED=FILE (default: the file's name with .expected.json)
#   FLIGHTS_TWICE=1 publishes everything twice; FLIGHTS_KILL=1 kills the worker in the middle and starts it again
set -euo pipefail
[[ -n ${1:-} ]] || {
  echo "flights.sh: which file? make flights FILE=flights.ndjson.gz" >&2
  exit 2
}
file=$(realpath -- "$1")
expected=${FLIGHTS_EXPECTED:-${file%.ndjson*}.expected.json}
[[ -z ${FLIGHTS_EXPECTED:-} ]] || expected=$(realpath -- "$expected")
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"
[[ -r $file ]] || die "cannot read $file"

now() { date +%s.%N; }
# rate COUNT FROM TO
rate() { awk -v n="$1" -v a="$2" -v b="$3" 'BEGIN { printf "%d/s (%d in %.1f s)", n / (b - a), n, b - a }'; }

# Every write of this file adds one to the version of its row, however often it is sent.
applied() { sql_value "select (select coalesce(sum(version), 0) from aircraft) + (select coalesce(sum(version), 0) from airport)"; }
has_applied() { (($(applied) >= $1)); }
queues_empty() {
  [[ $(curl -fs "$KEYLANE_MANAGEMENT_URL/api/queues?columns=messages" | grep -o '"messages":[0-9]*' | sort -u) == '"messages":0' ]]
}

private_state
config=$project/examples/flights/keylane.toml
KEYLANE_PROFILE=${KEYLANE_PROFILE:-release} build_keylane
use_servers
"$keylane" migrate
sql -f examples/flights/tables.sql
[[ $(applied) == 0 ]] || die "the tables aircraft and airport of this database hold rows already"
writes=$(zcat -f "$file" | wc -l)
start_worker

published=$writes
began=$(now)
"$keylane" publish "$file" &
publisher=$!
if [[ ${FLIGHTS_KILL:-} == 1 ]]; then
  wait_until 600 has_applied $((writes / 3)) || die "a third of the writes is not applied in time"
  say "killing the worker after $(applied) writes"
  stop_worker KILL
  start_worker
fi
wait "$publisher"
sent=$(now)
wait_until 1800 has_applied "$writes" || die "only $(applied) of $writes writes are applied"
done_at=$(now)
echo "published  $(rate "$published" "$began" "$sent")"
echo "applied    $(rate "$writes" "$began" "$done_at"), counted from the first publish"

if [[ ${FLIGHTS_TWICE:-} == 1 ]]; then
  [[ -n ${KEYLANE_MANAGEMENT_URL:-} ]] || die "FLIGHTS_TWICE needs KEYLANE_MANAGEMENT_URL: that a repeat changed nothing shows only when the queues are empty"
  began=$(now)
  "$keylane" publish "$file"
  # The broker's counts are some seconds old, so empty must hold for longer than that.
  sleep 6
  wait_until 1800 queues_empty || die "the queues are not empty in time"
  echo "published the second time and found known: $(rate "$writes" "$began" "$(now)")"
fi

sql -c "select count(*) as aircraft from aircraft" -c "select * from airport order by code"
actual_sql="select jsonb_build_object(
  'aircraft', (select count(*) from aircraft),
  'airport', (select jsonb_object_agg(code, to_jsonb(airport) - 'code') from airport),
  'aircraft_md5', (select md5(string_agg(concat(tail_number, '|', carrier, '|', last_flight, '|', last_origin, '|', last_dest, '|',
      last_dep_delay, '|', last_distance, '|', to_char(seen_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '|', version),
    e'\n' order by tail_number collate \"C\")) from aircraft))"
if ! [[ -r $expected ]]; then
  say "nothing to compare with: $expected is not there"
  exit
fi
difference=$(
  sql -At -F ' ' -v expected="$(cat "$expected")" <<EOF
select key, 'expected', e.value, 'found', a.value
from jsonb_each(:'expected'::jsonb - 'writes' - 'aircraft_md5_of') as e full join jsonb_each(($actual_sql)) as a using (key)
where e.value is distinct from a.value;
EOF
)
[[ -z $difference ]] || die "DIFFERENT from $expected: $difference"
echo "OK: as expected by $expected"
