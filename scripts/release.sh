#!/usr/bin/env bash
# release.sh FOLDER : what a release has for this machine's architecture: the binary, its licences and its bill of materials. The
# same commit on the same system gives the same bytes: docs/release.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

auditable=0.7.7
cyclonedx=0.5.9
folder=${1:-dist}
scripts/setup.sh
for tool in "cargo-auditable@$auditable" "cargo-cyclonedx@$cyclonedx"; do
  if ! grep -qs "^${tool#*@}$" "$cache/bin/${tool%@*}.version"; then
    step "building $tool" cargo install --quiet --locked --root "$cache" --target-dir "$cache/target-tools" "$tool"
    echo "${tool#*@}" > "$cache/bin/${tool%@*}.version"
  fi
done

revision=$(git rev-parse HEAD)
[ -z "$(git status --porcelain)" ] || fail "there are changes that no commit has: a release names its commit"
# Nothing of the place or the time of the build gets into the binary.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH FLEETBUS_REVISION=$revision
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
places="--remap-path-prefix=$PWD=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$CARGO_TARGET_DIR=/target"
c_places="-ffile-prefix-map=$PWD=/src -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo -ffile-prefix-map=$CARGO_TARGET_DIR=/target"
step "building the binary" env RUSTFLAGS="$places" CFLAGS="$c_places" CXXFLAGS="$c_places" \
  cargo auditable build --release --locked --quiet

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=fleetbus-$version-$(uname -m)-linux
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/$name"
install -m 755 "$CARGO_TARGET_DIR/release/fleetbus" "$work/$name/fleetbus"
"$work/$name/fleetbus" --version | grep -q "($revision)" || fail "the binary does not name its commit"
"$work/$name/fleetbus" licenses > "$work/$name/LICENSES-OF-DEPENDENCIES.txt"
cp LICENSE README.md CHANGELOG.md "$work/$name/"
# The tool writes beside Cargo.toml.
step "writing the bill of materials" cargo cyclonedx --quiet --format json --spec-version 1.5 --target all --override-filename fleetbus.cdx
mv fleetbus.cdx.json "$folder/$name.cdx.json"
tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --directory "$work" "$name" |
  gzip -n -9 > "$folder/$name.tar.gz"
(cd "$folder" && sha256sum "$name.tar.gz" "$name.cdx.json")
