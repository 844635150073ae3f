#!/usr/bin/env bash
# Everything that deploys fleetbus, validated with the real tools: one line a check. What can only be validated here, and what
# is run, says docs/deploy.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
step "tools" scripts/deploy-tools.sh
step "brokers" scripts/brokers.sh
step "building fleetbus" cargo build --quiet
exec "$cache/deploy-python/bin/python" scripts/deploy_check.py "$CARGO_TARGET_DIR/debug/fleetbus" "$cache"
