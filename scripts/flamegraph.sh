#!/usr/bin/env bash
# Where the time of one load goes: perf looks at the bridge while the benchmark's generator drives it. Arguments are those of the load:
# --bus kafka|nats --connections 256 --events 1. Prints the largest shares, and draws flamegraph.svg where inferno is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
out="$CARGO_TARGET_DIR/profile"
mkdir -p "$out"
command -v perf >/dev/null || apt linux-perf
step "brokers" scripts/brokers.sh
step "building (optimized, with names)" cargo bench --quiet --profile counts --bench load --no-run
ulimit -n "$(ulimit -Hn)"

cargo bench --quiet --profile counts --bench load -- profile --seconds 20 "$@" >"$out/load" &
load=$!
until grep -q '^pid ' "$out/load"; do
  kill -0 "$load" 2>/dev/null || fail "the load did not start"
  sleep 0.2
done
perf record --quiet -F 499 -g -o "$out/perf.data" -p "$(awk '/^pid /{print $2}' "$out/load")" -- sleep 10
wait "$load"
tail -1 "$out/load"
perf report --quiet -i "$out/perf.data" --no-children -g none --sort symbol 2>/dev/null |
  awk '/%/ && lines++ < 40 { sub(/[ -]+$/, ""); print }'
if command -v inferno-flamegraph >/dev/null; then
  perf script -i "$out/perf.data" 2>/dev/null | inferno-collapse-perf --quiet | inferno-flamegraph >"$out/flamegraph.svg"
  say "$out/flamegraph.svg"
else
  say "for a picture: cargo install inferno, and again"
fi
