#!/usr/bin/env bash
# Everything that must hold before a change lands. Stops at the first step that fails, and names it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
begun=$SECONDS

# As the tests have it, and as it is shipped: without failpoints.
lints() {
  cargo clippy --all-targets --features faults --quiet -- -D warnings || return 1
  cargo clippy --quiet -- -D warnings
}

# The advisory database is fetched from outside; where it cannot be, the rest is checked all the same.
licences() {
  cargo-deny --log-level error check bans licenses sources || return 1
  if ! cargo-deny --log-level error fetch db index 2>"$cache/advisories.log"; then
    say "the advisory database cannot be fetched ($cache/advisories.log says why): advisories are not checked"
    return 0
  fi
  cargo-deny --log-level error --offline check advisories
}

# With the campaign's failpoints, which are off unless a variable arms them: the campaign's short form is one of the tests. What hangs
# is ended, and so fails.
tests() {
  local within=60m
  if command -v cargo-nextest >/dev/null; then
    timeout --kill-after=1m "$within" cargo nextest run --features faults --no-fail-fast
  else
    timeout --kill-after=1m "$within" cargo test --features faults --no-fail-fast
  fi
}

# As it should be, and nothing of the last release's taken away or changed: docs/release.md.
schema() {
  local buf="$cache/bin/buf-v1.75.0"
  "$buf" lint && "$buf" breaking --against proto/released.binpb
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet; }

step "setting up" scripts/setup.sh
step "brokers" scripts/brokers.sh
step "format" cargo fmt --check
step "lints" lints
step "docs" docs
step "tools" scripts/tools.sh
step "schema" schema
step "licences, sources and advisories" licences
step "tests" tests
step "subscribers" env FLEETBUS_FEATURES=faults scripts/examples.sh
say "all done in $((SECONDS - begun)) s"
