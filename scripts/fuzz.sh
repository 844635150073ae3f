#!/usr/bin/env bash
# Fuzzes every border for MINUTES each (1), or the one that TARGET names, and goes on from what was found before; then makes the
# corpus small. An input that breaks something is in fuzz/artifacts: it becomes a named test in tests/meaning/fuzzed.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

seconds=$((${MINUTES:-1} * 60))
cargo +nightly --version >/dev/null 2>&1 || fail "a nightly toolchain is needed: rustup toolchain install nightly"
command -v cargo-fuzz >/dev/null || step "installing cargo-fuzz" cargo install --quiet --locked --root "$cache" cargo-fuzz
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"

# The versions that are shipped are those that are fuzzed. There is no unsafe code of ours for a sanitizer to watch.
cp Cargo.lock fuzz/Cargo.lock
fuzz() { cargo +nightly fuzz "$1" --sanitizer none "${@:2}"; }

# Of a corpus that reaches what this one reaches, with as few inputs as that takes: a hundred, short ones and longer ones, and 64 kB at
# most beside the handwritten ones; it is committed.
small() {
  local corpus="fuzz/corpus/$1" merged size=0
  merged=$(mktemp -d)
  fuzz run "$1" -- -set_cover_merge=1 -max_len=4096 "$merged" "$corpus" "fuzz/found/$1" || return 1
  find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  while read -r bytes file; do
    size=$((size + bytes))
    [ "$size" -le 64000 ] || break
    cp "$file" "$corpus"
  done < <(find "$merged" -type f -printf '%s %p\n' | sort -n | awk '{ line[NR] = $0 } END { for (i = 1; i <= 100; i++) print line[int((i * NR + 99) / 100)] }' | uniq)
  rm -r "$merged"
}

for path in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$path" .rs)
  [ "${TARGET:-$target}" = "$target" ] || continue
  mkdir -p "fuzz/found/$target"
  step "fuzzing $target" fuzz run "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
  step "making the corpus of $target small" small "$target"
done
