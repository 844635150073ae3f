#!/usr/bin/env bash
# pgo.sh FILE : a release binary that is laid out by what a fleet's load ran through. Built with counters; the benchmark's loads and the
# samples of the wire contract are its training; built again by what was counted. docs/performance.md says what it brings.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
into=$(realpath -m "${1:-dist/fleetbus}")
host=$(rustc -vV | sed -n 's/^host: //p')
work=$CARGO_TARGET_DIR/pgo
# Both builds in one folder: what is C is compiled once. With --target the flags are for what is shipped, not for what builds it.
build() { RUSTFLAGS="$1" cargo build --release --locked --quiet --bin fleetbus --target "$host" --target-dir "$work/build"; }
built=$work/build/$host/release/fleetbus

step "setting up" scripts/setup.sh
step "brokers" scripts/brokers.sh
merge=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$merge" ] || step "llvm-profdata" rustup component add llvm-tools
step "building what drives it" cargo bench --quiet --profile dev --bench load --no-run

rm -rf "$work/counts"
mkdir -p "$work/counts" "$(dirname "$into")"
# Counters are memory that the kernel writes to the file (%c): loads kill bridges. Values of arguments cannot be kept in that way.
step "building with counters" build "-Cprofile-generate -Cllvm-args=-runtime-counter-relocation -Cllvm-args=-disable-vp"
cp "$built" "$work/counting"

# Every kind of message, many times: what was never run is built as what never runs.
decode() {
  local samples=tests/fixtures/linxup round
  for round in {1..100}; do
    "$work/counting" convert --provider linxup "$samples"/push-legacy-flat/*.json "$samples"/push-v3/[!m]*.json >/dev/null || return 1
    "$work/counting" convert --provider linxup --api v2 "$samples"/pull-v2/{alerts,locations_history,stops,trips}.response.json >/dev/null || return 1
    "$work/counting" convert --provider linxup --api v3 "$samples"/pull-v3/{positions_current,stops}.response.json >/dev/null || return 1
  done
}

train() {
  ulimit -n "$(ulimit -Hn)"
  decode || return 1
  cargo bench --quiet --profile dev --bench load -- --part kafka,nats,outage,growth --repeats 1 --seconds 1 --parked 100000 \
    --into "$work/training.json" >/dev/null || return 1
}
export FLEETBUS_BINARY=$work/counting LLVM_PROFILE_FILE=$work/counts/%p%c.profraw
step "training" train
unset FLEETBUS_BINARY LLVM_PROFILE_FILE
step "merging" "$merge" merge -o "$work/fleetbus.profdata" "$work/counts"
step "building by what was counted" build "-Cprofile-use=$work/fleetbus.profdata -Cllvm-args=-disable-vp"
install -m 755 "$built" "$into"
say "$into"
