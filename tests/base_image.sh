#!/bin/sh
# Makes a base image of Debian's packages, where none can be pulled: Python 3.11, bash, and this machine's certificates.
# usage, as root: tests/base_image.sh NAME PODMAN…    PODMAN…: the command, as in `podman --runtime runc`
set -eu
name=$1
shift
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >&2
certificates=/etc/ssl/certs/ca-certificates.crt
cp "$certificates" "$root$certificates"
set -- "$@" import
for variable in SSL_CERT_FILE PIP_CERT; do
  set -- "$@" --change "ENV $variable=$certificates"
done
tar --directory "$root" --one-file-system --create --file "$root.tar" .
trap 'rm -rf --one-file-system "$root" "$root.tar"' EXIT
"$@" "$root.tar" "$name"
