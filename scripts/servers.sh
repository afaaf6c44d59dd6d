#!/usr/bin/env bash
# Owns private RabbitMQ and PostgreSQL servers: on loopback, unprivileged, with ports and data that belong to one folder.
#   servers.sh start|status|stop|env DIR         stop --wipe DIR also removes the data
#   servers.sh start-postgres DIR                PostgreSQL alone
#   servers.sh restart-rabbit|kill-rabbit|restart-postgres|kill-postgres DIR     same data, same ports
#   servers.sh stop-rabbit|stop-postgres DIR     until the next restart
#   servers.sh block-rabbit|unblock-rabbit DIR   an alarm that stops all publishing, and its end
#   servers.sh cut-rabbit DIR                    all its connections are closed
#   servers.sh secure-rabbit DIR                 two ports more, for TLS: AMQP, which wants a certificate of its clients, and
#                                                the management API. The broker's own are ca.crt, localhost.crt and
#                                                localhost.key in DIR/certificates
# KEYLANE_BROKER=3 (what the machine has installed) or 4 (see rabbitmq4.sh), settled at the first start of a folder;
# KEYLANE_KHEPRI=1 moves a broker 4 to its new metadata store.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"

usage() {
  sed -n '3,13s/^# *//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# --- what is remembered in DIR: where the data is, the broker's version and node name, the ports

enterable() {
  "${as_postgres[@]}" test -x "$1" && "${as_rabbitmq[@]}" test -x "$1"
}

load() {
  [[ -s $dir/servers ]] || return 1
  # shellcheck source=/dev/null
  source "$dir/servers"
  rabbit_dir=$home/rabbitmq postgres_dir=$home/postgres
  rabbit_mark=RABBITMQ_NODENAME=$node epmd_mark=ERL_EPMD_PORT=$((first_port + 3)) postgres_mark=KEYLANE_POSTGRES=$home
  amqp_port=$first_port management_port=$((first_port + 1)) dist_port=$((first_port + 2))
  epmd_port=$((first_port + 3)) postgres_port=$((first_port + 4)) amqps_port=$((first_port + 5)) managements_port=$((first_port + 6))
  enter_broker
}

remember() {
  printf '%s=%q\n' home "$home" broker "$broker" node "$node" first_port "$first_port" >"$dir/servers.new"
  mv "$dir/servers.new" "$dir/servers"
}

settle() {
  mkdir -p "$dir"
  if ! load; then
    home=$dir broker=${KEYLANE_BROKER:-3} node=keylane-$RANDOM$RANDOM@localhost first_port=$(free_ports 7)
    [[ $broker == [34] ]] || die "KEYLANE_BROKER is 3 or 4, not $broker"
    # The servers' users must reach their data, and a unix socket's path may have 107 bytes.
    if ((${#dir} > 80)) || ! enterable "$dir"; then
      home=$(mktemp -d /var/tmp/keylane.XXXXXX)
      chmod 711 "$home"
    fi
    remember
  elif [[ ${KEYLANE_BROKER:-$broker} != "$broker" ]]; then
    die "$dir holds a broker $broker; 'stop --wipe' it first"
  elif ! rabbit_pid >/dev/null && ! postgres_pid >/dev/null && ports_taken; then
    first_port=$(free_ports 7)
    remember
  fi
  load
  mkdir -p "$home" # a cleaner of temporary folders may have been there
}

ports_taken() {
  local port
  for ((port = first_port; port < first_port + 7; port++)); do
    [[ $port == "$epmd_port" ]] || ! port_open "$port" || return 0
  done
  return 1
}

rabbit_pid() { pid_in "$rabbit_dir/pid" "$rabbit_mark"; }
epmd_pid() { pid_in "$rabbit_dir/epmd.pid" "$epmd_mark"; }
postgres_pid() { pid_in "$postgres_dir/data/postmaster.pid" "$postgres_mark"; }

# --- RabbitMQ

# Sets in_broker: what stands before a command of the broker's. It gets the broker's settings and nothing of the caller's.
enter_broker() {
  seen_as=$rabbit_dir
  in_broker=("${as_rabbitmq[@]}")
  if [[ $broker == 4 ]]; then
    seen_as=/srv
    in_broker=("$here/rabbitmq4.sh" enter "$rabbit_dir")
  fi
  # RUNNING_UNDER_SYSTEMD: the start script becomes the server instead of waiting before it, so one pid is enough.
  in_broker+=(env -i PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$seen_as" LANG=C.UTF-8
    RUNNING_UNDER_SYSTEMD=true RABBITMQ_NODENAME="$node" RABBITMQ_DIST_PORT="$dist_port"
    ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
    RABBITMQ_MNESIA_BASE="$seen_as/data" RABBITMQ_LOG_BASE="$seen_as/log" RABBITMQ_PID_FILE="$seen_as/node.pid"
    RABBITMQ_CONFIG_FILE="$seen_as/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$seen_as/advanced.config"
    RABBITMQ_CONF_ENV_FILE="$seen_as/rabbitmq-env.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$seen_as/enabled_plugins"
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none")
}

configure_rabbit() {
  mkdir -p "$rabbit_dir"/{data,log}
  cat >"$rabbit_dir/rabbitmq.conf" <<EOF
listeners.tcp.1 = 127.0.0.1:$amqp_port
management.tcp.ip = 127.0.0.1
management.tcp.port = $management_port
log.file.level = warning
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 200MB
EOF
  if [[ -d $rabbit_dir/certificates ]]; then
    cat >>"$rabbit_dir/rabbitmq.conf" <<EOF
listeners.ssl.1 = 127.0.0.1:$amqps_port
ssl_options.cacertfile = $seen_as/certificates/ca.crt
ssl_options.certfile = $seen_as/certificates/localhost.crt
ssl_options.keyfile = $seen_as/certificates/localhost.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
management.ssl.ip = 127.0.0.1
management.ssl.port = $managements_port
management.ssl.cacertfile = $seen_as/certificates/ca.crt
management.ssl.certfile = $seen_as/certificates/localhost.crt
management.ssl.keyfile = $seen_as/certificates/localhost.key
EOF
  fi
  echo '[rabbitmq_consistent_hash_exchange,rabbitmq_management].' >"$rabbit_dir/enabled_plugins"
  : >"$rabbit_dir/rabbitmq-env.conf"
  if ! [[ -s $rabbit_dir/.erlang.cookie ]]; then
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$rabbit_dir/.erlang.cookie"
    chmod 400 "$rabbit_dir/.erlang.cookie"
  fi
  chmod 700 "$rabbit_dir"
  ! as_root || chown -R rabbitmq:rabbitmq "$rabbit_dir"
}

start_rabbit() {
  if rabbit_pid >/dev/null; then return; fi
  local log=$rabbit_dir/start.log launched
  configure_rabbit
  [[ $broker == 3 ]] || "$here/rabbitmq4.sh" install
  # Our own epmd: the one that a node starts by itself outlives it, and nobody knows its pid.
  if ! epmd_pid >/dev/null; then
    launch "$rabbit_dir/epmd.pid" "$log" "${as_rabbitmq[@]}" env "$epmd_mark" epmd -port "$epmd_port" -address 127.0.0.1
    wait_until 10 port_open "$epmd_port" || die "epmd does not start: $(tail -n 5 "$log")"
  fi
  launch "$rabbit_dir/pid" "$log" "${in_broker[@]}" rabbitmq-server
  wait_until 90 rabbit_ready_or_dead "$launched" || die "RabbitMQ is not ready in time: $(tail -n 20 "$log")"
  ! process_gone "$launched" || die "RabbitMQ does not start: $(tail -n 20 "$log")"
  if [[ $broker == 4 && ${KEYLANE_KHEPRI:-} == 1 ]]; then
    "${in_broker[@]}" rabbitmqctl -q enable_feature_flag --opt-in khepri_db >>"$log" 2>&1 ||
      die "the feature flag khepri_db cannot be enabled: $(tail -n 5 "$log")"
  fi
}

secure_rabbit() {
  mkdir -p "$rabbit_dir/certificates"
  cp "$dir/certificates"/{ca.crt,localhost.crt,localhost.key} "$rabbit_dir/certificates/"
  stop_rabbit TERM && start_rabbit
}

# An open port is not enough: the listener opens before the broker has finished to boot.
rabbit_ready_or_dead() {
  process_gone "$1" || { port_open "$management_port" && speaks_amqp "$amqp_port"; }
}

stop_rabbit() {
  end_process "$rabbit_dir/pid" "$rabbit_mark" "${1:-TERM}"
}

stop_epmd() { end_process "$rabbit_dir/epmd.pid" "$epmd_mark" TERM; }

# --- PostgreSQL

start_postgres() {
  if postgres_pid >/dev/null; then return; fi
  local data=$postgres_dir/data
  if ! [[ -d $data ]]; then create_cluster; fi
  # After a crash PostgreSQL may take an unreaped or a recycled pid for its living self. Without the file it would not
  # notice orphans of the crash either, so they must be gone first.
  wait_until 30 nobody_in "$data" || die "old processes of PostgreSQL are still in $data"
  rm -f "$data/postmaster.pid" "$postgres_dir"/.s.PGSQL.*
  "${as_postgres[@]}" env "$postgres_mark" "$postgres_bin/pg_ctl" -s -w -t 60 -D "$data" -l "$postgres_dir/log" \
    -o "-p $postgres_port -k $postgres_dir -c listen_addresses=127.0.0.1" start </dev/null >&2 ||
    die "PostgreSQL does not start: $(tail -n 20 "$postgres_dir/log")"
  create_database
}

nobody_in() { ! find /proc -maxdepth 2 -name cwd -lname "$1" 2>/dev/null | grep -q .; }

create_cluster() {
  mkdir -p "$postgres_dir"
  chmod 700 "$postgres_dir"
  ! as_root || chown postgres:postgres "$postgres_dir"
  rm -rf "$postgres_dir/new"
  "${as_postgres[@]}" "$postgres_bin/initdb" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync \
    -D "$postgres_dir/new" >"$postgres_dir/initdb.log" 2>&1 || die "initdb failed: $(tail -n 5 "$postgres_dir/initdb.log")"
  cat >>"$postgres_dir/new/postgresql.conf" <<EOF
max_connections = 200
fsync = on
synchronous_commit = on
log_min_messages = warning
log_line_prefix = '%m [%p] %q%u@%d '
EOF
  mv "$postgres_dir/new" "$postgres_dir/data"
}

create_database() {
  local super=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$postgres_port" -U postgres -d postgres)
  "${super[@]}" <<'EOF'
select 'create role keylane login' where not exists (select from pg_roles where rolname = 'keylane') \gexec
select 'create database keylane owner keylane' where not exists (select from pg_database where datname = 'keylane') \gexec
EOF
}

# stop_postgres SIGNAL: INT writes a checkpoint first; QUIT leaves everything as a crash would.
stop_postgres() { end_process "$postgres_dir/data/postmaster.pid" "$postgres_mark" "$1"; }

# --- both

in_parallel() {
  local job jobs=() failed=0
  for job in "$@"; do
    # shellcheck disable=SC2086 # a job is a function and its argument
    $job &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return "$failed"
}

# start JOB…: after it the ports belong to whoever listens.
start() {
  # One start at a time on this machine: ports are free until somebody listens. Any folder can be locked, /tmp is everybody's.
  local lock
  exec {lock}</tmp
  flock "$lock"
  settle
  { in_parallel "$@"; } {lock}<&-
}

stop_all() {
  in_parallel "stop_rabbit TERM" "stop_postgres INT"
  stop_epmd
}

# A graceful stop takes seconds to save what is thrown away right after.
wipe() {
  in_parallel "stop_rabbit KILL" "stop_postgres QUIT"
  stop_epmd
  rm -rf --one-file-system "${home:?}/rabbitmq" "${home:?}/postgres"
  rm -f "$dir/servers"
  [[ $home == "$dir" ]] || rmdir "$home"
}

status() {
  local name pid failed=0
  for name in rabbit postgres; do
    if pid=$("${name}_pid"); then
      echo "$name: running, pid $pid, port $([[ $name == rabbit ]] && echo "$amqp_port" || echo "$postgres_port")"
    else
      echo "$name: stopped"
      failed=1
    fi
  done
  return "$failed"
}

print_env() {
  cat <<EOF
export AMQP_URL=amqp://guest:guest@127.0.0.1:$amqp_port/%2f
export AMQPS_URL=amqps://guest:guest@localhost:$amqps_port/%2f
export DATABASE_URL=postgres://keylane@127.0.0.1:$postgres_port/keylane
export DATABASE_ADMIN_URL=postgres://postgres@127.0.0.1:$postgres_port/postgres
export KEYLANE_MANAGEMENT_URL=http://guest:guest@127.0.0.1:$management_port
export KEYLANE_MANAGEMENTS_URL=https://guest:guest@localhost:$managements_port
export KEYLANE_SERVERS_DIR=$(printf %q "$dir")
EOF
}

command=${1:-} wipe_too=
shift || usage
if [[ ${1:-} == --wipe ]]; then wipe_too=yes; shift; fi
(($# == 1)) || usage
dir=$(realpath -m -- "$1")
postgres_bin=$(postgres_bin)
as_postgres=() as_rabbitmq=()
if as_root; then
  become postgres as_postgres
  become rabbitmq as_rabbitmq
fi

case $command in
  start)
    start start_rabbit start_postgres
    exit
    ;;
  start-postgres)
    start start_postgres
    exit
    ;;
esac
if ! load; then
  [[ $command == stop ]] && exit
  die "no servers were ever started in $dir"
fi
case $command in
  status) status ;;
  env) print_env ;;
  stop)
    if [[ -n $wipe_too ]]; then wipe; else stop_all; fi
    ;;
  stop-rabbit) stop_rabbit TERM ;;
  stop-postgres) stop_postgres INT ;;
  block-rabbit) "${in_broker[@]}" rabbitmqctl -q set_vm_memory_high_watermark 0.0001 >&2 ;;
  cut-rabbit) "${in_broker[@]}" rabbitmqctl -q close_all_connections cut >&2 ;;
  unblock-rabbit) "${in_broker[@]}" rabbitmqctl -q set_vm_memory_high_watermark absolute 2GB >&2 ;;
  secure-rabbit) secure_rabbit ;;
  restart-rabbit) stop_rabbit TERM && start_rabbit ;;
  kill-rabbit) stop_rabbit KILL && start_rabbit ;;
  restart-postgres) stop_postgres INT && start_postgres ;;
  kill-postgres) stop_postgres QUIT && start_postgres ;;
  *) usage ;;
esac
