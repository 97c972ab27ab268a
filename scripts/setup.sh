#!/usr/bin/env bash
# Makes this machine ready to develop and test rollout: Docker engine, Compose v2, the base image, a Python
# environment in .venv, a browser. Looks first, does only what is missing, and says each thing it does in one line.
#
#   scripts/setup.sh               asks before it installs system packages (on a terminal)
#   ASSUME_YES=1 scripts/setup.sh  never asks
#   PYTHON=/path/to/python3        the Python to build .venv with (3.11 or newer)
#
# Debian 12 and 13, and Ubuntu; root, or a user with sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

BASE_IMAGE=debian:trixie-slim
DOCKERD_LOG=/var/log/dockerd.log
ENGINE_RUN=/var/run/docker
PULL_SECONDS=120
START_SECONDS=30

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else die "this needs root, and there is no sudo: $*"; fi
}

# debootstrap makes device nodes, which /tmp may forbid; and a root file system is large for a /tmp in memory.
WORK=
work_dir() { [ -n "$WORK" ] || { WORK=$(mktemp -d -p /var/tmp rollout-setup.XXXXXX); chmod 755 "$WORK"; }; }
trap '[ -z "$WORK" ] || as_root rm -rf "$WORK"' EXIT

# ---------------------------------------------------------------- packages

APT=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Check-Valid-Until=false)
APT_READY=

apt_ready() {
    [ -z "$APT_READY" ] || return 0
    have apt-get || die "no apt-get here: install Docker Engine, Compose v2 and Python 3.11+ by hand, then run this again"
    as_root "${APT[@]}" update || say "some package lists could not be refreshed; going on with what there is"
    APT_READY=1
}

agreed() { # QUESTION
    if [ -n "${ASSUME_YES:-}" ] || [ ! -t 0 ]; then return 0; fi
    local answer
    read -r -p "setup: $1 [Y/n] " answer
    case $answer in ""|[yY]*) ;; *) die "stopped, as you wished; nothing half-done is left" ;; esac
}

candidate() { # PACKAGE: the version apt would install, or nothing
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'
}

apt_install() { # PACKAGE...
    agreed "install with apt: $*?"
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        "${APT[@]}" install -y --no-install-recommends "$@" >/dev/null || die "apt could not install $*"
}

# ---------------------------------------------------------------- engine

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

ensure_engine() {
    if have docker && engine_answers; then return; fi
    [ -z "${DOCKER_HOST:-}" ] || die "DOCKER_HOST is $DOCKER_HOST, and no engine answers there"
    if ! have dockerd || ! have docker; then install_engine; fi
    join_docker_group
    engine_answers || start_engine
}

install_engine() {
    apt_ready
    local packages=(docker.io iptables)
    # Debian 13 has the client in a package of its own.
    if ! have docker && [ -n "$(candidate docker-cli)" ]; then packages+=(docker-cli); fi
    apt_install "${packages[@]}"
}

# A user who may not open the engine's socket goes on inside the group docker, without logging in again.
join_docker_group() {
    if [ "$(id -u)" = 0 ] || id -nG | grep -qw docker; then return; fi
    local user
    user=$(id -un)
    if ! id -nG "$user" | grep -qw docker; then
        agreed "add $user to the group docker, which is as powerful as root?"
        as_root usermod -aG docker "$user"
        say "added $user to the group docker; shells opened from now on have it, this one needs: newgrp docker"
    fi
    exec 9<&-
    exec sg docker -c "exec $(printf '%q' "$PWD/scripts/setup.sh")"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        say "starting the engine with systemd"
        as_root systemctl start docker
        engine_came_up "" || die "the engine does not answer: see 'journalctl -u docker'"
        return
    fi
    if running "$(dockerd_pid)" dockerd; then
        engine_came_up "$(dockerd_pid)" && return
        if running "$(dockerd_pid)" dockerd; then
            die "dockerd runs (pid $(dockerd_pid)) but does not answer: see its log"
        fi
        say "the engine that was there has just ended"
    fi
    forget_dead_engine
    say "starting dockerd in the background (log: $DOCKERD_LOG)"
    launch_dockerd && return
    end_stuck_containerd
    forget_dead_engine
    say "starting dockerd once more"
    launch_dockerd || die "the engine does not start; the end of its log: $(as_root tail -n 5 "$DOCKERD_LOG")"
}

