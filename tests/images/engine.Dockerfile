# A Docker engine of another version than the host's, as a host of its own: its containers run inside this one.
FROM debian:trixie-slim
ARG SUITE=trixie
COPY second-suite engine-init /usr/local/bin/
RUN sh /usr/local/bin/second-suite $SUITE \
    && rm -f /etc/apt/preferences.d/second-suite \
    && apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends -t $SUITE \
        docker.io docker-cli iptables ca-certificates procps \
    && rm -rf /var/lib/apt/lists/*
VOLUME /var/lib/docker
ENTRYPOINT ["sh", "/usr/local/bin/engine-init"]
