{{/*
What runs: one unit is one process with its accounts, its configuration and its volume. Everything else is rendered once for
each unit. Here is also refused what no schema can say.
*/}}

{{- define "fleetbus.units" -}}
{{- include "fleetbus.refuse" . -}}
{{- $root := . -}}
{{- $full := include "fleetbus.fullname" . -}}
{{- $units := list -}}
{{- if eq .Values.mode "instances" -}}
{{- range .Values.instances -}}
{{- $config := include "fleetbus.merged" (dict "over" (default dict .config) "under" $root.Values.config) | fromJson -}}
{{- with (default dict .config).bus -}}{{- $_ := set $config "bus" (deepCopy .) -}}{{- end -}}
{{- $units = append $units (dict
      "name" (printf "%s-%s" $full .name) "instance" .name "accounts" .accounts "config" $config
      "replicas" (ternary .replicas $root.Values.replicas (hasKey . "replicas"))
      "persistence" (include "fleetbus.merged" (dict "over" (default dict .persistence) "under" $root.Values.persistence) | fromJson)
      "resources" (default $root.Values.resources .resources)) -}}
{{- end -}}
{{- else -}}
{{- $units = append $units (dict
      "name" $full "instance" "" "accounts" .Values.accounts "config" (deepCopy .Values.config)
      "replicas" .Values.replicas "persistence" .Values.persistence "resources" .Values.resources) -}}
{{- end -}}
{{- $claims := dict -}}
{{- range $units -}}
{{- if gt (len .name) 52 -}}
{{- fail (printf "%s is a name of %d characters, and a StatefulSet may have 52: set fullnameOverride, or a shorter name of the instance" .name (len .name)) -}}
{{- end -}}
{{- with .persistence.existingClaim -}}
{{- if hasKey $claims . -}}
{{- fail (printf "persistence.existingClaim %s is there for two instances: each has a volume of its own" .) -}}
{{- end -}}
{{- $_ := set $claims . true -}}
{{- end -}}
{{- end -}}
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

{{- define "fleetbus.refuse" -}}
{{- $one := "an account lives in exactly one process, which holds its order, its cursors and what it has seen; for more load make another instance with accounts of its own (docs/deploy.md)" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, and must be 1, or 0 to stop it: %s" (int .Values.replicas) $one) -}}
{{- end -}}
{{- $seen := dict -}}
{{- $names := dict -}}
{{- if eq .Values.mode "instances" -}}
{{- if .Values.accounts -}}
{{- fail "mode is instances: accounts belong into an entry of instances, not to the top level" -}}
{{- end -}}
{{- if not .Values.instances -}}
{{- fail "mode is instances, and instances is empty: give one with a name and its accounts, as in docs/deploy.md" -}}
{{- end -}}
{{- range $instance := .Values.instances -}}
{{- if hasKey $names .name -}}{{- fail (printf "instances: the name %s is there twice" .name) -}}{{- end -}}
{{- $_ := set $names .name true -}}
{{- if gt (int (default 1 .replicas)) 1 -}}
{{- fail (printf "instances: %s has %d replicas, and may have 1, or 0 to stop it: %s" .name (int .replicas) $one) -}}
{{- end -}}
{{- range .accounts -}}
{{- if hasKey $seen .id -}}
{{- fail (printf "instances: account %s is in %s and in %s: %s" .id (get $seen .id) $instance.name $one) -}}
{{- end -}}
{{- $_ := set $seen .id $instance.name -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if .Values.instances -}}
{{- fail (printf "mode is %s: instances are for mode instances; put the accounts into accounts" .Values.mode) -}}
{{- end -}}
{{- if not .Values.accounts -}}
{{- fail (printf "mode is %s, and accounts is empty" .Values.mode) -}}
{{- end -}}
{{- range .Values.accounts -}}
{{- if hasKey $seen .id -}}{{- fail (printf "accounts: %s is there twice" .id) -}}{{- end -}}
{{- $_ := set $seen .id true -}}
{{- end -}}
{{- end -}}
{{- $kept := or .Values.persistence.existingClaim .Values.persistence.existingVolume -}}
{{- if and (eq .Values.mode "deployment") (not .Values.persistence.existingClaim) -}}
{{- fail "mode is deployment: it takes a claim that is there, persistence.existingClaim; mode instances makes one" -}}
{{- end -}}
{{- if and (ne .Values.mode "sidecar") .Values.persistence.acceptLoss -}}
{{- fail "persistence.acceptLoss is for mode sidecar only: here a claim is to be had" -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar") (not $kept) (not .Values.persistence.acceptLoss) -}}
{{- fail "mode is sidecar without a volume: what was answered 201 and is parked, the cursors and what was seen would be lost with the pod. Name persistence.existingClaim or persistence.existingVolume, or say persistence.acceptLoss: true" -}}
{{- end -}}
{{- if and (ne .Values.mode "sidecar") .Values.persistence.existingVolume -}}
{{- fail "persistence.existingVolume is for mode sidecar only, a volume of the application's pod: here it is persistence.existingClaim" -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar") $kept .Values.persistence.acceptLoss -}}
{{- fail "persistence.acceptLoss is for a sidecar without a volume, and one is named: take either away" -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar") (or .Values.ingress.enabled .Values.gateway.enabled .Values.serviceMonitor.enabled) (not .Values.sidecar.selectorLabels) -}}
{{- fail "mode is sidecar with a route or a monitor: sidecar.selectorLabels must name the labels of the application's pod" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
{{- fail "gateway.enabled needs gateway.parentRefs" -}}
{{- end -}}
{{- end -}}
