#!/usr/bin/env bash
# Owns one run of the tests: fresh private servers before, nothing left after, however it ends.
# Arguments go to cargo nextest: scripts/test.sh -E 'test(fence)'. KEYLANE_BROKER=4 runs them against RabbitMQ 4.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$project"
export PATH=$project/.keylane/venv/bin:$PATH # python3 with pika; cargo-nextest where the machine has none
export RUST_BACKTRACE=0 # what a test says when it fails comes last, not the runtime's frames

state=$(mktemp -d)
clean_up() {
  trap '' INT TERM
  scripts/servers.sh stop --wipe "$state"
  rm -rf "$state"
}
trap clean_up EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

scripts/servers.sh start "$state"
eval "$(scripts/servers.sh env "$state")"
foreground cargo nextest run --locked "$@"
# A choice of tests is a choice of tests.
(($# > 0)) || foreground scripts/check-api.sh
