#!/usr/bin/env bash
# What a build needs beside a Rust toolchain: a C and C++ compiler, CMake, and the headers of what librdkafka is linked
# with (it includes curl's header even where it is built without it). Installs what is missing, once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

command -v cargo >/dev/null || fail "cargo is missing. Install a Rust toolchain (1.95 or newer) with rustup, then run this again"
apt gcc g++ make cmake pkg-config libssl-dev zlib1g-dev libcurl4-openssl-dev
