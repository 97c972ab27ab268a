#!/usr/bin/env bash
# The demo: a real project behind nginx, then behind HAProxy; version 1 to version 2 under load, a version 3 that
# crashes and is taken back, the receipt of each. Exit 1 when one request failed.
#
#   scripts/demo.sh               both proxies
#   scripts/demo.sh haproxy       only this one
#
# The projects are copies of examples/, in a temporary directory; everything is removed at the end, also after Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
PATH=$ROOT/.venv/bin:$PATH
PULL_SECONDS=60
ANSWER_SECONDS=120
FIRST_REQUESTS=300
PROJECT=rollout-demo

WORK=$(mktemp -d "${TMPDIR:-/tmp}/rollout-demo.XXXXXX")

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else BOLD='' DIM='' RED='' GREEN='' PLAIN=''; fi
heading() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }
die() { printf '%sdemo: %s%s\n' "$RED" "$*" "$PLAIN" >&2; exit 1; }
quietly() { "$@" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "failed: $*"; }; }
show() { # COMMAND as a user would type it: said, then run
    printf '%s$ %s%s\n' "$DIM" "${SHOWN:-$*}" "$PLAIN"
    env "$@"
}

# ---------------------------------------------------------------- before and after

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# The official image where it is here or a registry gives it, else the one built of Debian's packages.
REGISTRY=unknown
edge_image() { # OFFICIAL BUILT: answers in EDGE
    if have_image "$1"; then EDGE=$1; return; fi
    if ! have_image "$2" && [ $REGISTRY != silent ]; then
        echo "demo: pulling $1"
        if timeout $PULL_SECONDS docker pull -q "$1" >/dev/null 2>&1; then EDGE=$1; return; fi
        echo "demo: no registry gave it, building $2 of Debian's packages"
        REGISTRY=silent
    fi
    EDGE=$2
}

prepare() { # PROXY...
    local proxy wanted=(rollout-test/python:latest rollout-test/app:1 rollout-test/app:2 rollout-test/app:3)
    for proxy in "$@"; do
        case $proxy in
            nginx) edge_image nginx:1.30 rollout-test/nginx:1.30; NGINX_IMAGE=$EDGE ;;
            haproxy) edge_image haproxy:3.0 rollout-test/haproxy:3.0; HAPROXY_IMAGE=$EDGE ;;
            *) die "there is no example for $proxy: nginx or haproxy" ;;
        esac
        wanted+=("$EDGE")
    done
    scripts/images.sh "${wanted[@]}"
}

clean_up() {
    trap '' INT TERM HUP
    local proxy kept
    [ -z "${LOAD_PID:-}" ] || kill "$LOAD_PID" 2>/dev/null || true
    for proxy in nginx haproxy; do
        [ -d "$WORK/$proxy" ] || continue
        docker compose --project-directory "$WORK/$proxy" -p "$PROJECT-$proxy" down -v -t 0 >/dev/null 2>&1 || true
        kept=$(docker image ls -q --filter "reference=rollout-keep/$PROJECT-$proxy/*" 2>/dev/null | sort -u)
        [ -z "$kept" ] || docker image ls --format '{{.Repository}}:{{.Tag}}' \
            --filter "reference=rollout-keep/$PROJECT-$proxy/*" | xargs -r docker image rm >/dev/null 2>&1 || true
    done
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---------------------------------------------------------------- load

start_load() { # URL: returns once the first requests are answered
    coproc LOAD { cd "$ROOT" && exec python -m tests.load "$1" --mix "${MIX:-light}" --control; }
    # shellcheck disable=SC2153  # coproc makes LOAD_PID
    exec {TO_LOAD}>&"${LOAD[1]}" {FROM_LOAD}<&"${LOAD[0]}"
    answer_of_load
    printf '{"wait": %d}\n' $FIRST_REQUESTS >&"$TO_LOAD"
    answer_of_load
}

answer_of_load() { # answers in ANSWER
    IFS= read -r -t $ANSWER_SECONDS ANSWER <&"$FROM_LOAD" || die "the load client gives no answer"
}

# Prints what the clients saw; fails when one request did.
finish_load() { # PROXY
    printf '{"stop": true}\n' >&"$TO_LOAD"
    answer_of_load
    exec {TO_LOAD}>&- {FROM_LOAD}<&-
    wait "${LOAD_PID:-}" 2>/dev/null || true
    (cd "$ROOT" && python -c '
import json, sys
from tests.load.report import Report
report = Report.from_json(json.loads(sys.stdin.read())["report"])
print(report.describe())
with open(sys.argv[1], "a") as totals:
    print(report.total, report.failed, file=totals)
' "$WORK/totals" <<<"$ANSWER")
}

# ---------------------------------------------------------------- the story

story() { # PROXY IMAGE
    local proxy=$1 code=0 address
    cp -r "examples/$proxy" "$WORK/$proxy"
    cd "$WORK/$proxy"
    # what a user of the example may set, too; the engine picks the port
    export COMPOSE_PROJECT_NAME=$PROJECT-$proxy EDGE_IMAGE=$2 EDGE_PORT=0 WEB_IMAGE=rollout-test/app
    EDGE_USER=$(id -u):$(id -g)
    export EDGE_USER

    heading "$proxy ($2): the proxy starts first, with nothing to send requests to; then version 1, two replicas"
    show rollout render
    printf '%s$ docker compose up -d edge%s\n' "$DIM" "$PLAIN"
    quietly docker compose up -d edge
    show TAG=1 rollout deploy

    address=$(docker compose port edge 80)
    heading "load on port ${address##*:}: GET and POST, fresh, kept-alive and preconnected, slow uploads, streams, WebSockets"
    start_load "http://127.0.0.1:${address##*:}"
    echo "$FIRST_REQUESTS requests are answered, more go on"

    heading "version 2 while they do"
    show TAG=2 rollout deploy

    heading "version 3 crashes at its start: the deploy must fail and change nothing"
    SHOWN="TAG=3 CRASH_AT_START='DATABASE_URL is not set' rollout deploy" \
        show TAG=3 CRASH_AT_START='DATABASE_URL is not set' rollout deploy || code=$?
    [ $code = 1 ] || die "the deploy of the broken version ended with exit code $code, not with 1"
    echo "exit code $code"
    show rollout status

    heading "what the clients of $proxy saw"
    finish_load "$proxy"
    cd "$ROOT"
}

PROXIES=("${@:-nginx}")
[ $# -gt 0 ] || PROXIES=(nginx haproxy)
prepare "${PROXIES[@]}"
for proxy in "${PROXIES[@]}"; do
    case $proxy in nginx) story nginx "$NGINX_IMAGE" ;; haproxy) story haproxy "$HAPROXY_IMAGE" ;; esac
done

read -r requests failed < <(awk '{requests += $1; failed += $2} END {print requests + 0, failed + 0}' "$WORK/totals")
if [ "$requests" -gt 0 ] && [ "$failed" = 0 ]; then
    printf '\n%srequests: %d, failed: 0%s\n' "$GREEN$BOLD" "$requests" "$PLAIN"
else
    printf '\n%srequests: %d, failed: %d%s\n' "$RED$BOLD" "$requests" "$failed" "$PLAIN"
    exit 1
fi
