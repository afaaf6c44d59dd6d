#!/usr/bin/env bash
# Owns the demonstration of the race: many clients write the same keys, once by check-then-insert straight into the
# database, once through keylane. Counts duplicate rows and lost updates of both. CLIENTS, KEYS and WRITES may be set.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"

clients=${CLIENTS:-16} keys=${KEYS:-50} each=$((${WRITES:-2000} / ${CLIENTS:-16}))
writes=$((clients * each))
((each > 0 && keys > 0)) || die "WRITES must be at least CLIENTS, and KEYS at least 1"

private_state
config=$state/keylane.toml
unset AMQP_URL DATABASE_URL # this makes and counts tables of its own
build_keylane
use_servers
sql <<'EOF'
create table race_without (external_id text, n int);
create table race_with (external_id text primary key, n int not null default 0, version bigint not null default 0);
EOF

# What an API handler does that looks before it writes.
cat >"$state/check-then-insert.sql" <<'EOF'
\set k random(1, :keys)
select count(*) as present, coalesce(max(n), 0) as n from race_without where external_id = 'KEY-' || :k \gset
\if :present = 0
insert into race_without (external_id, n) values ('KEY-' || :k, 1);
\else
update race_without set n = :n + 1 where external_id = 'KEY-' || :k;
\endif
EOF
say "$clients clients, $writes writes, $keys keys: straight into the database …"
"$(postgres_bin)/pgbench" -n -c "$clients" -j 2 -t "$each" -D keys="$keys" -f "$state/check-then-insert.sql" "$DATABASE_URL" \
  >"$state/pgbench.log" 2>&1 || die "pgbench failed: $(tail -n 5 "$state/pgbench.log")"

cat >"$config" <<'EOF'
[entities.race_counter]
table = "public.race_with"
key = ["external_id"]
version = "version"
EOF
"$keylane" migrate
start_worker
say "… and through keylane, from $clients senders at once"
senders=()
for ((client = 1; client <= clients; client++)); do
  awk -v client="$client" -v each="$each" -v keys="$keys" 'BEGIN {
    srand(client)
    for (i = 1; i <= each; i++)
      printf "{\"entity\":\"race_counter\",\"change\":\"increment\",\"key\":\"KEY-%d\",\"id\":\"%d-%d\",\"body\":{\"n\":1}}\n",
        1 + int(rand() * keys), client, i
  }' >"$state/sender-$client.ndjson"
  "$keylane" publish "$state/sender-$client.ndjson" >>"$state/publish.log" 2>&1 &
  senders+=($!)
done
for sender in "${senders[@]}"; do wait "$sender" || die "a sender failed: $(tail -n 5 "$state/publish.log")"; done
wait_for_ledger "$writes" 120

# count_of TABLE: rows that should not be there, and updates that nobody sees any more.
count_of() {
  sql_value "select sum(copies) - count(*), $writes - sum(n) from (
    select count(*) as copies, max(n) as n from $1 group by external_id) as per_key" | tr '|' ' '
}
read -r duplicates_without lost_without < <(count_of race_without)
read -r duplicates_with lost_with < <(count_of race_with)
printf '\n%-28s %16s %14s\n' "" "duplicate rows" "lost updates"
printf '%-28s %16s %14s\n' "check, then insert or update" "$duplicates_without" "$lost_without" "through keylane" "$duplicates_with" "$lost_with"

if ((duplicates_without + lost_without == 0)); then say "the race did not show itself this time; try more CLIENTS on fewer KEYS"; fi
((duplicates_with == 0 && lost_with == 0)) || die "keylane lost or doubled something"
