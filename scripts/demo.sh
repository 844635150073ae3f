#!/usr/bin/env bash
# Builds the bridge and shows it: a simulated fleet, the embedded bus, an outage.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
step "building fleetbus (the first time: a few minutes)" cargo build
exec "$CARGO_TARGET_DIR/debug/fleetbus" demo "$@"
