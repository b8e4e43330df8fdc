#!/bin/sh
# Makes the Containerfile's build image from this machine, since no image can be pulled.
#
#   tests/deploy/image/base.sh NAME
#
# The official Rust image is Debian with gcc, libc6-dev and a toolchain under /usr/local. So is this one, made of the
# Debian packages installed here. It has neither toolchain nor crates: mount them at /usr/local/rustup and
# /usr/local/cargo/registry.
# Calls podman with the caller's environment (CONTAINERS_CONF, CONTAINERS_STORAGE_CONF).
set -eu
name=$1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"

# Everything that Debian's gcc and a shell need, except files that no build reads.
packages=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances base-files dash coreutils sed gcc libc6-dev | grep '^[a-z0-9]' | sort -u)
# shellcheck disable=SC2086 # one word for each package
dpkg-query --listfiles $packages > "$work/packaged"
printf '%s\n' /bin /sbin /lib /lib64 /usr/bin/cc /etc/alternatives/cc >> "$work/packaged"
# Files packaged for /bin and /lib are under /usr, where Debian's symbolic links point.
grep '^/' "$work/packaged" | grep -vE '^/usr/share/(doc|info|locale|man)/' \
    | sed -E 's,^/(bin|sbin|lib|lib64)/,/usr/\1/,; s,^/,,' | sort -u > "$work/files"
tar --create --directory / --no-recursion --files-from "$work/files" | tar --extract --directory "$root"

mkdir -p "$root/usr/local/rustup" "$root/usr/local/cargo/bin" "$root/usr/local/cargo/registry"
ln -s ../../rustup/bin/cargo ../../rustup/bin/rustc "$root/usr/local/cargo/bin"

tar --create --directory "$root" . | podman import --quiet \
    --change ENV=PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --change ENV=CARGO_HOME=/usr/local/cargo \
    --change ENV=RUST_VERSION="$(rustc --version | cut -d ' ' -f 2)" \
    --change ENV=CARGO_NET_OFFLINE=true \
    - "$name"
