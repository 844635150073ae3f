# Shared by the scripts: where things are kept, and how steps are said. Source it.

cache="${FLEETBUS_CACHE:-$HOME/.cache/fleetbus}"
mkdir -p "$cache/bin"
export PATH="$cache/bin:$HOME/.cargo/bin:/usr/local/go/bin:$PATH"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'fleetbus: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND… : runs it, says how long it took, and names it where it fails. A function that is run so gets no
# `set -e`: it returns what failed itself.
step() {
  local name="$1" begun=$SECONDS
  shift
  say "$name"
  "$@" || fail "$name failed: $*"
  say "$name: done in $((SECONDS - begun)) s"
}

# apt PACKAGE… : installs what is missing of Debian's packages. Elsewhere, what is already there is taken as it is.
apt() {
  local missing=() sudo=()
  if ! command -v dpkg >/dev/null; then
    say "not a Debian system: ${*} (or what they are called here) must be there"
    return 0
  fi
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq >/dev/null || true
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "could not install. Run: ${sudo[*]} apt-get install ${missing[*]}"
}

# need_go : a Go that can fetch the version which a module asks for (1.21 or newer).
need_go() {
  command -v go >/dev/null || apt golang-go
  command -v go >/dev/null || fail "go is missing. Install Go 1.21 or newer (https://go.dev/dl), then run this again"
  local version
  version=$(go env GOVERSION | sed -E 's/^go1\.([0-9]+).*/\1/')
  [ "$version" -ge 21 ] ||
    fail "$(go env GOVERSION) cannot build the tools. Install Go 1.21 or newer (https://go.dev/dl) into /usr/local/go"
}
