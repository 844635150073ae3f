{{/*
For an application's own chart, which has this one as a dependency with `mode: sidecar`, and includes with the context
`.Subcharts.fleetbus`:

  initContainers: fleetbus.sidecar       (an entry of the list)
  volumes:        fleetbus.sidecarVolumes (entries of the list)
  annotations:    fleetbus.sidecarAnnotations
  terminationGracePeriodSeconds: fleetbus.sidecarGrace (at least)
*/}}

{{- define "fleetbus.sidecarUnit" -}}
{{- if ne .Values.mode "sidecar" -}}
{{- fail "fleetbus.mode must be sidecar where an application includes fleetbus.sidecar" -}}
{{- end -}}
{{- include "fleetbus.units" . | fromJsonArray | first | toJson -}}
{{- end -}}

{{/* A native sidecar: started before the application, stopped after it, restarted by itself. */}}
{{- define "fleetbus.sidecar" -}}
{{- $unit := include "fleetbus.sidecarUnit" . | fromJson -}}
{{- include "fleetbus.container" (dict "root" . "unit" $unit) }}
restartPolicy: Always
{{- end -}}

{{- define "fleetbus.sidecarVolumes" -}}
{{- $unit := include "fleetbus.sidecarUnit" . | fromJson -}}
{{- include "fleetbus.volumes" (dict "root" . "unit" $unit) -}}
{{- end -}}

{{- define "fleetbus.sidecarAnnotations" -}}
{{- $unit := include "fleetbus.sidecarUnit" . | fromJson -}}
fleetbus.io/config: {{ include "fleetbus.config" (dict "root" . "unit" $unit) | sha256sum }}
{{- end -}}

{{- define "fleetbus.sidecarGrace" -}}
{{- $unit := include "fleetbus.sidecarUnit" . | fromJson -}}
{{- include "fleetbus.grace" (dict "root" . "unit" $unit) -}}
{{- end -}}
