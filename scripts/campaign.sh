#!/usr/bin/env bash
# The fault campaign against real brokers. EVENTS, FAULTS, SEED, BUS=kafka|nats|both, LASTS (seconds of a fault), SENDERS, BROKERS=3 (Kafka, for
# changes of leaders), ONLY=BrokerPaused,Kill (these faults in turn), KEEP=FOLDER (ledger and logs, the broker's too, stay there), REPORT=FILE (the
# report is added to it).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export REPORT="${REPORT:-$CARGO_TARGET_DIR/campaign-$(date +%Y%m%d-%H%M%S).md}"
step "brokers" scripts/brokers.sh
step "building (release, with places to die at)" cargo test --release --features faults --test campaign --no-run
cargo test --release --quiet --features faults --test campaign -- --ignored --exact --nocapture long
say "the report is in $REPORT"
