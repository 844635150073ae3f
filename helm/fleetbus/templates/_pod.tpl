{{/* The container, its probes and its volumes: the same in all three modes. Takes a dict of root and unit. */}}

{{/* Whom it runs as: a number that is null is the cluster's to choose. (int64, for the numbers of a file are floats.) */}}
{{- define "fleetbus.user" -}}
{{- $user := default dict .Values.podSecurityContext -}}
runAsNonRoot: true
{{- with $user.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with $user.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- end -}}

{{- define "fleetbus.securityContext" -}}
{{ include "fleetbus.user" .root }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "fleetbus.container" -}}
name: fleetbus
image: {{ include "fleetbus.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [run]
env:
  - name: FLEETBUS_CONFIG
    value: /etc/fleetbus/fleetbus.yaml
  - name: FLEETBUS_ADMIN
    value: http://127.0.0.1:{{ .root.Values.ports.admin }}
  {{- with .root.Values.log }}
  - name: FLEETBUS_LOG
    value: {{ . | quote }}
  {{- end }}
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: webhooks
    containerPort: {{ .root.Values.ports.webhook }}
  - name: admin
    containerPort: {{ .root.Values.ports.admin }}
# It waits up to 30 s for the lock of the volume, and then counts what is parked.
# Both answer once the store is open. One that is full while the bus is away is not ready either: a restart would not mend it.
startupProbe:
  httpGet: { path: /healthz, port: admin }
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 120
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /healthz, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources: {{- toYaml .unit.resources | nindent 2 }}
securityContext: {{- include "fleetbus.securityContext" . | nindent 2 }}
volumeMounts:
  - name: {{ include "fleetbus.dataVolume" . | quote }}
    mountPath: /data
  - name: fleetbus-config
    mountPath: /etc/fleetbus
    readOnly: true
  {{- if include "fleetbus.secrets" . | fromJsonArray }}
  - name: fleetbus-secrets
    mountPath: /run/secrets/fleetbus
    readOnly: true
  {{- end }}
  {{- if .root.Values.tls.secretName }}
  - name: fleetbus-tls
    mountPath: /run/secrets/fleetbus-tls
    readOnly: true
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "fleetbus.dataVolume" -}}
{{- default "fleetbus-data" .unit.persistence.existingVolume -}}
{{- end -}}

{{/* Without the data volume of a StatefulSet, which comes from its claim template. */}}
{{- define "fleetbus.volumes" -}}
- name: fleetbus-config
  configMap:
    name: {{ .unit.name | quote }}
{{- with include "fleetbus.secrets" . | fromJsonArray }}
- name: fleetbus-secrets
  projected:
    # Readable for the container's user, whatever fsGroup its pod has.
    defaultMode: 0444
    sources:
      {{- range . }}
      - secret:
          name: {{ .name | quote }}
          items: [{ key: {{ .key | quote }}, path: {{ printf "%s/%s" .name .key | quote }} }]
      {{- end }}
{{- end }}
{{- with .root.Values.tls.secretName }}
- name: fleetbus-tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0444
{{- end }}
{{- with .unit.persistence.existingClaim }}
- name: fleetbus-data
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- if .unit.persistence.acceptLoss }}
- name: fleetbus-data
  emptyDir:
    sizeLimit: {{ .unit.persistence.size }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fleetbus.podTemplate" -}}
metadata:
  labels:
    {{- include "fleetbus.podLabels" . | nindent 4 }}
    {{- with .root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed configuration is a new process.
    fleetbus.io/config: {{ include "fleetbus.config" . | sha256sum }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "fleetbus.serviceAccount" .root | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "fleetbus.grace" . }}
  securityContext:
    {{- include "fleetbus.user" .root | nindent 4 }}
    {{- with (default dict .root.Values.podSecurityContext).fsGroup }}
    fsGroup: {{ int64 . }}
    {{- end }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  containers:
    - {{ include "fleetbus.container" . | nindent 6 | trim }}
  volumes: {{- include "fleetbus.volumes" . | nindent 4 }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
