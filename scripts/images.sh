#!/usr/bin/env bash
# Builds the images that the tests, the demo and the benchmark run, where they are missing or out of date.
# Each carries a hash of what it was built from; an image whose hash still fits is left alone.
#
#   scripts/images.sh           all of them but the engines, which only `make faults` needs
#   scripts/images.sh TAG...    only these, e.g. rollout-test/nginx:1.26
set -euo pipefail
cd "$(dirname "$0")/../tests/images"

LABEL=rollout-test.sources
BASE_IMAGE=debian:trixie-slim
APP=../load/app.py
ONLY=" $* "
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

die() { printf 'images: %s\n' "$*" >&2; exit 1; }

base=$(docker image inspect --format '{{.Id}}' "$BASE_IMAGE" 2>/dev/null) \
    || die "$BASE_IMAGE is missing: run scripts/setup.sh"
present=$(docker image ls --quiet --filter "label=$LABEL" | sort -u | xargs -r docker image inspect \
    --format "{{range .RepoTags}}{{.}}={{index \$.Config.Labels \"$LABEL\"}} {{end}}" | tr '\n' ' ')

contents() { # FILE or directory...
    local of
    for of in "$@"; do find "$of" -type f -not -name '*.pyc' | LC_ALL=C sort | xargs cat; done
}

build() { # TAG BUILD_ARG DOCKERFILE [FILE or directory of the build context, or that it depends on]...
    local tag=$1 arg=$2 context=$WORK/${1//[\/:]/-} hash
    shift 2
    if [ "$ONLY" != "  " ] && [[ $ONLY != *" $tag "* ]]; then return; fi
    hash=$({ echo "$base $arg"; contents "$@"; } | sha256sum | cut -c 1-16)
    if [[ " $present" == *" $tag=$hash "* ]]; then return; fi
    echo "images: building $tag"
    mkdir "$context"
    cp -r "$@" "$context"
    if [ -n "${trusted:-}" ]; then cp "$trusted" "$context/ca.crt"; fi
    # BuildKit needs a plugin that not every machine has; the classic builder is part of every engine.
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$tag" --label "$LABEL=$hash" ${arg:+--build-arg "$arg"} \
        --file "$context/${1##*/}" "$context" >"$context.log" 2>&1 \
        || { cat "$context.log" >&2; die "$tag could not be built"; }
    touch "$WORK/built"
}

# For each proxy the version of Debian 12, of Debian 13, and a recent one: nginx 1.27.4 and later can keep idle
# connections open through a reload (keepalive_min_timeout), those before cannot.
build_nginx() {
    build rollout-test/nginx:1.22 SUITE=bookworm nginx.Dockerfile second-suite
    build rollout-test/nginx:1.26 SUITE=trixie nginx.Dockerfile second-suite
    build rollout-test/nginx:1.30 SUITE=sid nginx.Dockerfile second-suite
}

build_haproxy() {
    build rollout-test/haproxy:2.6 SUITE=bookworm haproxy.Dockerfile second-suite
    build rollout-test/haproxy:3.0 SUITE=trixie haproxy.Dockerfile second-suite
    build rollout-test/haproxy:3.2 SUITE=sid haproxy.Dockerfile second-suite
}

build_app() {
    build rollout-test/python:latest "" python.Dockerfile
    local version
    for version in 1 2 3; do
        build "rollout-test/app:$version" "ROLLOUT_APP_VERSION=$version" app.Dockerfile "$APP" python.Dockerfile
    done
}

build_registry() {
    build rollout-test/registry:latest "" registry.Dockerfile
}

# pip asks a registry of packages over TLS, and trusts whom this machine trusts.
build_sidecar() {
    local trusted=/etc/ssl/certs/ca-certificates.crt root=../..
    [ -f $trusted ] || trusted=
    mkdir "$WORK/scripts" && cp $root/scripts/sidecar-{user,healthy} "$WORK/scripts"
    build rollout-test/rollout:latest "" $root/Dockerfile $root/{pyproject.toml,README.md,LICENSE,rollout,templates} \
        "$WORK/scripts"
}

build_prometheus() {
    build rollout-test/prometheus:latest "" prometheus.Dockerfile
}

build_engines() {
    if [ "$ONLY" = "  " ]; then return; fi
    build rollout-test/engine:26.1 SUITE=trixie engine.Dockerfile second-suite engine-init
    build rollout-test/engine:28.5 SUITE=sid engine.Dockerfile second-suite engine-init
}

# Side by side: they wait for the network as much as they compute.
build_nginx & jobs=$!
build_haproxy & jobs+=" $!"
build_app & jobs+=" $!"
build_registry & jobs+=" $!"
build_sidecar & jobs+=" $!"
build_prometheus & jobs+=" $!"
build_engines & jobs+=" $!"
for job in $jobs; do wait "$job" || failed=1; done
# What was built anew leaves the former image without a name.
if [ -e "$WORK/built" ]; then docker image prune --force --filter "label=$LABEL" >/dev/null; fi
exit "${failed:-0}"
