#!/usr/bin/env bash
# The subscribers of examples/: builds the Python, Go and TypeScript ones and lets them read what a bridge published to a
# real Kafka and a real NATS. With `all` it compiles the Java and the Rust ones too.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
buf="$cache/bin/buf-v1.75.0"

# What `step` runs has no `set -e`: each says itself that it failed, before it is noted down as done.
python() (
  cd examples/python || return 1
  [ -x .venv/bin/pip ] || python3 -m venv .venv || return 1
  cmp -s requirements.txt .venv/installed.txt || {
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt || return 1
    cp requirements.txt .venv/installed.txt || return 1
  }
  mkdir -p gen || return 1
  .venv/bin/python -m grpc_tools.protoc -I ../../proto --python_out=gen ../../proto/fleetbus/v1/*.proto
)

go_() (
  cd examples/go || return 1
  "$buf" generate ../.. || return 1
  go build -o bin/ ./kafka ./nats
)

typescript() (
  cd examples/typescript || return 1
  cmp -s package-lock.json node_modules/.installed || {
    npm ci --silent --no-audit --no-fund || return 1
    cp package-lock.json node_modules/.installed || return 1
  }
  "$buf" generate ../.. || return 1
  node_modules/.bin/tsc
)

java() { mvn -q -B -f examples/java/pom.xml compile; }
rust() { CARGO_TARGET_DIR="$cache/target-examples" cargo check --quiet --bins --manifest-path examples/rust/Cargo.toml; }

command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || apt python3 python3-venv
command -v npm >/dev/null || apt nodejs npm
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] ||
  fail "node $(node --version) is too old for the TypeScript subscriber. Install Node 20.19 or newer (https://nodejs.org), then run this again"
need_go
step "brokers" scripts/brokers.sh
step "tools" scripts/tools.sh
step "building the Python subscriber" python
step "building the Go subscriber" go_
step "building the TypeScript subscriber" typescript
if [ "${1:-}" = all ]; then
  step "compiling the Java subscriber" java
  step "compiling the Rust subscriber (some minutes the first time)" rust
fi
# As whoever called built it, so that nothing is compiled twice.
step "subscribing" cargo test ${FLEETBUS_FEATURES:+--features "$FLEETBUS_FEATURES"} --test subscribers -- --include-ignored
