{{/* Names and labels. */}}

{{- define "fleetbus.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fleetbus.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .unit.instance }}
fleetbus.io/instance: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Of the pods of `helm test`, which no Service and no other policy may select. */}}
{{- define "fleetbus.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "fleetbus.podLabels" -}}
{{ include "fleetbus.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/component: bridge
{{- end -}}

{{- define "fleetbus.labels" -}}
{{ include "fleetbus.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What comes before the path of a unit's webhooks. (Of a Gateway only its listeners know whether it has TLS.) */}}
{{- define "fleetbus.addresses" -}}
{{- $values := .root.Values -}}
{{- $found := list -}}
{{- if $values.ingress.enabled -}}
{{- $found = append $found (printf "%s://%s" (ternary "https" "http" (not (empty $values.ingress.tls))) $values.ingress.host) -}}
{{- end -}}
{{- if $values.gateway.enabled -}}
{{- range $values.gateway.hostnames -}}
{{- $found = append $found (printf "http(s)://%s" .) -}}
{{- else -}}
{{- $found = append $found (printf "http(s)://the-hosts-of-Gateway-%s" (first $values.gateway.parentRefs).name) -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- $found = append $found (printf "%s://%s:%d" (ternary "https" "http" (not (empty $values.tls.secretName))) .unit.name (int $values.service.port)) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{- define "fleetbus.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fleetbus.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "fleetbus.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}
