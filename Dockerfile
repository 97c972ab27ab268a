# The sidecar: `rollout serve` beside the proxy. No root where the engine's socket allows it, a read-only root file system
# with /tmp in memory, no build tools. docs/sidecar.md says how to run it.
FROM debian:trixie-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/*

FROM base AS build
RUN apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3-venv
WORKDIR /src
# ca.crt beside this file, if there is one: whom to trust where something on the way inspects TLS. Used here only.
COPY pyproject.toml ca.cr[t] ./
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off
RUN python3 -m venv /opt/rollout \
    && { [ ! -f ca.crt ] || printf '[global]\ncert = /src/ca.crt\n' >/etc/pip.conf; } \
    && python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*p["dependencies"], *p["optional-dependencies"]["server"], sep="\n")' >needed.txt \
    && /opt/rollout/bin/pip install -q -r needed.txt \
    && python3 -m compileall -q /opt/rollout/lib
COPY README.md LICENSE ./
COPY rollout rollout
COPY templates templates
RUN /opt/rollout/bin/pip install -q --no-deps . \
    && python3 -m compileall -q /opt/rollout/lib/python3*/site-packages/rollout \
    && /opt/rollout/bin/pip uninstall -q -y pip

FROM base
# Compose is called as the Docker CLI's plugin, by its own binary; tini reaps what it leaves and hands on signals
RUN apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        ca-certificates docker-compose tini tzdata \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/*
COPY --from=build /opt/rollout /opt/rollout
COPY scripts/sidecar-user /usr/local/bin/rollout
COPY scripts/sidecar-healthy /usr/local/bin/
ENV HOME=/tmp
ENTRYPOINT ["tini", "--", "rollout"]
CMD ["serve"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["rollout", "serve", "--healthy"]
