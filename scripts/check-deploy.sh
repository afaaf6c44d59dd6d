#!/usr/bin/env bash
# Owns the check of everything in deploy/: chart, image's recipe, alerts, dashboard, and what is linked. Without a cluster.
#   check-deploy.sh            all of it, against a running keylane too; then breaks copies, to see that each break is noticed
#   check-deploy.sh PART…      chart, recipe, manifests, refusals, policies, metrics, supply
# A copy, where something is broken on purpose, is KEYLANE_DEPLOY_ROOT, checked with the values of KEYLANE_DEPLOY_ONLY.
set -euo pipefail
shopt -s nullglob
source "$(dirname "${BASH_SOURCE[0]}")/lib-worker.sh"
tools=$project/.keylane/deploy
root=${KEYLANE_DEPLOY_ROOT:-$project} only=${KEYLANE_DEPLOY_ONLY:-*}
export PATH=$tools/venv/bin:$PATH
helm4=$tools/35/helm/helm helm3=$tools/32/helm/helm
chart=$root/deploy/chart cases=$root/tests/deploy
# Helm keeps what it downloads in the user's folders; it downloads nothing here.
export HELM_CONFIG_HOME=$tools/helm HELM_CACHE_HOME=$tools/helm HELM_DATA_HOME=$tools/helm

# quietly WHAT COMMAND…: the output only if it fails.
quietly() {
  local what=$1
  shift
  "$@" >"$state/said" 2>&1 || die "$what: $(tail -n 40 "$state/said")"
}

render() { # HELM VALUES
  "$1" template keylane "$chart" --namespace shop --values "$2"
}

check_chart() {
  quietly "the chart" "$helm4" lint --strict "$chart"
  quietly "the chart, by Helm 3" "$helm3" lint --strict "$chart"
  quietly "YAML" yamllint --strict --config-file "$cases/yamllint.yaml" "$cases" "$chart/Chart.yaml" "$chart/values.yaml" \
    "$chart/files" "$root/deploy/examples" "$root/deploy/compose.yaml"
  quietly "appVersion is not the version of Cargo.toml" grep -qx "appVersion: \"$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)\"" "$chart/Chart.yaml"
}

check_recipe() {
  quietly "the image's recipe" scripts/recipe.sh "$root" "$state/recipe"
}

