#!/bin/sh
# root.sh BINARY FOLDER : lays out the root of the image: the binary, the libraries that it is linked to, CA certificates, and
# names for one user. No shell and no package manager. The Dockerfile's last stage is this folder; `make image-check`
# runs it. Both on Debian.
set -eu

binary=$1 root=$2
case $root in '' | /) echo "root.sh: not into /" >&2; exit 64 ;; esac
# Nothing of an earlier layout stays.
rm -rf "$root"
mkdir -p "$root/etc/fleetbus" "$root/etc/ssl/certs" "$root/usr/bin" "$root/usr/lib/ssl" "$root/usr/share/doc" "$root/var/lib/dpkg/status.d"
# Where a container's kernel file systems and its volume are mounted; a read-only root cannot grow them.
mkdir -p "$root/data" "$root/dev" "$root/proc" "$root/sys" "$root/tmp"
install -m 755 "$binary" "$root/usr/bin/fleetbus"

# Each library at the path where the loader looks for it, and the loader itself.
ldd "$binary" | awk '/not found/ { exit 1 } $2 == "=>" { print $3 } $1 ~ "^/" { print $1 }' > "$root.libraries" ||
  { echo "root.sh: a library of $binary is missing here" >&2; exit 1; }
[ -s "$root.libraries" ] || { echo "root.sh: $binary is linked to nothing, or ldd failed" >&2; exit 1; }
while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done < "$root.libraries"

# What scanners read, as in distroless images: the Debian packages that these files come from, with their licences.
while read -r library; do
  # dpkg knows a file by its path on disk, which a merged /usr hides.
  dpkg -S "$(readlink -f "$library")" 2>/dev/null || dpkg -S "$library" 2>/dev/null ||
    dpkg -S "*/$(basename "$(readlink -f "$library")")"
done < "$root.libraries" | cut -d: -f1 | sort -u > "$root.packages"
echo ca-certificates >> "$root.packages"
while read -r package; do
  dpkg-query -s "$package" > "$root/var/lib/dpkg/status.d/$package"
  mkdir -p "$root/usr/share/doc/$package"
  cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done < "$root.packages"
rm "$root.libraries" "$root.packages"

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Where Debian's OpenSSL looks, by which Kafka's client speaks TLS.
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
echo 'fleetbus:x:65532:65532:fleetbus:/data:/usr/sbin/nologin' > "$root/etc/passwd"
echo 'fleetbus:x:65532:' > "$root/etc/group"
# Without it the C library asks DNS before /etc/hosts.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
