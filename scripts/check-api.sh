#!/usr/bin/env bash
# Owns the check of the API against its description, and of the descriptions themselves: OpenAPI and AsyncAPI are linted,
# and a running ingress is sent what schemathesis makes of /openapi.json. Private servers; nothing is left after.
#   KEYLANE_API_SECONDS=60 how long it may send · KEYLANE_API_SEED=1 the same requests again
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"
tools=$project/.keylane/npm/node_modules/.bin
venv=$project/.keylane/venv/bin

lint() {
  local name=$1 file=$2
  if [[ -x $tools/redocly ]]; then
    REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true "$tools/redocly" lint --config scripts/redocly.yaml \
      "$file" 2>"$state/lint" >&2 || die "$name is not as it should be: $(<"$state/lint")"
  else
    "$venv/python" -m openapi_spec_validator "$file" >&2
  fi
  echo "$name: described as it should be"
}

scripts/install.sh test
private_state
config=$project/tests/api/keylane.toml
build_keylane
use_servers
"$keylane" migrate
sql -f tests/api/tables.sql
role=run start_worker

"$keylane" openapi >"$state/general.json"
curl -fsS "http://$http/openapi.json" >"$state/openapi.json"
lint "the API in general" "$state/general.json"
lint "the API of these entities" "$state/openapi.json"
scripts/check-asyncapi.sh

cd "$state"
foreground "$venv/schemathesis" --config-file "$project/tests/api/schemathesis.toml" run \
  --url "http://$http" --phases examples,coverage,fuzzing --checks all --max-examples "${KEYLANE_API_EXAMPLES:-30}" \
  --seed "${KEYLANE_API_SEED:-1}" --workers 2 --max-time "${KEYLANE_API_SECONDS:-90}" "http://$http/openapi.json"
worker_pid >/dev/null || die "the process ended by itself: $(tail -n 20 "$state/worker.log")"
! grep -n 'ERROR\|panicked' "$state/worker.log" || die "the process logged errors"
