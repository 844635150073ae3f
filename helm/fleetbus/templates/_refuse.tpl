{{/*
What no schema can say, or not in words that help: what is wrong ends the rendering, before anything is made.
*/}}

{{- define "fleetbus.refuse" -}}
{{- if eq .Values.mode "sidecar" -}}{{- include "fleetbus.refusePods" . -}}{{- end -}}
{{- $one := "an account lives in exactly one process, which holds its order, its cursors and what it has seen; for more load make another instance with accounts of its own (docs/deploy.md)" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, and must be 1, or 0 to stop it: %s" (int .Values.replicas) $one) -}}
{{- end -}}
{{- $seen := dict -}}
{{- $names := dict -}}
{{- $accounts := list -}}
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
{{- if regexMatch "(^dashboard|-admin|-test)$" .name -}}
{{- fail (printf "instances: the name %s would be that of another resource: it may not be dashboard, nor end in -admin or -test" .name) -}}
{{- end -}}
{{- if gt (int (default 1 .replicas)) 1 -}}
{{- fail (printf "instances: %s has %d replicas, and may have 1, or 0 to stop it: %s" .name (int .replicas) $one) -}}
{{- end -}}
{{- $accounts = concat $accounts .accounts -}}
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
{{- $accounts = .Values.accounts -}}
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
{{- if eq (int .Values.ports.webhook) (int .Values.ports.admin) -}}
{{- fail (printf "ports.webhook and ports.admin are both %d: webhooks and operator have a port each, set another for one of them" (int .Values.ports.admin)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
{{- fail "gateway.enabled needs gateway.parentRefs" -}}
{{- end -}}
{{- $pushed := false -}}
{{- range $accounts -}}{{- if .webhook -}}{{- $pushed = true -}}{{- end -}}{{- end -}}
{{- if and (or .Values.ingress.enabled .Values.gateway.enabled) (not $pushed) -}}
{{- fail "ingress and gateway need an account with a webhook, and every account here is only polled: switch them off" -}}
{{- end -}}
{{- include "fleetbus.refuseKeys" . -}}
{{- end -}}

{{/* Mode sidecar: what says how a pod of this chart runs, for there is none. What would be passed over is refused. */}}
{{- define "fleetbus.refusePods" -}}
{{- if ne (int .Values.replicas) 1 -}}
{{- fail (printf "mode is sidecar, and replicas is %d: it is the application's pod, of which there is one; to stop the bridge scale the application to 0 (docs/deploy.md)" (int .Values.replicas)) -}}
{{- end -}}
{{- $group := (default dict .Values.podSecurityContext).fsGroup -}}
{{- $given := dict
      "affinity" .Values.affinity
      "imagePullSecrets" .Values.imagePullSecrets
      "networkPolicy.adminFrom" .Values.networkPolicy.adminFrom
      "networkPolicy.egress" .Values.networkPolicy.egress
      "networkPolicy.webhookFrom" .Values.networkPolicy.webhookFrom
      "nodeSelector" .Values.nodeSelector
      "persistence.accessMode" (ne .Values.persistence.accessMode "ReadWriteOnce")
      "persistence.annotations" .Values.persistence.annotations
      "persistence.storageClass" .Values.persistence.storageClass
      "podAnnotations" .Values.podAnnotations
      "podDisruptionBudget.enabled" .Values.podDisruptionBudget.enabled
      "podLabels" .Values.podLabels
      "podSecurityContext.fsGroup" (and $group (ne (int64 $group) 65532))
      "priorityClassName" .Values.priorityClassName
      "serviceAccount.annotations" .Values.serviceAccount.annotations
      "serviceAccount.name" .Values.serviceAccount.name
      "tolerations" .Values.tolerations -}}
{{- range $key, $value := $given -}}
{{- if $value -}}
{{- fail (printf "mode is sidecar, and %s is set: pod, volume and policies are the application's; say it in the application's chart, and leave it out here" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels and annotations beside the chart's own: none may be there twice. */}}
{{- define "fleetbus.refuseKeys" -}}
{{- $it := dict "root" . "unit" (dict "instance" "any") -}}
{{- $labels := include "fleetbus.labels" $it | fromYaml -}}
{{- $given := dict
      "podLabels" (list .Values.podLabels (include "fleetbus.podLabels" $it | fromYaml))
      "podAnnotations" (list .Values.podAnnotations dict)
      "serviceMonitor.labels" (list .Values.serviceMonitor.labels $labels)
      "prometheusRule.labels" (list .Values.prometheusRule.labels $labels)
      "dashboard.labels" (list .Values.dashboard.labels $labels) -}}
{{- range $where, $words := $given -}}
{{- range $key, $_ := first $words -}}
{{- if or (hasPrefix "fleetbus.io/" $key) (hasKey (last $words) $key) -}}
{{- fail (printf "%s: %s is the chart's own: leave it out" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Each unit with what it has of the whole and what is its own. */}}
{{- define "fleetbus.refuseUnits" -}}
{{- $full := include "fleetbus.fullname" .root -}}
{{- if and (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $full)) (or (ne .root.Values.mode "sidecar") .root.Values.sidecar.selectorLabels) -}}
{{- fail (printf "%s is no name of a Service, which begins with a letter and has a-z, 0-9 and - only: set fullnameOverride" $full) -}}
{{- end -}}
{{- $claims := dict -}}
{{- range .units -}}
{{- if gt (len .name) 52 -}}
{{- fail (printf "%s is a name of %d characters, and a StatefulSet may have 52: set fullnameOverride, or a shorter name of the instance" .name (len .name)) -}}
{{- end -}}
{{- with .persistence.existingClaim -}}
{{- if hasKey $claims . -}}
{{- fail (printf "persistence.existingClaim %s is there for two instances: each has a volume of its own" .) -}}
{{- end -}}
{{- $_ := set $claims . true -}}
{{- end -}}
{{- $where := ternary "" (printf "instances: %s: " .instance) (empty .instance) -}}
{{- include "fleetbus.refuseSize" (dict "where" $where "unit" .) -}}
{{- include "fleetbus.refuseLiterals" (dict "where" $where "unit" .) -}}
{{- end -}}
{{- end -}}

{{/*
The volume holds what is parked, the log where the bus is the local one, as it is where none is named, and dedup, cursors and
SQLite's journal beside. (An emptyDir that is full ends the pod.)
*/}}
{{- define "fleetbus.refuseSize" -}}
{{- $volume := .unit.persistence -}}
{{- $parked := default "10GiB" (default dict .unit.config.replay).max_size -}}
{{- $bytes := include "fleetbus.bytes" $parked | atoi -}}
{{- $needed := printf "replay.max_size (%s)" $parked -}}
{{- $filled := "what is parked" -}}
{{- $bus := default dict .unit.config.bus -}}
{{- if or (not $bus) (hasKey $bus "local") -}}
{{- $log := default "1GiB" (default dict $bus.local).max_size -}}
{{- $bytes = add $bytes (include "fleetbus.bytes" $log | atoi) -}}
{{- $needed = printf "%s, bus.local.max_size (%s)" $needed $log -}}
{{- $filled = "what is parked and the log" -}}
{{- end -}}
{{- if not (or $volume.existingClaim $volume.existingVolume) -}}
{{- if lt (mul 2 (include "fleetbus.bytes" $volume.size | atoi)) (mul 3 $bytes) -}}
{{- fail (printf "%spersistence.size is %s, and must be %s and half as much again: %s would fill the volume" .where $volume.size $needed $filled) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A size of Kubernetes or of the configuration, as a number. */}}
{{- define "fleetbus.bytes" -}}
{{- $bytes := regexFind "^[0-9]+" . | atoi -}}
{{- $unit := regexFind "[A-Za-z]+$" . -}}
{{- $step := ternary 1024 1000 (contains "i" $unit) -}}
{{- range until (get (dict "B" 0 "K" 1 "k" 1 "M" 2 "G" 3 "T" 4) (substr 0 1 $unit)) -}}
{{- $bytes = mul $bytes $step -}}
{{- end -}}
{{- $bytes -}}
{{- end -}}

{{/* The configuration is a ConfigMap, which many may read. The process would refuse these, too, but only once they stand there. */}}
{{- define "fleetbus.refuseLiterals" -}}
{{- $where := .where -}}
{{- $bus := default dict .unit.config.bus -}}
{{- $kafka := default dict $bus.kafka -}}
{{- range $name, $value := $kafka.properties -}}
{{- if and (regexMatch "(password|passphrase|secret|token|key|key\\.pem|jaas\\.config)$" $name) (not (kindIs "map" $value)) -}}
{{- fail (printf "%sconfig.bus.kafka.properties: %s is a secret, and would stand in a ConfigMap: write { secret: { name, key } } or { env: NAME }" $where $name) -}}
{{- end -}}
{{- end -}}
{{- $urls := list
      (list "bus.kafka.brokers" $kafka.brokers)
      (list "bus.kafka.encoding.registry.url" (default dict (default dict $kafka.encoding).registry).url)
      (list "bus.nats.url" (default dict $bus.nats).url)
      (list "telemetry.otlp.endpoint" (default dict (default dict .unit.config.telemetry).otlp).endpoint) -}}
{{- range $account := .unit.accounts -}}
{{- range .poll -}}{{- $urls = append $urls (list (printf "accounts: %s: base_url" $account.id) .base_url) -}}{{- end -}}
{{- end -}}
{{- range $urls -}}
{{- if regexMatch "[@?#]" (default "" (last .)) -}}
{{- fail (printf "%s%s holds a user, a query or a fragment, and would stand so in a ConfigMap: what is secret has values of its own, as docs/configuration.md says" $where (first .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
