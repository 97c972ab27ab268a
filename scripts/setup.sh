#!/usr/bin/env bash
# Makes this machine ready to develop and test rollout: Docker engine, Compose v2, the base image, a Python
# environment in .venv. Looks first, does only what is missing, and says each thing it does in one line.
#
#   scripts/setup.sh               asks before it installs system packages (on a terminal)
#   ASSUME_YES=1 scripts/setup.sh  never asks
#   PYTHON=/path/to/python3        the Python to build .venv with (3.11 or newer)
#
# Debian 12 and 13, and Ubuntu; root, or a user with sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

BASE_IMAGE=debian:trixie-slim
DOCKERD_LOG=/var/log/dockerd.log
APT_UPDATE=(apt-get -qq -o Acquire::Check-Valid-Until=false update)
WORK=

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
clean_up() { [ -z "$WORK" ] || as_root rm -rf "$WORK"; }
trap clean_up EXIT

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else die "this needs root, and there is no sudo: $*"; fi
}

# ---------------------------------------------------------------- packages

APT_READY=
APT_OPTIONS=()
apt_ready() {
    [ -z "$APT_READY" ] || return 0
    have apt-get || die "no apt-get here: install Docker Engine, Compose v2 and Python 3.11+ by hand, then run this again"
    as_root "${APT_UPDATE[@]}" || say "some package lists could not be refreshed; going on with what there is"
    APT_READY=1
}

may_install() {
    [ -n "${ASSUME_YES:-}" ] || [ ! -t 0 ] && return 0
    local answer
    read -r -p "setup: install system packages ($*)? [Y/n] " answer
    case $answer in ""|[yY]*) ;; *) die "stopped: nothing was installed" ;; esac
}

candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }

