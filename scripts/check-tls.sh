#!/usr/bin/env bash
# Owns the check of TLS as the chart sets it up: broker and database behind certificates of a CA of our own, both of which want
# a client certificate, and everything of keylane's served over TLS. Private servers; nothing is left after.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"

# certificate NAME EXTENSION SIGNER…: of an own key, in $certificates.
certificate() {
  local name=$1 extension=$2
  shift 2
  printf '[req]\ndistinguished_name = dn\nx509_extensions = v3\n[dn]\n[v3]\n%s\n' "$extension" >"$certificates/$name.cnf"
  openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj "/CN=$name" -config "$certificates/$name.cnf" \
    -keyout "$certificates/$name.key" -out "$certificates/$name.crt" "$@" 2>"$certificates/said" || die "$(<"$certificates/said")"
}

# The servers' folder, as servers.sh remembers it.
servers_home() { bash -c 'source "$1" && echo "$home"' _ "$state/servers/servers"; }

secure_postgres() {
  local data file
  data=$(servers_home)/postgres/data
  for file in ca.crt localhost.crt localhost.key; do
    install -m 600 --owner "$(stat -c %U "$data")" "$certificates/$file" "$data/$file"
  done
  printf '%s\n' "ssl = on" "ssl_ca_file = 'ca.crt'" "ssl_cert_file = 'localhost.crt'" "ssl_key_file = 'localhost.key'" >>"$data/postgresql.conf"
  scripts/servers.sh restart-postgres "$state/servers"
}

# refuses WHAT SAID COMMAND…: it must fail, and say so.
refuses() {
  local what=$1 expected=$2 said
  shift 2
  if said=$("$@" 2>&1); then die "$what is no failure"; fi
  grep -qi -- "$expected" <<<"$said" || die "$what fails for something else than '$expected': $said"
}

private_state
config=$project/examples/shop/keylane.toml
unset AMQP_URL DATABASE_URL
export KEYLANE_BROKER=3
build_keylane
use_servers
certificates=$state/certificates
mkdir "$certificates"
certificate ca 'basicConstraints = critical, CA:TRUE'
certificate other 'basicConstraints = critical, CA:TRUE'
by_ca=(-CA "$certificates/ca.crt" -CAkey "$certificates/ca.key")
certificate localhost $'basicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost' "${by_ca[@]}"
certificate client $'basicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth' "${by_ca[@]}"
mkdir "$state/servers/certificates"
cp "$certificates"/{ca.crt,localhost.crt,localhost.key} "$state/servers/certificates/"
secure_postgres
scripts/servers.sh secure-rabbit "$state/servers"
eval "$(scripts/servers.sh env "$state/servers")"

# What the chart sets: tls.ca, tls.broker, tls.database, tls.serving.
export SSL_CERT_FILE=$certificates/ca.crt PGSSLROOTCERT=$certificates/ca.crt PGSSLMODE=verify-full
export PGSSLCERT=$certificates/client.crt PGSSLKEY=$certificates/client.key
export KEYLANE__HTTP__TLS_CERT_FILE=$certificates/localhost.crt KEYLANE__HTTP__TLS_KEY_FILE=$certificates/localhost.key
export KEYLANE__AMQP__URL=$AMQPS_URL
export KEYLANE__AMQP__TLS_CERT_FILE=$certificates/client.crt KEYLANE__AMQP__TLS_KEY_FILE=$certificates/client.key
export KEYLANE__DATABASE__URL=${DATABASE_URL/127.0.0.1/localhost}
refuses "another CA for the database" certificate env PGSSLROOTCERT="$certificates/other.crt" SSL_CERT_FILE="$certificates/other.crt" "$keylane" migrate
refuses "a database by another name" certificate env KEYLANE__DATABASE__URL="$DATABASE_URL" "$keylane" migrate
"$keylane" migrate >/dev/null
env -u PGSSLROOTCERT -u PGSSLMODE -u PGSSLCERT -u PGSSLKEY psql -X -q "$DATABASE_URL" -f examples/shop/tables.sql
publish=("$keylane" publish "$project/examples/shop/writes.ndjson")
refuses "another CA for the broker" amqp.tls_ca_file env SSL_CERT_FILE="$certificates/other.crt" "${publish[@]}"
refuses "no certificate for the broker" "set amqp.tls_cert_file" env -u KEYLANE__AMQP__TLS_CERT_FILE -u KEYLANE__AMQP__TLS_KEY_FILE "${publish[@]}"

asks() { grep '"broker.arguments"' -A 1 <<<"$("$@" doctor --output json || true)"; }
export KEYLANE__AMQP__MANAGEMENT_URL=$KEYLANE_MANAGEMENTS_URL
asks env SSL_CERT_FILE="$certificates/other.crt" "$keylane" | grep -q skipped || die "the management API is asked by whatever authority"
launch "$state/worker.pid" "$state/worker.log" env "KEYLANE_WORKER_STATE=$state" "$keylane" run
ready() { curl -fs -o /dev/null --cacert "$certificates/ca.crt" --resolve "localhost:${http#*:}:127.0.0.1" "https://localhost:${http#*:}/readyz"; }
wait_until 60 ready || die "keylane is not ready over TLS: $(tail -n 20 "$state/worker.log")"
"${publish[@]}" >/dev/null || die "nothing could be published over TLS"
plain_sql() { env -u PGSSLROOTCERT -u PGSSLMODE -u PGSSLCERT -u PGSSLKEY psql -X -q -At "$DATABASE_URL" -c "$1"; }
applied() { (($(plain_sql 'select count(*) from keylane.ledger') > 0)); }
wait_until 30 applied || die "nothing is applied over TLS: $(tail -n 20 "$state/worker.log")"
subjects=$(plain_sql "select distinct ssl, client_dn from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'keylane %'")
[[ $subjects == 't|/CN=client' ]] || die "the database sees keylane as: $subjects"
! asks "$keylane" | grep -q skipped || die "the management API is not asked over TLS"
stop_worker TERM
say "broker, database and keylane itself speak TLS, by our own CA and with a client certificate"
