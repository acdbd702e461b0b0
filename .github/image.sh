#!/bin/sh
# Builds mergeline:cpu or mergeline:gpu on the newest Python 3.11 of Docker's library, named by its digest.
# usage: .github/image.sh cpu|gpu
set -eu
python=docker.io/library/python:3.11-slim-bookworm
# Runners have some 20 GB left, and these are not needed.
sudo rm -rf /usr/local/lib/android /usr/share/dotnet
digest=$(skopeo inspect --format '{{.Digest}}' "docker://$python")
make image EXTRA="$1" BASE="${python%:*}@$digest"
