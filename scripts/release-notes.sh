#!/usr/bin/env bash
# release-notes.sh TAG : what CHANGELOG.md says of that version.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1#v}
notes=$(awk -v version="$version" '/^## / { on = index($0, "## " version " ") == 1 || $0 == "## " version; next } on' CHANGELOG.md)
[ -n "$notes" ] || { echo "CHANGELOG.md has nothing of $version" >&2; exit 1; }
printf '%s\n' "$notes"
