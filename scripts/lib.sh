# Shared by the scripts: where things are kept, and how steps are said. Source it.

cache="${FLEETBUS_CACHE:-$HOME/.cache/fleetbus}"
mkdir -p "$cache/bin"
export PATH="$cache/bin:$HOME/.cargo/bin:/usr/local/go/bin:$PATH"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'fleetbus: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND… : runs it, says how long it took, and names it where it fails.
step() {
  local name="$1" begun=$SECONDS
  shift
  say "$name"
  "$@" || fail "$name failed: $*"
  say "$name: done in $((SECONDS - begun)) s"
}

# apt PACKAGE… : installs what is missing of Debian's packages.
apt() {
  local missing=()
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  if ! command -v apt-get >/dev/null; then
    fail "missing: ${missing[*]}. Install them with this system's package manager, then run this again"
  fi
  say "installing ${missing[*]}"
  $sudo apt-get update -qq >/dev/null || true
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "could not install. Run: $sudo apt-get install ${missing[*]}"
}
