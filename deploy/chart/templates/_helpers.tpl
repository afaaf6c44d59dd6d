{{- define "keylane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "keylane.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* Labels that never change; those of pods and of selectors. Takes root and component. */ -}}
{{- define "keylane.selector" -}}
app.kubernetes.io/name: {{ include "keylane.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Those of everything else. Takes root and component. */ -}}
{{- define "keylane.labels" -}}
{{ include "keylane.selector" . }}
app.kubernetes.io/part-of: keylane
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "keylane.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- /* The workloads of this release, as JSON: component, command, values of it, whether it serves /v1, its shard. */ -}}
{{- define "keylane.workloads" -}}
{{- $list := list -}}
{{- with .Values -}}
{{- if eq .mode "run" -}}
{{- $list = append $list (dict "component" "run" "command" "run" "of" "worker" "serves" true "shard" -1) -}}
{{- end -}}
{{- if has .mode (list "split" "worker") -}}
{{- if gt (int .worker.shards) 1 -}}
{{- range $shard := until (int .worker.shards) -}}
{{- $list = append $list (dict "component" (printf "worker-%d" $shard) "command" "worker" "of" "worker" "serves" false "shard" $shard) -}}
{{- end -}}
{{- else -}}
{{- $list = append $list (dict "component" "worker" "command" "worker" "of" "worker" "serves" false "shard" -1) -}}
{{- end -}}
{{- end -}}
{{- if has .mode (list "split" "ingress") -}}
{{- $list = append $list (dict "component" "ingress" "command" "ingress" "of" "ingress" "serves" true "shard" -1) -}}
{{- end -}}
{{- end -}}
{{ dict "all" $list | toJson }}
{{- end }}

{{- /* The most workers that KEDA starts: one a partition, where nobody says fewer. */ -}}
{{- define "keylane.maxReplicas" -}}
{{- .Values.worker.keda.maxReplicas | default .Values.config.amqp.partitions -}}
{{- end }}

{{- /* What no schema can say, since it compares values. */ -}}
{{- define "keylane.check" -}}
{{- $partitions := int .Values.config.amqp.partitions -}}
{{- $worker := .Values.worker -}}
{{- $scaled := include "keylane.maxReplicas" . | int -}}
{{- $most := ternary $scaled (int $worker.replicas) $worker.keda.enabled -}}
{{- if and (ne .Values.mode "ingress") (gt $most $partitions) -}}
{{- fail (printf "%d workers are more than config.amqp.partitions (%d): the rest would have nothing to do" $most $partitions) -}}
{{- end -}}
{{- if gt (int $worker.shards) $partitions -}}
{{- fail (printf "worker.shards (%d) is more than config.amqp.partitions (%d)" (int $worker.shards) $partitions) -}}
{{- end -}}
{{- /* Of a shard's pods one works, or one a partition, and another stands by. */ -}}
{{- $shard := max 2 (div (add $partitions (int $worker.shards) -1) (int $worker.shards)) -}}
{{- if and (gt (int $worker.shards) 1) (gt (int $worker.replicas) (int $shard)) -}}
{{- fail (printf "worker.replicas (%d) is more than a shard has work for (%d): there are as many pods as worker.shards times worker.replicas" (int $worker.replicas) (int $shard)) -}}
{{- end -}}
{{- if and (gt (int $worker.shards) 1) (eq .Values.mode "run") -}}
{{- fail "worker.shards wants workers of their own: mode split or worker" -}}
{{- end -}}
{{- if $worker.keda.enabled -}}
{{- if eq .Values.mode "ingress" -}}{{- fail "worker.keda scales workers, and mode ingress has none" -}}{{- end -}}
{{- if gt (int $worker.shards) 1 -}}{{- fail "worker.keda and worker.shards exclude each other: a shard's partitions are fixed" -}}{{- end -}}
{{- if gt (int $worker.keda.minReplicas) $scaled -}}{{- fail "worker.keda.minReplicas is more than maxReplicas" -}}{{- end -}}
{{- if and (eq (int $worker.keda.minReplicas) 0) (not $worker.keda.queue.enabled) -}}{{- fail "worker.keda.minReplicas 0 wants queue.enabled: without a worker nobody measures the lag" -}}{{- end -}}
{{- if not (or $worker.keda.queue.enabled $worker.keda.lag.enabled) -}}{{- fail "worker.keda needs queue.enabled or lag.enabled" -}}{{- end -}}
{{- if and $worker.keda.queue.enabled (not .Values.secrets.managementUrl) -}}{{- fail "worker.keda.queue asks the management API: set secrets.managementUrl" -}}{{- end -}}
{{- if and $worker.keda.lag.enabled (not $worker.keda.lag.serverAddress) -}}{{- fail "worker.keda.lag asks Prometheus: set worker.keda.lag.serverAddress" -}}{{- end -}}
{{- end -}}
{{- end }}

{{- /* A table of TOML: a JSON string is a TOML string too, and Helm's toToml writes 8 as 8.0. */ -}}
{{- define "keylane.table" }}
[{{ .name }}]
{{- range $key, $value := .table }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{ end }}

{{- define "keylane.toml" -}}
{{- $secrets := "/etc/keylane/secrets" -}}
{{- $amqp := dict "url_file" (printf "%s/amqp-url" $secrets) -}}
{{- if .Values.secrets.managementUrl -}}{{- $_ := set $amqp "management_url_file" (printf "%s/management-url" $secrets) -}}{{- end -}}
{{- if .Values.tls.broker.clientSecret -}}
{{- $_ := set $amqp "tls_cert_file" "/etc/keylane/broker/tls.crt" -}}
{{- $_ := set $amqp "tls_key_file" "/etc/keylane/broker/tls.key" -}}
{{- end -}}
{{- $http := dict "listen" "0.0.0.0:8080" -}}
{{- if ne .Values.mode "worker" -}}{{- $_ := set $http "tokens_file" (printf "%s/tokens.toml" $secrets) -}}{{- end -}}
{{- if .Values.tls.serving.secret -}}
{{- $_ := set $http "tls_cert_file" "/etc/keylane/serving/tls.crt" -}}
{{- $_ := set $http "tls_key_file" "/etc/keylane/serving/tls.key" -}}
{{- end -}}
{{- $own := dict "amqp" $amqp "database" (dict "url_file" (printf "%s/database-url" $secrets)) "http" $http -}}
{{- $config := mergeOverwrite (deepCopy .Values.config) $own -}}
{{- range $section, $table := omit $config "entities" }}
{{- include "keylane.table" (dict "name" $section "table" $table) }}
{{- end }}
{{- range $entity, $table := $config.entities }}
{{- include "keylane.table" (dict "name" (printf "entities.%s" $entity) "table" $table) }}
{{- end }}
{{- end }}
