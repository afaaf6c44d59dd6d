{{- /* What pods of every kind have in common: root, and `serves` for those that need the callers' tokens. */ -}}

{{- define "keylane.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "keylane.containerSecurity" -}}
image: {{ include "keylane.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "keylane.env" -}}
- {name: KEYLANE_CONFIG, value: /etc/keylane/config/keylane.toml}
{{- if .Values.tls.ca.secret }}
- {name: SSL_CERT_FILE, value: /etc/keylane/ca/ca.crt}
- {name: PGSSLROOTCERT, value: /etc/keylane/ca/ca.crt}
{{- end }}
{{- /* A CA that nobody is measured against would be of no use. */}}
{{- with .Values.tls.database.mode | default (ternary "verify-full" "" (ne .Values.tls.ca.secret "")) }}
- {name: PGSSLMODE, value: {{ . }}}
{{- end }}
{{- if .Values.tls.database.clientSecret }}
- {name: PGSSLCERT, value: /etc/keylane/database/tls.crt}
- {name: PGSSLKEY, value: /etc/keylane/database/tls.key}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "keylane.mounts" -}}
- {name: config, mountPath: /etc/keylane/config, readOnly: true}
- {name: secrets, mountPath: /etc/keylane/secrets, readOnly: true}
{{- with .Values.tls }}
{{- if .ca.secret }}
- {name: ca, mountPath: /etc/keylane/ca, readOnly: true}
{{- end }}
{{- if .broker.clientSecret }}
- {name: broker, mountPath: /etc/keylane/broker, readOnly: true}
{{- end }}
{{- if .database.clientSecret }}
- {name: database, mountPath: /etc/keylane/database, readOnly: true}
{{- end }}
{{- if .serving.secret }}
- {name: serving, mountPath: /etc/keylane/serving, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- /* Takes root, config (the ConfigMap), serves, and of: whose secrets. */ -}}
{{- define "keylane.volumes" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $secret := ternary ($secrets.ingressSecret | default $secrets.existingSecret) $secrets.existingSecret (eq .of "ingress") -}}
- name: config
  configMap: {name: {{ .config }}}
- name: secrets
  secret:
    secretName: {{ $secret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ $secrets.amqpUrl | quote }}, path: amqp-url}
      - {key: {{ $secrets.databaseUrl | quote }}, path: database-url}
      {{- if .serves }}
      - {key: {{ $secrets.tokens | quote }}, path: tokens.toml}
      {{- end }}
      {{- with $secrets.managementUrl }}
      - {key: {{ . | quote }}, path: management-url}
      {{- end }}
{{- with .root.Values.tls }}
{{- if .ca.secret }}
- name: ca
  secret:
    secretName: {{ .ca.secret | quote }}
    items: [{key: {{ .ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- if .broker.clientSecret }}
- name: broker
  secret: {secretName: {{ .broker.clientSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- if .database.clientSecret }}
- name: database
  secret: {secretName: {{ .database.clientSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- if .serving.secret }}
- name: serving
  secret: {secretName: {{ .serving.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}

{{- define "keylane.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  {{- if .root.Values.tls.serving.secret }}
  scheme: HTTPS
  {{- end }}
{{- end }}