render_all() {
  local values name
  mkdir -p "$state/rendered"
  if [[ $only == '*' ]]; then
    # What the guide tells to write is tried as it stands there.
    sed -n '/^   ```yaml$/,/^   ```$/{/```/d;s/^   //p}' docs/KUBERNETES.md >"$state/guide.yaml"
    grep -q '^config:' "$state/guide.yaml" || die "docs/KUBERNETES.md has no values"
    quietly "the guide's values" render "$helm4" "$state/guide.yaml"
    mv "$state/said" "$state/rendered/guide.yaml"
  fi
  for values in "$cases"/values/$only.yaml "$root"/deploy/examples/values-${only#values-}.yaml; do
    [[ -e $values ]] || continue
    name=$(basename "$values")
    quietly "$name" render "$helm4" "$values"
    mv "$state/said" "$state/rendered/$name"
    [[ $only != '*' ]] || render "$helm3" "$values" | cmp - "$state/rendered/$name" || die "$name: Helm 3 renders something else"
  done
}

check_manifests() {
  render_all
  quietly "rendered" python3 "$root/tests/deploy/manifests.py" "$state"/rendered/*.yaml
}

check_refusals() {
  refuses "$helm4"
  refuses "$helm3"
}

# Values that cannot be are refused, and for the right reason.
refuses() {
  local set reason said
  "$1" template keylane "$chart" --namespace shop >/dev/null || die "no values at all are refused"
  while IFS=$'\t' read -r set reason; do
    if said=$("$1" template keylane "$chart" --set "$set" 2>&1); then die "these values are not refused: $set"; fi
    grep -qF -- "$reason" <<<"$said" || die "$set is refused for something else than '$reason': $said"
  done <"$cases/refused.tsv"
}

check_policies() {
  [[ -d $state/rendered ]] || render_all
  quietly "policies" checkov --skip-download --quiet --compact --config-file "$cases/checkov.yaml" \
    --framework kubernetes --directory "$state/rendered"
  quietly "policies" checkov --skip-download --quiet --compact --framework dockerfile --skip-check CKV_DOCKER_2 \
    --file "$root/deploy/Dockerfile" # CKV_DOCKER_2: probes are the chart's, the image has no program to ask itself with
  quietly "the image's recipe" hadolint "$root/deploy/Dockerfile"
}

check_metrics() {
  cp "$chart/files/alerts.yaml" "$state/alerts.yaml"
  cp "$cases/alerts.yaml" "$state/alerts-test.yaml"
  quietly "alerts" promtool check rules "$state/alerts.yaml"
  quietly "alerts" promtool test rules "$state/alerts-test.yaml"
  python3 "$root/tests/deploy/metrics.py" "$root" "$state"/rendered/*.yaml >"$state/expressions.yaml" || exit 1
  quietly "expressions" promtool check rules "$state/expressions.yaml"
}

check_supply() {
  quietly "what is linked" cargo deny --locked check bans licenses sources
  quietly "unused dependencies" cargo shear --locked
  SOURCE_DATE_EPOCH=1 scripts/sbom.py >"$state/keylane.spdx.json"
  SOURCE_DATE_EPOCH=1 scripts/sbom.py | cmp - "$state/keylane.spdx.json" || die "the bill of materials is another one each time"
  quietly "the bill of materials" pyspdxtools --infile "$state/keylane.spdx.json"
}

# A process with the very settings of the chart: it takes them, serves the probes, and Prometheus reads its page.
check_running() {
  local rendered
  unset AMQP_URL DATABASE_URL
  config=$project/examples/shop/keylane.toml
  use_servers
  for rendered in none run everything; do
    python3 "$cases/config_of.py" "$state/rendered/$rendered.yaml" "$state" >"$state/$rendered.toml"
    env -u KEYLANE__AMQP__URL -u KEYLANE__DATABASE__URL -u KEYLANE__HTTP__LISTEN \
      "$keylane" --config "$state/$rendered.toml" settings >"$state/said" 2>&1 || die "keylane refuses the settings of $rendered.yaml: $(<"$state/said")"
  done
  "$keylane" migrate >/dev/null
  sql -f examples/shop/tables.sql >/dev/null
  role=run start_worker
  local path
  while read -r path; do
    quietly "$path, which a probe or a monitor asks" curl -fsS "http://$http$path"
  done < <(sed -n 's/^ *path: \(\/[a-z]*\)$/\1/p' "$state"/rendered/*.yaml | sort -u)
  curl -fsS "http://$http/metrics" >"$state/page"
  quietly "the page of metrics" promtool check metrics <"$state/page"
  stop_worker TERM
}

# broken WHAT FILE SED EXPECTED PART [VALUES]: breaks a copy, and wants that part of the check to say so.
broken() {
  local copy=$state/broken said
  rm -rf "$copy"
  mkdir -p "$copy/docs"
  cp -r Cargo.toml Cargo.lock deploy migrations src tests/ "$copy/" && cp docs/{PROBLEMS,RUNBOOK}.md "$copy/docs/"
  sed -i "$3" "$copy/$2"
  ! cmp -s "$2" "$copy/$2" || die "$1: the copy is not broken at all"
  if said=$(KEYLANE_DEPLOY_ROOT=$copy KEYLANE_DEPLOY_ONLY=${6:-none} scripts/check-deploy.sh "$5" 2>&1); then die "nobody notices: $1"; fi
  grep -qF -- "$4" <<<"$said" || die "$1 is noticed for something else than '$4': $said"
}

# shellcheck disable=SC2016 # they are sed's
check_check() {
  local templates=deploy/chart/templates files=deploy/chart/files
  local pod=$templates/_pod.tpl workloads=$templates/workloads.yaml monitoring=$templates/monitoring.yaml
  broken "a document that the recipe does not copy" deploy/Dockerfile '/^COPY docs/d' "code reads docs/PROBLEMS.md" recipe
  broken "migrations that are not sent to the build" deploy/Dockerfile.dockerignore '/migrations/d' "copies migrations" recipe
  broken "a target without its file" Cargo.toml '/^path = "benches/d' "the manifest wants more" recipe
  broken "a template that does not end" $workloads '0,/{{- end }}/s///' workloads.yaml chart
  broken "a misspelt field" $workloads 's/revisionHistoryLimit/revisionHistoryLimits/' revisionHistoryLimits manifests
  broken "a user that is root" $pod 's/runAsUser: 65532/runAsUser: 0/' "not root" manifests
  broken "a container that may become root" $pod 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' "no way to more rights" manifests
  broken "a budget that selects nobody" $workloads '/kind: PodDisruptionBudget/,$s/keylane.selector" $labels/keylane.labels" $labels/' "selects by name" manifests
  broken "no time to drain" $workloads 's/add $pause $drain/add $pause/' "time to drain" manifests
  broken "a partition in no shard" $workloads 's/untilStep (int .shard)/untilStep (int 1)/' "every partition" manifests shards
  broken "metadata that is no text" $templates/keda.yaml 's/pageSize: "500"/pageSize: 500/' pageSize manifests keda
  broken "a field that KEDA does not know" $templates/keda.yaml 's/cooldownPeriod/coolDownPeriod/' coolDownPeriod manifests keda
  broken "a migration that comes too late" $templates/migrate.yaml 's/pre-install,pre-upgrade/post-install/' "before everything else" manifests
  broken "a migration that does something else" $templates/migrate.yaml 's/args: .migrate./args: [doctor]/' "the migration migrates" manifests
  broken "an old pod that goes first" $workloads 's/maxSurge: 1, maxUnavailable: 0/maxSurge: 0, maxUnavailable: 1/' "stands by" manifests
  broken "a Service that leads nowhere" $workloads 's/targetPort: http/targetPort: web/' "leads to the port" manifests
  broken "a budget that lets nobody go" $workloads 's/maxUnavailable: {{.*/maxUnavailable: 0/' "lets somebody go" manifests
  broken "a network without names" $templates/networkpolicy.yaml 's/port: 53, protocol: UDP/port: 53, protocol: TCP/' "ask DNS" manifests
  broken "a service account with a token" $templates/config.yaml 's/automountServiceAccountToken: false/automountServiceAccountToken: true/' "no token" manifests
  broken "a monitor that finds nothing" $monitoring 's/instance: {{ .Release.Name | quote }}/instance: monitor/' "finds every Service" manifests ingress
  broken "a monitor that asks elsewhere" $monitoring 's/port: http/port: metrics/' "asks the port" manifests ingress
  broken "a dashboard without panels" $files/dashboard.json 's/"panels"/"rows"/' "panels" manifests ingress
  broken "a missed worker where there is none" $monitoring 's/eq .Values.mode "ingress"/eq .Values.mode "none"/' "nobody is missed" manifests ingress
  broken "a missed worker where none must run" $monitoring 's/minReplicas) 0/minReplicas) 1/' "nobody is missed" manifests keda-zero
  broken "a worker that is missed anywhere" $monitoring 's/replace "absent(keylane_partitions_held)" $here/replace "a" "a"/' "a worker is missed here" manifests values-shop
  broken "no budgets" deploy/chart/values.yaml '/^podDisruptionBudget/,/max/s/enabled: true/enabled: false/' "the kinds" manifests
  broken "pods on one node" deploy/chart/values.yaml '/^topologySpread/,/when/s/enabled: true/enabled: false/' "spread" manifests
  broken "a secret under another name" $pod 's/path: amqp-url/path: amqp/' "what is mounted is read" manifests
  broken "a scaler that counts what is held" $templates/keda.yaml 's/\[.\]\[0-9\]+\[.\]\[0-9\]+\$/[.]/' "counts nothing else" manifests keda
  broken "a database by whatever authority" $pod 's/ternary "verify-full"/ternary "prefer"/' "measured against the CA" manifests tls
  broken "a scaler that does not know the authority" $templates/keda.yaml '/tls: enable/s/enable/disable/' "KEDA trusts" manifests everything
  broken "an ingress with the secret of the workers" $workloads 's/ "of" .of/ "of" "worker"/' "meant for it" manifests everything
  broken "a scaler that counts nothing" $templates/keda.yaml 's/queueName: ^/queueName: ^q/' "counts the partitions" manifests keda
  broken "a limit on processor time" deploy/chart/values.schema.json 's/"cpu": false/"cpu": true/' "not refused" refusals
  broken "a pod that sees the node's processes" $templates/migrate.yaml 's/restartPolicy: Never/restartPolicy: Never\n      hostPID: true/' CKV_K8S_17 policies
  broken "an image of root" deploy/Dockerfile '/^USER/d' CKV_DOCKER_3 policies
  broken "an alert that never comes" $files/alerts.yaml 's/keylane_partitions_full) > 0/keylane_partitions_full) > 9/' KeylanePartitionFull metrics
  broken "a database that goes and alerts nobody" $files/alerts.yaml 's/keylane_database_connected) == 0/keylane_database_connected) < 0/' KeylaneDatabaseTrouble metrics
  broken "a broker that is blamed for the database" $files/alerts.yaml 's/ unless on (namespace, pod) .*//' KeylaneBrokerAway metrics
  broken "an alert without a runbook" docs/RUNBOOK.md 's/^## KeylaneLagHigh/## Lag/' KeylaneLagHigh metrics
  broken "a panel for a metric that is not there" $files/dashboard.json 's/keylane_letters_total/keylane_letter_total/' keylane_letter_total metrics
  broken "a panel that does not parse" $files/dashboard.json 's/sum by (outcome) (rate/sum by outcome) (rate/' "parse" metrics
}

trap 'interrupted 130' INT
trap 'interrupted 143' TERM
[[ $root != "$project" ]] || scripts/install.sh deploy
private_state
if (($# > 0)); then
  for part in "$@"; do "check_$part"; done
  exit
fi
for part in chart recipe manifests refusals policies metrics; do "check_$part"; done
check_supply
say "chart, recipe, alerts, dashboard and dependencies are as they should be"
check_check
say "and what is broken is noticed"
build_keylane
check_running
say "keylane takes the chart's settings; probes and metrics are there"
foreground scripts/check-tls.sh
