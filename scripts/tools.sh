#!/usr/bin/env bash
# The tools of the checks: cargo-deny and buf, built once into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

deny_version=0.20.2
buf_version=v1.75.0

if ! "$cache/bin/cargo-deny" --version 2>/dev/null | grep -q "$deny_version"; then
  step "building cargo-deny $deny_version (some minutes)" \
    cargo install --quiet --locked --root "$cache" --target-dir "$cache/target-tools" "cargo-deny@$deny_version"
fi

if [ ! -x "$cache/bin/buf-$buf_version" ]; then
  need_go
  step "building buf $buf_version (a minute or two)" \
    env GOBIN="$cache/gobin" go install "github.com/bufbuild/buf/cmd/buf@$buf_version"
  cp "$cache/gobin/buf" "$cache/bin/buf-$buf_version"
fi