launch_dockerd() {
    local pid
    # A session of its own, no terminal, none of our files: it outlives this script and whoever called it.
    pid=$(as_root sh -c 'setsid dockerd </dev/null >>"$1" 2>&1 9<&- & echo $!' sh "$DOCKERD_LOG")
    if engine_came_up "$pid"; then return 0; fi
    if running "$pid" dockerd; then as_root kill -9 "$pid"; fi
    return 1
}

engine_came_up() { # PID of dockerd, or nothing where another program looks after it
    local deadline=$((SECONDS + START_SECONDS))
    until engine_answers; do
        if [ -n "$1" ] && [ ! -d "/proc/$1" ]; then return 1; fi
        if [ "$SECONDS" -ge "$deadline" ]; then return 1; fi
        sleep 0.1
    done
}

running() { # PID NAME: does a process of that name run under that pid?
    [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ]
}

dockerd_pid() { cat "$ENGINE_RUN.pid" 2>/dev/null || true; }
containerd_pid() { as_root cat "$ENGINE_RUN/containerd/containerd.pid" 2>/dev/null || true; }

# What an engine that was killed leaves behind can keep the next one from starting.
forget_dead_engine() {
    local socket=/run/containerd/containerd.sock
    if [ -e $ENGINE_RUN.pid ] && ! running "$(dockerd_pid)" dockerd; then
        say "removing the stale $ENGINE_RUN.pid: no dockerd has pid $(dockerd_pid)"
        as_root rm -f $ENGINE_RUN.pid
    fi
    if [ -n "$(containerd_pid)" ] && ! running "$(containerd_pid)" containerd; then
        say "removing the stale pid file of containerd"
        as_root rm -f $ENGINE_RUN/containerd/containerd.pid
    fi
    # dockerd relies on a system containerd wherever this file exists, listened to or not.
    if [ -S $socket ] && ! grep -q " \(/var\)\?$socket\$" /proc/net/unix; then
        say "removing the stale $socket: nothing listens there"
        as_root rm -f $socket
    fi
}

# The containerd of a killed engine lives on; the next engine takes it over, unless it no longer answers.
end_stuck_containerd() {
    local pid
    pid=$(containerd_pid)
    if running "$pid" containerd; then
        say "ending the containerd that a dead engine left (pid $pid)"
        as_root kill -9 "$pid"
        while running "$pid" containerd; do sleep 0.1; done
    fi
}

# ---------------------------------------------------------------- Compose v2

compose_version() { docker compose version --short 2>/dev/null || docker-compose version --short 2>/dev/null; }

