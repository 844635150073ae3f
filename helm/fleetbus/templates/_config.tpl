{{/*
The configuration of a unit, as JSON (which is YAML). A reference to a Secret of Kubernetes becomes the file at which that key is
mounted; no secret is ever written into the configuration.
*/}}

{{- define "fleetbus.secretPattern" -}}
\{"secret":\{"key":"([^"]+)","name":"([^"]+)"\}\}
{{- end -}}

{{/* Before the references are replaced. */}}
{{- define "fleetbus.rawConfig" -}}
{{- $config := deepCopy .unit.config -}}
{{- $listen := dict "address" (printf "0.0.0.0:%d" (int .root.Values.ports.webhook)) -}}
{{- if .root.Values.tls.secretName -}}
{{- $_ := set $listen "tls" (dict "cert" "/run/secrets/fleetbus-tls/tls.crt" "key" "/run/secrets/fleetbus-tls/tls.key") -}}
{{- end -}}
{{- $_ := set $config "listen" (merge $listen (default dict $config.listen)) -}}
{{- $_ := set $config "admin" (merge (dict "address" (printf "0.0.0.0:%d" (int .root.Values.ports.admin))) (default dict $config.admin)) -}}
{{- $_ := set $config "data_dir" "/data" -}}
{{- $_ := set $config "accounts" .unit.accounts -}}
{{- toJson $config -}}
{{- end -}}

{{- define "fleetbus.config" -}}
{{- $pattern := include "fleetbus.secretPattern" . -}}
{{- $resolved := regexReplaceAll $pattern (include "fleetbus.rawConfig" .) "{\"file\":\"/run/secrets/fleetbus/${2}/${1}\"}" -}}
{{- $resolved | fromJson | toPrettyJson -}}
{{- end -}}

{{/* Every (name, key) that the configuration refers to, once. */}}
{{- define "fleetbus.secrets" -}}
{{- $found := list -}}
{{- range regexFindAll (include "fleetbus.secretPattern" .) (include "fleetbus.rawConfig" .) -1 -}}
{{- $found = append $found (fromJson .).secret -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{/* Where the admin token is mounted, if one is a secret of Kubernetes: an option of the commands that ask the operator API. */}}
{{- define "fleetbus.tokenFile" -}}
{{- $admin := default dict .config.admin -}}
{{- $secrets := list -}}
{{- range prepend (default list $admin.tokens) $admin -}}
{{- with (default dict .token).secret -}}{{- $secrets = append $secrets . -}}{{- end -}}
{{- end -}}
{{- with first $secrets }} --token-file /run/secrets/fleetbus/{{ .name }}/{{ .key }}{{ end -}}
{{- end -}}

{{/* How long a stop may take, in seconds: what it goes on accepting for, rounded up, and the bounds of src/app.rs. */}}
{{- define "fleetbus.grace" -}}
{{- $delay := default "5s" (default dict .unit.config.delivery).drain_delay -}}
{{- $number := regexFind "^[0-9]+" $delay | atoi -}}
{{- $seconds := 5 -}}
{{- if hasSuffix "ms" $delay -}}{{- $seconds = add 1 (div $number 1000) -}}
{{- else if hasSuffix "s" $delay -}}{{- $seconds = $number -}}
{{- else -}}{{- $seconds = mul $number 60 -}}
{{- end -}}
{{- $least := add 55 $seconds -}}
{{- $asked := int .root.Values.terminationGracePeriodSeconds -}}
{{- if and $asked (lt $asked (int $least)) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and a stop may take %d s: 0 takes what is needed" $asked (int $least)) -}}
{{- end -}}
{{- max $least $asked -}}
{{- end -}}
