#!/usr/bin/env bash
# Owns `make bench`: the release program against fresh private servers, which are gone afterwards, however it ends.
# MESSAGES=200000 sets how many messages each part gets, ONLY=null,uniform the parts (see benches/throughput/main.rs);
# HTTP_REQUESTS=1000000 watches the memory over so many requests (with ONLY=memory nothing else); KEYLANE_BROKER=4 measures with RabbitMQ 4.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$project"

cargo bench --locked --no-run

state=$(mktemp -d)
clean_up() {
  trap '' INT TERM
  scripts/servers.sh stop --wipe "$state"
  rm -rf "$state"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scripts/servers.sh start "$state"
eval "$(scripts/servers.sh env "$state")"
PGBENCH=$(postgres_bin)/pgbench
export PGBENCH
cargo bench --locked --bench throughput