compose_v2() {
    local version
    version=$(compose_version) || return 1
    case ${version#v} in [2-9].*|[1-9][0-9].*) ;; *) return 1 ;; esac
}

ensure_compose() {
    if compose_v2; then return; fi
    apt_ready
    # The names in Docker's own repository, Ubuntu, and Debian 13; where Docker's is set up, it is preferred.
    if [ -n "$(candidate docker-compose-plugin)" ]; then apt_install docker-compose-plugin
    elif [ -n "$(candidate docker-compose-v2)" ]; then apt_install docker-compose-v2
    elif dpkg --compare-versions "$(candidate docker-compose)" ge 2; then apt_install docker-compose
    else install_next_compose; fi
    compose_v2 || die "Compose v2 was installed, but 'docker compose version' does not work"
}

# Debian 12 has Compose v1 only, but the package of Debian 13 needs nothing newer. Its source is derived from this
# machine's own and pinned low, in an apt configuration that lives no longer than this script.
install_next_compose() {
    [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ] \
        || die "no package of Compose v2 for this system: install 'docker compose' by hand"
    work_dir
    mkdir -p "$WORK/sources" "$WORK/preferences" "$WORK/lists/partial"
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        if [ -f "$file" ] && grep -q bookworm "$file"; then
            cp "$file" "$WORK/sources/"
            sed 's/bookworm/trixie/g' "$file" > "$WORK/sources/next-${file##*/}"
        fi
    done
    printf 'Package: *\nPin: release n=trixie*\nPin-Priority: 50\n' > "$WORK/preferences/next"
    local plain=("${APT[@]}")
    APT+=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$WORK/sources" -o "Dir::State::Lists=$WORK/lists"
          -o "Dir::Etc::PreferencesParts=$WORK/preferences" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    as_root "${APT[@]}" update || true
    apt_install docker-compose/trixie
    APT=("${plain[@]}")
}

# ---------------------------------------------------------------- base image

ensure_base_image() {
    if docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then return; fi
    say "pulling $BASE_IMAGE"
    if timeout "$PULL_SECONDS" docker pull -q "$BASE_IMAGE" >/dev/null 2>&1; then return; fi
    local packages=()
    have debootstrap || packages+=(debootstrap)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
    if [ ${#packages[@]} -gt 0 ]; then apt_ready; apt_install "${packages[@]}"; fi
    say "no registry gave it: making $BASE_IMAGE with debootstrap"
    work_dir
    as_root debootstrap --variant=minbase trixie "$WORK/root" >"$WORK/log" 2>&1 \
        || die "debootstrap failed: $(tail -n 3 "$WORK/log")"
    as_root sh -c 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' sh "$WORK/root"
    as_root tar -C "$WORK/root" -c . | docker import --change 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null
}

# ---------------------------------------------------------------- Python

ensure_venv() {
    # The stamp tells what .venv was made from: where the checkout stood, and the dependencies it was given.
    local stamp python
    stamp=$(pwd; sed '/^\[tool/,$d' pyproject.toml | sha256sum)
    if [ "$(cat .venv/.stamp 2>/dev/null)" = "$stamp" ] && [ -x .venv/bin/python ]; then return; fi
    if [ "$(head -n 1 .venv/.stamp 2>/dev/null)" != "$PWD" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        find_python >/dev/null || install_python
        python=$(find_python) || die "no Python 3.11 or newer found: set PYTHON=/path/to/python3"
        say "making .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv
        pwd > .venv/.stamp
    fi
    say "installing the Python dependencies into .venv"
    # Dependency groups need pip 25.1.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1' \
        && .venv/bin/python -m pip install -qq -e '.[server]' --group dev \
        || die "pip could not install them: see above"
    printf '%s\n' "$stamp" > .venv/.stamp
}

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

install_python() {
    apt_ready
    local version
    if dpkg --compare-versions "$(candidate python3)" ge 3.11; then apt_install python3 python3-venv; return; fi
    for version in 3.13 3.12 3.11; do
        if [ -n "$(candidate python$version-venv)" ]; then apt_install python$version-venv; return; fi
    done
}

# ---------------------------------------------------------------- browser

# The sidecar's page is tested in a real one: Debian's, or where there is no such package (Ubuntu has a snap) Playwright's.
ensure_browser() {
    if have chromium || ls "$HOME"/.cache/ms-playwright/chromium-* >/dev/null 2>&1; then return; fi
    apt_ready
    if [ -n "$(candidate chromium)" ]; then apt_install chromium fonts-dejavu-core; return; fi
    say "no package chromium here: installing Playwright's own"
    { as_root "$PWD/.venv/bin/playwright" install-deps chromium && .venv/bin/playwright install chromium; } >/dev/null \
        || say "that failed: the tests of the sidecar's page need a program named chromium"
}

# ---------------------------------------------------------------- in order

# Two of these at once (two `make` in one checkout) would write the same .venv: the second waits for the first.
exec 9<.
flock 9
ensure_engine
ensure_compose
ensure_base_image
ensure_venv
ensure_browser
say "ready: engine $(docker version --format '{{.Server.Version}}'), Compose $(compose_version), $(.venv/bin/python --version)"
