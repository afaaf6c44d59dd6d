#!/usr/bin/env bash
# Owns a private cluster of three RabbitMQ nodes, and a PostgreSQL: on loopback, with ports and data that belong to one folder.
#   cluster.sh start|env DIR             stop --wipe DIR removes the data too
#   cluster.sh kill|stop-node|restart|hang|wake|cut|heal NODE DIR     NODE is 1, 2 or 3
#   cluster.sh leader QUEUE DIR          the node that leads a queue of the virtual host /
#   cluster.sh status DIR                who sees whom
# hang is SIGSTOP, wake its end; cut takes a node away from the two others while clients still reach it, heal its end.
# KEYLANE_BROKER=3 or 4 (see servers.sh), settled at the first start; a 4 has Khepri unless KEYLANE_KHEPRI=0.
# KEYLANE_PARTITION_HANDLING=pause_minority (unless said otherwise), autoheal or ignore, settled at every start of a node.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"

usage() {
  sed -n '3,9s/^# *//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

nodes=(1 2 3)
# Seconds of silence after which a node takes another one for dead; RabbitMQ's own is 60.
ticktime=8

# --- what is remembered in DIR: where the data is, the nodes' names, the ports

load() {
  [[ -s $dir/cluster ]] || return 1
  # shellcheck source=/dev/null
  source "$dir/cluster"
  epmd_port=$((first_port + 9)) epmd_mark=ERL_EPMD_PORT=$((first_port + 9))
}

settle() {
  mkdir -p "$dir"
  if ! load; then
    # The servers' user must reach its data.
    broker=${KEYLANE_BROKER:-3}
    [[ $broker == [34] ]] || die "KEYLANE_BROKER is 3 or 4, not $broker"
    home=$(mktemp -d /var/tmp/keylane.XXXXXX) base=keylane-$RANDOM$RANDOM first_port=$(free_ports 10)
    chmod 711 "$home"
    printf '%s=%q\n' home "$home" broker "$broker" base "$base" first_port "$first_port" >"$dir/cluster.new"
    mv "$dir/cluster.new" "$dir/cluster"
    load
  fi
}

name_of() { echo "$base-$1@localhost"; }
amqp_port() { echo $((first_port + $1 - 1)); }
management_port() { echo $((first_port + 2 + $1)); }
node_mark() { echo "RABBITMQ_NODENAME=$(name_of "$1")"; }
pid_of() { pid_in "$home/$1/pid" "$(node_mark "$1")"; }

# Sets in_node: what stands before a command of the broker's. It gets the node's settings and nothing of the caller's.
enter() {
  local at=$home/$1
  in_node=("${as_rabbitmq[@]}")
  if [[ $broker == 4 ]]; then
    at=/srv
    in_node=("$here/rabbitmq4.sh" enter "$home/$1")
  fi
  # RUNNING_UNDER_SYSTEMD: the start script becomes the server instead of waiting before it, so one pid is enough.
  in_node+=(env -i PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$at" LANG=C.UTF-8
    RUNNING_UNDER_SYSTEMD=true "$(node_mark "$1")" RABBITMQ_DIST_PORT=$((first_port + 5 + $1))
    ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
    RABBITMQ_MNESIA_BASE="$at/data" RABBITMQ_LOG_BASE="$at/log" RABBITMQ_PID_FILE="$at/node.pid"
    RABBITMQ_CONFIG_FILE="$at/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$at/advanced.config"
    RABBITMQ_CONF_ENV_FILE="$at/rabbitmq-env.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$at/enabled_plugins"
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none")
}

# ask NODE EXPRESSION: a node that hangs says nothing.
ask() {
  local in_node
  enter "$1"
  timeout 20 "${in_node[@]}" rabbitmqctl -q eval "$2"
}

configure() {
  local at=$home/$1 node
  mkdir -p "$at"/{data,log}
  {
    cat <<EOF
listeners.tcp.1 = 127.0.0.1:$(amqp_port "$1")
management.tcp.ip = 127.0.0.1
management.tcp.port = $(management_port "$1")
log.file.level = info
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 200MB
net_ticktime = $ticktime
cluster_partition_handling = ${KEYLANE_PARTITION_HANDLING:-pause_minority}
cluster_formation.peer_discovery_backend = classic_config
EOF
    for node in "${nodes[@]}"; do echo "cluster_formation.classic_config.nodes.$node = $(name_of "$node")"; done
  } >"$at/rabbitmq.conf"
  echo '[rabbitmq_consistent_hash_exchange,rabbitmq_management].' >"$at/enabled_plugins"
  : >"$at/rabbitmq-env.conf"
  [[ -s $home/cookie ]] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$home/cookie"
  install -m 400 "$home/cookie" "$at/.erlang.cookie"
  chmod 700 "$at"
  ! as_root || chown -R rabbitmq:rabbitmq "$at"
}

launch_node() {
  local in_node
  if pid_of "$1" >/dev/null; then return; fi
  configure "$1"
  enter "$1"
  launch "$home/$1/pid" "$home/$1/start.log" "${in_node[@]}" rabbitmq-server
}

# ready NODE: an open port is not enough, the listener opens before the broker has finished to boot.
ready() { port_open "$(management_port "$1")" && speaks_amqp "$(amqp_port "$1")"; }
await_ready() {
  wait_until 120 ready "$1" || die "node $1 is not ready in time: $(tail -n 20 "$home/$1/start.log")"
}
together() {
  [[ $(ask "$1" 'length(rabbit_nodes:all_running()).' 2>/dev/null) == "${#nodes[@]}" ]]
}

start() {
  local lock node
  "$here/servers.sh" start-postgres "$dir/database"
  [[ ${KEYLANE_BROKER:-3} == 3 ]] || "$here/rabbitmq4.sh" install
  # One start at a time on this machine: ports are free until somebody listens.
  exec {lock}</tmp
  flock "$lock"
  settle
  {
    mkdir -p "$home"
    # Our own epmd: the one that a node starts by itself outlives it, and nobody knows its pid.
    if ! pid_in "$home/epmd.pid" "$epmd_mark" >/dev/null; then
      launch "$home/epmd.pid" "$home/epmd.log" "${as_rabbitmq[@]}" env "$epmd_mark" epmd -port "$epmd_port" -address 127.0.0.1
      wait_until 10 port_open "$epmd_port" || die "epmd does not start: $(tail -n 5 "$home/epmd.log")"
    fi
    for node in "${nodes[@]}"; do launch_node "$node"; done
    for node in "${nodes[@]}"; do await_ready "$node"; done
  } {lock}<&-
  wait_until 60 together 1 || die "the nodes do not find each other: $(ask 1 'rabbit_nodes:all_running().' 2>&1)"
  if [[ $broker == 4 && ${KEYLANE_KHEPRI:-1} == 1 ]]; then
    local in_node
    enter 1
    "${in_node[@]}" rabbitmqctl -q enable_feature_flag --opt-in khepri_db >&2 || die "the feature flag khepri_db cannot be enabled"
  fi
}

end_node() {
  local pid
  # A hung process takes no signal but SIGKILL.
  if pid=$(pid_of "$1"); then kill -CONT "$pid" 2>/dev/null || true; fi
  end_process "$home/$1/pid" "$(node_mark "$1")" "$2"
}

wipe() {
  local node
  for node in "${nodes[@]}"; do end_node "$node" KILL; done
  end_process "$home/epmd.pid" "$epmd_mark" TERM
  "$here/servers.sh" stop --wipe "$dir/database"
  rm -rf --one-file-system "${home:?}"
  rm -f "$dir/cluster"
}

signal() {
  local pid
  pid=$(pid_of "$1") || die "node $1 does not run"
  kill "-$2" "$pid"
}

# with_others NODE EXPRESSION: for each other node N. One side with another cookie is enough for no handshake to succeed.
with_others() {
  local node others=()
  for node in "${nodes[@]}"; do [[ $node == "$1" ]] || others+=("'$(name_of "$node")'"); done
  ask "$1" "[begin $2 end || N <- [${others[0]}, ${others[1]}]]." >&2
}
cut() { with_others "$1" 'erlang:set_cookie(N, cut), erlang:disconnect_node(N)'; }
heal() { with_others "$1" 'erlang:set_cookie(N, erlang:get_cookie()), net_adm:ping(N)'; }

# leader QUEUE: as the first node that answers knows it.
leader() {
  local node answer
  for node in "${nodes[@]}"; do
    if answer=$(ask "$node" "ra_leaderboard:lookup_leader('%2F_$1').") && [[ $answer =~ -([123])@localhost ]]; then
      echo "${BASH_REMATCH[1]}"
      return
    fi
  done
  die "no node knows who leads $1"
}

status() {
  local node
  for node in "${nodes[@]}"; do
    echo "$node: $(ask "$node" 'rabbit_nodes:all_running().' 2>&1 | tr -d '\n ')"
  done
}

print_env() {
  local node
  "$here/servers.sh" env "$dir/database" | grep DATABASE
  for node in "${nodes[@]}"; do
    echo "export AMQP_URL_$node=amqp://guest:guest@127.0.0.1:$(amqp_port "$node")/%2f"
  done
}

command=${1:-} wipe_too=
shift || usage
if [[ ${1:-} == --wipe ]]; then wipe_too=yes; shift; fi
(($# > 0)) || usage
dir=$(realpath -m -- "${*: -1}")
as_rabbitmq=()
if as_root; then become rabbitmq as_rabbitmq; fi

if [[ $command == start ]]; then
  start
  exit
fi
if ! load; then
  [[ $command == stop ]] || die "no cluster was ever started in $dir"
  "$here/servers.sh" stop --wipe "$dir/database"
  exit
fi
case $command:$# in
  env:1) print_env ;;
  status:1) status ;;
  stop:1) [[ -n $wipe_too ]] || usage; wipe ;;
  kill:2) end_node "$1" KILL ;;
  stop-node:2) end_node "$1" TERM ;;
  restart:2) launch_node "$1" && await_ready "$1" ;;
  hang:2) signal "$1" STOP ;;
  wake:2) signal "$1" CONT ;;
  cut:2) cut "$1" ;;
  heal:2) heal "$1" ;;
  leader:2) leader "$1" ;;
  *) usage ;;
esac
