#!/usr/bin/env bash
# Owns a RabbitMQ 4.0 on a Debian that is too old for one: the next Debian's packages, unpacked into a folder and entered
# by chroot in a private mount namespace. No package of the system is touched and no maintainer script runs.
#   rabbitmq4.sh install                   unpacks once; the folder is shared by all instances
#   rabbitmq4.sh enter FOLDER COMMAND…     becomes COMMAND inside, as user rabbitmq, with FOLDER seen as /srv
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=trixie
tree=$project/.keylane/rabbitmq4

# The machine's own archive, whatever it is called and in whichever form its sources are written.
archive() {
  # shellcheck disable=SC2016 # apt fills these in
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
    awk 'NR == 1'
}

install() {
  local apt=$tree.apt uri
  read -r uri < <(archive) || die "apt knows no archive of Debian; run apt-get update first"
  rm -rf --one-file-system "$apt" "$tree.new"
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,etc/preferences.d,etc/apt.conf.d,state} "$tree.new"
  touch "$apt/state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$apt/etc/sources.list"
  cat >"$apt/apt.conf" <<EOF
Dir::Etc "$apt/etc"; Dir::State "$apt/state"; Dir::State::Lists "$apt/lists"; Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache"; APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";
EOF
  say "unpacking RabbitMQ 4.0 into $tree"
  export APT_CONFIG=$apt/apt.conf
  apt-get -qq update >&2
  apt-get -qq -y --download-only install rabbitmq-server base-files bash dash coreutils sed grep gawk procps hostname libc-bin >&2
  # base-files first: it brings the links that merge /bin and /lib into /usr
  dpkg -x "$apt"/cache/archives/base-files_*.deb "$tree.new"
  local package
  for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$tree.new"; done
  # mount points
  mkdir -p "$tree.new/srv"
  touch "$tree.new"/dev/{null,zero,random,urandom}
  echo '127.0.0.1 localhost' >"$tree.new/etc/hosts"
  printf 'root:x:0:0::/:/bin/sh\nrabbitmq:x:%s:%s::/srv:/bin/sh\n' "$(id -u rabbitmq)" "$(id -g rabbitmq)" >"$tree.new/etc/passwd"
  rm -rf --one-file-system "$apt"
  mv "$tree.new" "$tree"
}

# Mounts in a namespace that dies with its last process: removing the tree or FOLDER can never reach /proc or /dev.
# The user is changed inside, after chroot, so no other user needs a way through the folders above the tree.
enter() {
  local folder=$1
  shift
  # shellcheck disable=SC2016
  exec unshare -m --propagation private sh -euc '
    tree=$1 folder=$2 user=$3
    shift 3
    mount --bind /proc "$tree/proc"
    mount --bind "$folder" "$tree/srv"
    for device in null zero random urandom; do mount --bind "/dev/$device" "$tree/dev/$device"; done
    cd /
    exec chroot --userspec="$user" --groups= "$tree" "$@"' \
    sh "$tree" "$folder" "$(id -u rabbitmq):$(id -g rabbitmq)" "$@"
}

as_root || die "needs root, for chroot and mounts"
case ${1:-} in
  install)
    mkdir -p "$(dirname "$tree")"
    exec {lock}<"$(dirname "$tree")"
    flock "$lock"
    [[ -d $tree ]] || install
    ;;
  enter)
    shift
    enter "$@"
    ;;
  *)
    sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
