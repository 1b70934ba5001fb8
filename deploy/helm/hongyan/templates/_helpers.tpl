{{- define "hongyan.name" -}}
{{ printf "%s-%s" .root.Release.Name .tier | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hongyan.selector" -}}
app.kubernetes.io/name: hongyan
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .tier }}
{{- end }}

{{- define "hongyan.labels" -}}
{{ include "hongyan.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The configuration file of a tier. */}}
{{- define "hongyan.config" -}}
{{- $base := dict "data" "/data" "log" (dict "admin" "0.0.0.0:9190") "cluster" (dict "listen" "0.0.0.0:9100") -}}
{{- if .values.keys }}{{ $_ := set $base "keys" "/etc/hongyan/keys/keys.json" }}{{ end -}}
{{- mergeOverwrite $base (deepCopy .root.Values.config) (deepCopy (.values.config | default dict)) | toYaml -}}
{{- end }}

{{/* Nine tenths of the limit: what is not on Go's heap needs room before the kernel kills. */}}
{{- define "hongyan.memory" -}}
{{- $limit := .values.resources.limits.memory -}}
{{- if regexMatch "^[0-9]+Gi$" $limit -}}
{{ div (mul (trimSuffix "Gi" $limit) 9216) 10 }}MiB
{{- else if regexMatch "^[0-9]+Mi$" $limit -}}
{{ div (mul (trimSuffix "Mi" $limit) 9) 10 }}MiB
{{- else -}}
{{ fail (printf "tiers.%s.resources.limits.memory: %q is not a whole number of Mi or Gi" .tier $limit) }}
{{- end -}}
{{- end }}

{{/* Seconds of a duration like 30s or 2m. */}}
{{- define "hongyan.seconds" -}}
{{- if regexMatch "^[0-9]+s$" . -}}
{{ trimSuffix "s" . }}
{{- else if regexMatch "^[0-9]+m$" . -}}
{{ mul (trimSuffix "m" .) 60 }}
{{- else -}}
{{ fail (printf "gate.drain_delay, drain_notice: %q is not whole seconds or minutes" .) }}
{{- end -}}
{{- end }}

{{/* A gateway that is killed before its clients were sent away sends them all at once. */}}
{{- define "hongyan.drain" -}}
{{- $gate := dig .tier "gate" dict (include "hongyan.config" . | fromYaml) -}}
{{- $needs := add (include "hongyan.seconds" (get $gate "drain_delay" | default "10s")) (include "hongyan.seconds" (get $gate "drain_notice" | default "0s")) 20 -}}
{{- if and (has .tier (list "entry" "httpentry")) (lt (int .values.drain) (int $needs)) -}}
{{ fail (printf "tiers.%s.drain is %v s: gate.drain_notice, gate.drain_delay and 20 s behind them are %v s" .tier .values.drain $needs) }}
{{- end -}}
{{ .values.drain }}
{{- end }}

{{- define "hongyan.pod" -}}
metadata:
  labels:
    {{- include "hongyan.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "hongyan.config" . | sha256sum }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false # HONGYAN_ENTRY_PORT and the like of a release "hongyan" are no keys of ours
  terminationGracePeriodSeconds: {{ add (include "hongyan.drain" .) .root.Values.preStopSeconds 10 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "hongyan.selector" . | nindent 10 }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .tier }}
      image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .tier }}, --config, /etc/hongyan/hongyan.yaml]
      env:
        {{- if .values.stateful }}
        # A name that stays: the pod finds its slot again, whatever address it has now.
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - {name: HONGYAN_CLUSTER_ADVERTISE, value: "$(POD_NAME).{{ include "hongyan.name" . }}:9100"}
        {{- else }}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - {name: HONGYAN_CLUSTER_ADVERTISE, value: "$(POD_IP):9100"}
        {{- end }}
        - {name: GOMEMLIMIT, value: {{ include "hongyan.memory" . }}}
      envFrom:
        - secretRef: {name: {{ .root.Values.secret }}, optional: true}
      ports:
        - {name: rpc, containerPort: 9100}
        - {name: admin, containerPort: 9190}
        {{- if and .values.service (ne (int .values.service.port) 9100) }}
        - {name: client, containerPort: {{ .values.service.port }}}
        {{- end }}
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        failureThreshold: 2
      lifecycle:
        preStop: {exec: {command: [sleep, "{{ .root.Values.preStopSeconds }}"]}}
      resources: {{ toYaml .values.resources | nindent 8 }}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: config, mountPath: /etc/hongyan/hongyan.yaml, subPath: hongyan.yaml, readOnly: true}
        - {name: data, mountPath: /data}
        {{- if .values.keys }}
        - {name: keys, mountPath: /etc/hongyan/keys, readOnly: true}
        {{- end }}
  volumes:
    - name: config
      {{- if .values.secretConfig }}
      secret: {secretName: {{ include "hongyan.name" . }}}
      {{- else }}
      configMap: {name: {{ include "hongyan.name" . }}}
      {{- end }}
    {{- if .values.keys }}
    - name: keys
      secret: {secretName: {{ .root.Values.keysSecret }}, defaultMode: 0440}
    {{- end }}
    {{- if not .values.stateful }}
    - {name: data, emptyDir: {}}
    {{- end }}
{{- end }}
