#!/bin/sh
# Makes an image from a program of this machine, since the real image cannot be pulled.
#
#   tests/deploy/image/stand_in.sh NAME PROGRAM USER [FOLDER]
#
# The image has the program, the libraries that it loads, and what it needs to resolve names. It runs as USER, who owns
# FOLDER, as in the real image. Calls podman with the caller's environment.
set -eu
name=$1 program=$2 user=$3 folder=${4:-}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
libraries=$(ldd "$program" 2>/dev/null | grep -o '/[^ )]*' || true)
# The C library loads these two by name.
names=$(ldconfig -p | sed -n 's,.*libnss_\(dns\|files\)\.so\.2 .*=> ,,p')
for file in "$program" $libraries $names; do
    mkdir -p "$root/$(dirname "$file")"
    cp -L "$file" "$root/$file"
done
mkdir -p "$root/etc" "$root/tmp"
if [ -n "$folder" ]; then
    mkdir -p "$root/$folder"
    chown "$user" "$root/$folder"
fi
tar --create --directory "$root" . | podman import --quiet \
    --change "ENTRYPOINT [\"$program\"]" --change "USER $user" - "$name"
