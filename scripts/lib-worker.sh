# shellcheck shell=bash
# Owns how the scripts run keylane itself: building it, its servers, one worker in the background, waiting for outcomes.
# Whoever sources this then stands in the project's folder, and sets
#   state    a folder for pid and log        config   the settings of its example
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$project" || exit
state='' config=''

# Sets keylane: the program, built as KEYLANE_PROFILE says (dev or release).
build_keylane() {
  local profile=${KEYLANE_PROFILE:-dev}
  foreground cargo build --locked --profile "$profile" >&2
  keylane=$project/target/${profile/#dev/debug}/keylane
}

# Takes the servers of AMQP_URL and DATABASE_URL if both are given, else starts private ones below state.
use_servers() {
  if [[ -z ${AMQP_URL:-} || -z ${DATABASE_URL:-} ]]; then
    scripts/install.sh
    scripts/servers.sh start "$state/servers"
    eval "$(scripts/servers.sh env "$state/servers")"
  fi
  http=127.0.0.1:$(free_ports 1)
  export KEYLANE__AMQP__URL=$AMQP_URL KEYLANE__DATABASE__URL=$DATABASE_URL KEYLANE__HTTP__LISTEN=$http
  export KEYLANE_CONFIG=${config:?}
}

sql() { psql -X -q -v ON_ERROR_STOP=1 "$DATABASE_URL" "$@"; }
sql_value() { sql -At -c "$1"; }

start_worker() {
  launch "$state/worker.pid" "$state/worker.log" env "KEYLANE_WORKER_STATE=$state" "$keylane" "${role:-worker}"
  wait_until 60 worker_ready_or_dead "$launched" || die "the worker is not ready in time: $(tail -n 20 "$state/worker.log")"
  ! process_gone "$launched" || die "the worker does not start: $(tail -n 20 "$state/worker.log")"
}
worker_ready_or_dead() { process_gone "$1" || curl -fs -o /dev/null "http://$http/readyz"; }
worker_pid() { pid_in "$state/worker.pid" "KEYLANE_WORKER_STATE=$state"; }
stop_worker() { end_process "$state/worker.pid" "KEYLANE_WORKER_STATE=$state" "${1:-TERM}"; }

ledger_lines() { sql_value "select count(*) from keylane.ledger"; }
# wait_for_ledger LINES SECONDS
wait_for_ledger() {
  wait_until "$2" ledger_holds "$1" || die "after $2 s only $(ledger_lines) of $1 outcomes are in the ledger; see $state/worker.log"
}
ledger_holds() { (($(ledger_lines) >= $1)); }

# For scripts that leave nothing behind: a state folder that ends with the script, however it ends.
private_state() {
  state=$(mktemp -d)
  trap remove_state EXIT
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
}
remove_state() {
  local status=$?
  trap '' INT TERM
  stop_worker KILL
  scripts/servers.sh stop --wipe "$state/servers"
  rm -rf "$state"
  exit "$status"
}
