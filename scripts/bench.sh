#!/usr/bin/env bash
# Builds the bridge for release, and measures it beside its floor against real brokers. Arguments go to the benchmark:
# --part kafka,nats,outage,decode,memory,growth   --repeats 5   --seconds 2   --into FILE
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
step "setting up" scripts/setup.sh
step "brokers" scripts/brokers.sh
# A thousand connections, and both their ends are here.
ulimit -n "$(ulimit -Hn)"
step "measuring" cargo bench --bench load -- "$@"
