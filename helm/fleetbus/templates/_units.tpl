{{/*
What runs: one unit is one process with its accounts, its configuration and its volume. Everything else is rendered once for
each unit.
*/}}

{{- define "fleetbus.units" -}}
{{- include "fleetbus.refuse" . -}}
{{- $root := . -}}
{{- $full := include "fleetbus.fullname" . -}}
{{- $units := list -}}
{{- if eq .Values.mode "instances" -}}
{{- range .Values.instances -}}
{{- $config := include "fleetbus.merged" (dict "over" (default dict .config) "under" (default dict $root.Values.config)) | fromJson -}}
{{- with (default dict .config).bus -}}{{- $_ := set $config "bus" (deepCopy .) -}}{{- end -}}
{{- $units = append $units (dict
      "name" (printf "%s-%s" $full .name) "instance" .name "accounts" .accounts "config" $config
      "replicas" (ternary .replicas $root.Values.replicas (and (hasKey . "replicas") (ne (int $root.Values.replicas) 0)))
      "persistence" (include "fleetbus.merged" (dict "over" (default dict .persistence) "under" $root.Values.persistence) | fromJson)
      "resources" (ternary .resources $root.Values.resources (hasKey . "resources"))) -}}
{{- end -}}
{{- else -}}
{{- $units = append $units (dict
      "name" $full "instance" "" "accounts" .Values.accounts "config" (deepCopy (default dict .Values.config))
      "replicas" .Values.replicas "persistence" .Values.persistence "resources" .Values.resources) -}}
{{- end -}}
{{- include "fleetbus.refuseUnits" (dict "root" . "units" $units) -}}
{{- toJson $units -}}
{{- end -}}

{{/* What is said twice: `over` counts, an empty value too; maps are merged, but for a secret, which is one thing. */}}
{{- define "fleetbus.merged" -}}
{{- $merged := deepCopy .under -}}
{{- range $key, $value := .over -}}
{{- $held := get $merged $key -}}
{{- $isOne := or (not (kindIs "map" $value)) (hasKey $value "secret") (hasKey $value "env") (hasKey $value "file") -}}
{{- if or $isOne (not (kindIs "map" $held)) -}}
{{- $_ := set $merged $key $value -}}
{{- else -}}
{{- $_ := set $merged $key (include "fleetbus.merged" (dict "over" $value "under" $held) | fromJson) -}}
{{- end -}}
{{- end -}}
{{- toJson $merged -}}
{{- end -}}
