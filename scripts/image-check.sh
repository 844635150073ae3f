#!/usr/bin/env bash
# What can be seen of the image without a container engine: the release binary in a bare root folder that deploy/image/root.sh
# lays out and the Dockerfile's last stage copies, started read-only, as a user without rights, as process 1 of
# its own process, mount and network namespaces. It must become ready, take a webhook, and end with 0 at SIGTERM.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ "$(id -u)" -eq 0 ] || fail "namespaces and another user need root: run it with sudo"
apt curl iproute2 util-linux
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
binary="${1:-$CARGO_TARGET_DIR/release/fleetbus}"
if [ $# -eq 0 ]; then
  # The commit is in a release only: with it, every commit would build anew here.
  step "building the release binary (minutes)" cargo build --release --locked --quiet
fi

work=$(mktemp -d /tmp/fleetbus-image.XXXXXX)
root=$work/root
holder=
tidy() {
  [ -z "$holder" ] || { kill -KILL "$holder"; wait "$holder"; } 2>/dev/null || true
  rm -rf "$work"
}
trap tidy EXIT

# The Dockerfile's own line, whose / is a folder here.
build=$work/build
mkdir "$build"
layout=$(sed -nE "/^RUN deploy.image.root.sh /{s/^RUN //; s| /| $build/|g; s|target/release/fleetbus|\"\$binary\"|; p}" Dockerfile)
eval "${layout:?the Dockerfile does not run root.sh}"
# Its COPYs, as BuildKit does them: a folder that is made gets the owner, one that is there keeps its own.
while read -r owner source target; do
  kept=$owner
  [ ! -d "$root$target" ] || kept=$(stat -c %u:%g "$root$target")
  mkdir -p "$root$target"
  cp -a "$build$source/." "$root$target"
  chown -Rh "$owner" "$root$target"
  chown "$kept" "$root$target"
done < <(awk '/^COPY --from=build / { print ($3 ~ /^--chown=/ ? substr($3, 9) : "0:0"), $(NF - 1), $NF }' Dockerfile)
# What an engine adds: a configuration, and a new volume, which is filled from the image's folder and has its owner.
mkdir "$work/mounted"
cp -a "$root/data" "$work/data"
cp deploy/image/check.yaml "$work/mounted/fleetbus.yaml"

# Where the image's OpenSSL looks for CAs, as it names the place itself.
openssl=$(find "$root" -name 'libcrypto.so*' -exec grep -aohm 1 'OPENSSLDIR: "[^"]*"' {} + | cut -d '"' -f 2 || true)
trusted=$root$openssl/cert.pem
[ -L "$trusted" ] && trusted=$root$(readlink "$trusted")
grep -qs 'BEGIN CERTIFICATE' "$trusted" || fail "OpenSSL finds no CA certificates in the image: ${openssl:-no libcrypto}/cert.pem"

inside='
  mount --make-rprivate /
  mount --bind "$1/root" "$1/root"
  mount --bind "$1/mounted" "$1/root/etc/fleetbus"
  mount --bind "$1/data" "$1/root/data"
  mount -t proc proc "$1/root/proc"
  mount -o remount,bind,ro "$1/root/etc/fleetbus"
  mount -o remount,bind,ro "$1/root"
  ip link set lo up
  exec env -i ACME_TOKEN=a-token-of-the-check FLEETBUS_CONFIG=/etc/fleetbus/fleetbus.yaml \
    setpriv --no-new-privs "$2" --userspec=65532:65532 --groups= "$1/root" /usr/bin/fleetbus run'
started=$(date +%s%N)
unshare --mount --pid --net --fork --kill-child bash -ec "$inside" inside "$work" "$(command -v chroot)" 2> "$work/log" &
holder=$!

in_it() { nsenter --target "$process" --net "$@"; }
as_it() { nsenter --target "$process" --mount --net --pid --root --setuid 65532 --setgid 65532 "$@"; }
bail() { cat "$work/log" >&2; fail "$1"; }
ready=
for _ in $(seq 600); do
  kill -0 "$holder" 2>/dev/null || bail "it ended before it was ready"
  process=$(pgrep -P "$holder" || true)
  # The image's own health check, where an engine would run it.
  if [ -n "$process" ] && as_it /usr/bin/fleetbus health > "$work/health" 2>&1; then ready=yes; break; fi
  sleep 0.05
done
[ -n "$ready" ] || bail "not ready within 30 s: $(cat "$work/health")"
took=$((($(date +%s%N) - started) / 1000000))

user=$(awk '/^Uid:/ { print $2 }' "/proc/$process/status")
[ "$user" = 65532 ] || bail "it runs as user $user"
[ "$(awk '/^CapEff:/ { print $2 }' "/proc/$process/status")" = 0000000000000000 ] || bail "it has capabilities"
[ "$(awk '/^NSpid:/ { print $NF }' "/proc/$process/status")" = 1 ] || bail "it is not process 1"
awk '$5 == "/" { exit $6 !~ /(^|,)ro(,|$)/ }' "/proc/$process/mountinfo" || bail "its root can be written"
outside=$(awk -v root="$root/" 'NF >= 6 && $6 ~ "^/" && index($6, root) != 1 { print $6 }' "/proc/$process/maps")
[ -z "$outside" ] || bail "it maps files from elsewhere: $outside"
answer=$(in_it curl -sS -m 20 -o "$work/answer" -w '%{http_code}' -H 'authorization: a-token-of-the-check' \
  -d '{"pushType":"POSITION","imei":"350000000000017","date":1767009600000,"latitude":35.1,"longitude":-80.8,"speed":30}' \
  http://127.0.0.1:8080/webhooks/acme)
[ "$answer" = 201 ] || bail "a webhook was answered $answer: $(cat "$work/answer")"
grep -q '"delivered":1' "$work/answer" || bail "not delivered: $(cat "$work/answer")"
memory=$(awk '/^VmRSS:/ { print $2 }' "/proc/$process/status")

kill -TERM "$process"
code=0
wait "$holder" || code=$?
holder=
[ "$code" -eq 0 ] || bail "SIGTERM to process 1 ended with $code"
[ -n "$(ls "$work/data")" ] || bail "nothing was kept in /data"
files=$(find "$root" -type f | wc -l)
size() { du -k --apparent-size "$@" | tail -1 | cut -f1; }
echo "image: $files files, $(size -s "$root") KiB, the binary $(size "$binary") KiB; ready after $took ms with $memory KiB resident, read-only, user 65532, no capability; a webhook answered 201; SIGTERM to process 1 ended with 0"
