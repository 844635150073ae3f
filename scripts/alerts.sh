#!/usr/bin/env bash
# The alert rules and the dashboard's queries, by Prometheus' own promtool, built once into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
promtool_version=v0.316.0

if [ ! -x "$cache/bin/promtool-$promtool_version" ]; then
  need_go
  # Its modules are numbered in another way than Prometheus: v0.316.0 is 3.16.
  step "building promtool $promtool_version (ten minutes)" \
    env GOBIN="$cache/gobin" go install "github.com/prometheus/prometheus/cmd/promtool@$promtool_version"
  cp "$cache/gobin/promtool" "$cache/bin/promtool-$promtool_version"
fi
step "alerts and dashboard" cargo test --test observed -- --include-ignored
