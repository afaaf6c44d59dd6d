# shellcheck shell=bash
# Owns what the project's scripts share: talking, waiting, free ports, and processes known by more than their number.

# shellcheck disable=SC2034 # for those who source this
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() {
  say "${0##*/}: $*"
  exit 1
}
as_root() { [[ $EUID == 0 ]]; }

# become USER ARRAY: sets ARRAY to the words that make a command run as USER; servers refuse to be root.
become() {
  local -n words=$2
  # shellcheck disable=SC2034 # the caller's array
  words=(setpriv "--reuid=$1" "--regid=$(id -g "$1")" --init-groups --)
}

# wait_until SECONDS COMMAND…: polls, so that nobody waits longer than it takes.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# speaks_amqp PORT: an open port is not enough, a broker opens it before it has finished to boot.
speaks_amqp() {
  local first_byte=
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'AMQP\0\0\011\001' >&3 && IFS= read -r -t 2 -N 1 first_byte <&3
    exec 3>&-
  } 2>/dev/null
  [[ $first_byte == $'\001' ]]
}

# free_ports COUNT: the first of COUNT neighbouring free ports, below those the kernel gives to outgoing connections.
free_ports() {
  local first port
  while :; do
    first=$((10000 + RANDOM % 2200 * 10))
    for ((port = first; port < first + $1; port++)); do
      if port_open "$port"; then continue 2; fi
    done
    echo "$first"
    return
  done
}

# launch PIDFILE LOG COMMAND…: in a session of its own, so that Ctrl-C at a terminal does not reach it.
launch() {
  local pid_file=$1 log=$2
  shift 2
  # shellcheck disable=SC2016
  setsid bash -c 'echo $$ >"$0"; exec "$@"' "$pid_file" "$@" </dev/null >>"$log" 2>&1 &
  # shellcheck disable=SC2034 # for those who wait
  launched=$!
  disown "$launched" # else bash talks about its death
}

# foreground COMMAND…: bash would hold a signal back until a real foreground command ends, a build for example.
child=
foreground() {
  "$@" &
  child=$!
  wait "$child"
  child=
}
# interrupted STATUS: for traps; ends what foreground runs, then the script.
interrupted() {
  trap '' INT TERM
  if [[ -n $child ]] && kill -TERM "$child" 2>/dev/null; then wait "$child" || say "interrupted"; fi
  exit "$1"
}

# pid_in FILE MARK: the process id in FILE, if that process carries MARK in its environment.
# After a crash or a reboot the number alone may belong to somebody else.
pid_in() {
  local pid
  [[ -s $1 ]] && read -r pid <"$1" && grep -qzxF -- "$2" "/proc/$pid/environ" 2>/dev/null && echo "$pid"
}

# end_process FILE MARK SIGNAL: asks with SIGNAL, insists after a minute, returns when the process is gone.
end_process() {
  local pid
  if pid=$(pid_in "$1" "$2"); then
    kill "-$3" "$pid" 2>/dev/null || return 0
    if ! wait_until 60 process_gone "$pid"; then
      say "process $pid did not stop in time and is killed"
      kill -KILL "$pid" 2>/dev/null || return 0
      wait_until 10 process_gone "$pid"
    fi
  fi
}
# A zombie is gone too: its parent may be somebody who never reaps it.
process_gone() { ! [[ -e /proc/$1/stat ]] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

postgres_bin() {
  local newest
  newest=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  if [[ -n $newest ]]; then echo "$newest"; else pg_config --bindir; fi
}
