#!/usr/bin/env bash
# Owns the check of the API against its description, and of the descriptions themselves: OpenAPI and AsyncAPI are linted,
# and a running ingress is sent what schemathesis makes of its /openapi.json. Private servers; nothing is left after.
#   KEYLANE_API_SECONDS=45 how long it may send at most · KEYLANE_API_SEED=1 the same requests again
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"
npm=$project/.keylane/npm
schemathesis=$project/.keylane/venv/bin/schemathesis

lint_openapi() {
  REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true "$npm/node_modules/.bin/redocly" lint \
    --config tests/api/redocly.yaml "$1" >"$state/lint" 2>&1 || die "$2 is not as it should be: $(<"$state/lint")"
}

scripts/install.sh test
private_state
config=$project/tests/api/keylane.toml
build_keylane
unset AMQP_URL DATABASE_URL # what it sends is for nobody's servers
use_servers
"$keylane" migrate
sql -f tests/api/tables.sql
token=$(openssl rand -hex 32)
printf '[[tokens]]\nname = "check"\nsha256 = "%s"\nscopes = ["write", "read"]\n' \
  "$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)" >"$state/tokens.toml"
export KEYLANE__HTTP__TOKENS_FILE=$state/tokens.toml
role=run start_worker

"$keylane" openapi >"$state/general.json"
curl -fsS "http://$http/openapi.json" >"$state/openapi.json"
lint_openapi "$state/general.json" "the API in general"
lint_openapi "$state/openapi.json" "the API of these entities"
node tests/api/asyncapi.mjs docs/asyncapi.yaml || die "docs/asyncapi.yaml is not as it should be"
say "OpenAPI and AsyncAPI are described as they should be"
grep -qx "  version: $("$keylane" --version | cut -d ' ' -f 2)" docs/asyncapi.yaml || die "docs/asyncapi.yaml is of another version"

# One worker: Python 3.11 has a fault in its compiler that two threads of schemathesis run into.
export PYTHONPATH=$project/tests/api KEYLANE_API_TOKEN=$token
foreground env -C "$state" "$schemathesis" --config-file "$project/tests/api/schemathesis.toml" run --url "http://$http" \
  --phases examples,coverage,fuzzing --max-examples 15 --seed "${KEYLANE_API_SEED:-1}" --workers 1 \
  --max-time "${KEYLANE_API_SECONDS:-45}" "http://$http/openapi.json"
worker_pid >/dev/null || die "the process ended by itself: $(tail -n 20 "$state/worker.log")"
