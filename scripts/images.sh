#!/usr/bin/env bash
# Builds the images that the tests, the demo and the benchmark run, where they are missing or out of date.
# Each carries a hash of what it was built from; an image whose hash still fits is left alone.
#
#   scripts/images.sh           all of them
#   scripts/images.sh TAG...    only these, e.g. rollout-test/nginx:1.26
set -euo pipefail
cd "$(dirname "$0")/.."

LABEL=rollout-test.sources
SOURCES=tests/images
APP=tests/load/app.py
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

base_id=$(docker image inspect --format '{{.Id}}' debian:trixie-slim 2>/dev/null) \
    || { echo "images: debian:trixie-slim is missing: run scripts/setup.sh" >&2; exit 1; }
present=$(docker image ls --filter "label=$LABEL" --format '{{.Repository}}:{{.Tag}}' | sort -u | xargs -r docker image inspect \
    --format "{{range .RepoTags}}{{.}} {{end}}|{{index .Config.Labels \"$LABEL\"}}")

wanted() { # TAG
    local tag
    [ ${#only[@]} -gt 0 ] || return 0
    for tag in "${only[@]}"; do [ "$tag" != "$1" ] || return 0; done
    return 1
}

build() { # TAG DOCKERFILE CONTEXT_FILES [BUILD_ARG...]
    local tag=$1 dockerfile=$2 files=$3 hash arg args=()
    shift 3
    wanted "$tag" || return 0
    hash=$({ echo "$base_id" "$@"; cat "$dockerfile" $files; } | sha256sum | cut -c1-16)
    if grep -qE "(^| )$tag .*\|$hash$" <<<"$present"; then return 0; fi
    echo "images: building $tag"
    for arg in "$@"; do args+=(--build-arg "$arg"); done
    local context=$WORK/${tag//[\/:]/-}
    mkdir -p "$context"
    cp "$dockerfile" "$context/Dockerfile"
    [ -z "$files" ] || cp $files "$context/"
    DOCKER_BUILDKIT=0 docker build -q -t "$tag" --label "$LABEL=$hash" "${args[@]}" "$context" >"$WORK/log" 2>&1 \
        || { cat "$WORK/log" >&2; echo "images: $tag could not be built" >&2; exit 1; }
}

only=("$@")
suite() { # TAG NAME SUITE
    build "$1" "$SOURCES/$2.Dockerfile" "$SOURCES/second-suite" "SUITE=$3"
}

suite rollout-test/nginx:1.26 nginx trixie
suite rollout-test/nginx:1.30 nginx sid
suite rollout-test/nginx:1.22 nginx bookworm
suite rollout-test/haproxy:3.0 haproxy trixie
suite rollout-test/haproxy:3.2 haproxy sid
suite rollout-test/haproxy:2.6 haproxy bookworm
build rollout-test/python:latest "$SOURCES/python.Dockerfile" ""
if [ -f "$APP" ]; then
    for version in 1 2 3; do
        build "rollout-test/app:$version" "$SOURCES/app.Dockerfile" "$APP" "ROLLOUT_APP_VERSION=$version"
    done
fi