apt_install() { # uses APT_OPTIONS
    may_install "$@"
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        apt-get -qq "${APT_OPTIONS[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# ---------------------------------------------------------------- engine

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

ensure_engine() {
    if have docker && engine_answers; then return; fi
    [ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST is $DOCKER_HOST, and no engine answers there"
    PATH=$PATH:/usr/sbin:/sbin
    if ! have dockerd || ! have docker; then install_engine; fi
    engine_answers && return
    join_docker_group
    start_engine
}

install_engine() {
    apt_ready
    local packages=(docker.io iptables)
    # Debian 13 has the client in a package of its own.
    if ! have docker && [ -n "$(candidate docker-cli)" ]; then packages+=(docker-cli); fi
    apt_install "${packages[@]}"
}

# A user who may not open the socket goes on in the docker group, without logging in again.
join_docker_group() {
    [ "$(id -u)" != 0 ] || return 0
    local socket=/var/run/docker.sock
    [ -S $socket ] && [ -w $socket ] && return
    if id -nG | tr ' ' '\n' | grep -qx docker; then return; fi
    [ -z "${ROLLOUT_IN_DOCKER_GROUP:-}" ] || die "still no access to $socket inside the docker group"
    if ! id -nG "$(id -un)" | tr ' ' '\n' | grep -qx docker; then
        may_install "and add $(id -un) to the group docker, which is as powerful as root"
        as_root usermod -aG docker "$(id -un)"
        say "added $(id -un) to the group docker: new log-ins have it, this shell needs 'newgrp docker'"
    fi
    exec sg docker -c "ROLLOUT_IN_DOCKER_GROUP=1 exec $(printf '%q' "$PWD/scripts/setup.sh")"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting the engine with systemd"
        as_root systemctl start docker
        wait_for_engine "" 60 || die "the engine does not answer: see 'journalctl -u docker'"
        return
    fi
    forget_dead_engine
    say "starting dockerd in the background (log: $DOCKERD_LOG)"
    launch_dockerd 30 && return
    forget_dead_engine stuck
    say "starting dockerd once more"
    launch_dockerd 30 || die "the engine does not answer; the end of $DOCKERD_LOG:
$(as_root tail -n 5 "$DOCKERD_LOG")"
}

launch_dockerd() {
    local pid
    # Its own session and no terminal: it outlives this script, and Ctrl-C in the shell does not reach it.
    pid=$(as_root sh -c 'setsid dockerd </dev/null >>"$1" 2>&1 & echo $!' sh "$DOCKERD_LOG")
    wait_for_engine "$pid" "$1"
}

wait_for_engine() { # PID SECONDS
    local deadline=$((SECONDS + $2))
    until engine_answers; do
        if [ -n "$1" ] && [ ! -d "/proc/$1" ]; then return 1; fi
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

runs_as() { # PID NAME
    [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ]
}

# What an engine that was killed leaves behind can stop the next one.
forget_dead_engine() { # [stuck]
    local run=/var/run/docker pid
    pid=$(cat $run.pid 2>/dev/null || true)
    if [ -n "$pid" ] && runs_as "$pid" dockerd; then
        wait_for_engine "$pid" 15 || die "dockerd (pid $pid) runs but does not answer; see its log"
        return
    fi
    [ -z "$pid" ] || { say "removing the stale $run.pid (no dockerd has pid $pid)"; as_root rm -f $run.pid; }
    pid=$(as_root cat $run/containerd/containerd.pid 2>/dev/null || true)
    if [ -n "$pid" ] && runs_as "$pid" containerd && [ "${1:-}" = stuck ]; then
        say "ending the containerd that the dead engine left (pid $pid)"
        as_root kill -9 "$pid"
        as_root rm -f $run/containerd/containerd.pid
    elif [ -n "$pid" ] && ! runs_as "$pid" containerd; then
        as_root rm -f $run/containerd/containerd.pid
    fi
    # dockerd waits for a system containerd whenever this file exists, listened to or not.
    if [ -S /run/containerd/containerd.sock ] && ! grep -q '/run/containerd/containerd.sock$' /proc/net/unix; then
        as_root rm -f /run/containerd/containerd.sock
    fi
}

# ---------------------------------------------------------------- Compose v2

compose_v2() {
    local version
    version=$(docker compose version --short 2>/dev/null || docker-compose version --short 2>/dev/null || true)
    case ${version#v} in [2-9].*|[1-9][0-9].*) return 0 ;; *) return 1 ;; esac
}

ensure_compose() {
    if compose_v2; then return; fi
    apt_ready
    local package
    for package in docker-compose-v2 docker-compose-plugin; do
        if [ -n "$(candidate $package)" ]; then apt_install $package; compose_v2 && return; fi
    done
    case $(candidate docker-compose) in
        [2-9]*) apt_install docker-compose ;;
        *) install_compose_from_trixie ;;
    esac
    compose_v2 || die "Compose v2 was installed but 'docker compose version' fails"
}

# Debian 12 has only Compose v1. The next release's package needs nothing newer; its source is derived from this
# machine's own, used through a private apt configuration, and gone afterwards.
install_compose_from_trixie() {
    . /etc/os-release
    [ "${VERSION_CODENAME:-}" = bookworm ] || die "no package with Compose v2 here: install 'docker compose' by hand"
    WORK=$(mktemp -d)
    mkdir -p "$WORK/sources" "$WORK/preferences" "$WORK/lists/partial"
    chmod 755 "$WORK"
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if [ -f "$file" ] && grep -q bookworm "$file"; then
            cp "$file" "$WORK/sources/"
            sed 's/bookworm/trixie/g' "$file" > "$WORK/sources/next-${file##*/}"
        fi
    done
    printf 'Package: *\nPin: release n=trixie*\nPin-Priority: 50\n' > "$WORK/preferences/next"
    APT_OPTIONS=(-o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$WORK/sources"
                   -o "Dir::Etc::PreferencesParts=$WORK/preferences" -o "Dir::State::Lists=$WORK/lists"
                   -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
    as_root "${APT_UPDATE[@]}" "${APT_OPTIONS[@]}" || true
    apt_install docker-compose/trixie
    APT_OPTIONS=()
}

# ---------------------------------------------------------------- base image

ensure_base_image() {
    if docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then return; fi
    say "pulling $BASE_IMAGE"
    if timeout 60 docker pull -q "$BASE_IMAGE" >/dev/null 2>&1; then return; fi
    say "no registry answers: building $BASE_IMAGE with debootstrap"
    bootstrap_base_image
}

bootstrap_base_image() {
    local packages=()
    have debootstrap || [ -x /usr/sbin/debootstrap ] || packages+=(debootstrap)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
    if [ ${#packages[@]} -gt 0 ]; then apt_ready; apt_install "${packages[@]}"; fi
    local root
    WORK=$(mktemp -d)
    root=$WORK/root
    as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase trixie "$root" >"$WORK/log" 2>&1 \
        || die "debootstrap failed: $(tail -n 3 "$WORK/log")"
    as_root sh -c 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' sh "$root"
    as_root tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null
}

# ---------------------------------------------------------------- Python

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        if have "$name" && new_enough "$name"; then echo "$name"; return 0; fi
    done
    return 1
}

ensure_python() {
    # The stamp says what .venv was made from: a changed pyproject.toml or a moved checkout makes it anew.
    local stamp python
    stamp=$(cat pyproject.toml scripts/setup.sh <(pwd) | sha256sum)
    if [ "$(cat .venv/.stamp 2>/dev/null)" = "$stamp" ] && [ -x .venv/bin/python ]; then return; fi
    if ! .venv/bin/python -c '' 2>/dev/null; then
        python=$(find_python) || { install_python; python=$(find_python); } || die "Python 3.11 or newer not found: set PYTHON=/path/to/it"
        say "making .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "installing the project's Python dependencies into .venv"
    # Dependency groups need pip 25.1.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install -qq -e '.[server]' --group dev
    echo "$stamp" > .venv/.stamp
}

install_python() {
    apt_ready
    local version
    version=$(candidate python3)
    if dpkg --compare-versions "${version:-0}" ge 3.11; then apt_install python3 python3-venv; return; fi
    for version in 3.13 3.12 3.11; do
        if [ -n "$(candidate python$version-venv)" ]; then apt_install python$version-venv; return; fi
    done
}

ensure_engine
ensure_compose
ensure_base_image
ensure_python
say "ready: engine $(docker version --format '{{.Server.Version}}'), Compose $(docker compose version --short 2>/dev/null || docker-compose version --short), $(.venv/bin/python --version)"
