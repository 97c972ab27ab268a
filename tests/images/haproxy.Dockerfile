# HAProxy in master-worker mode; its configuration is mounted: haproxy.cfg, and the folder that rollout writes.
FROM debian:trixie-slim
ARG SUITE=trixie
COPY second-suite /usr/local/bin/
RUN sh /usr/local/bin/second-suite $SUITE \
    && apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends haproxy/$SUITE \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /run/haproxy /etc/haproxy/rollout.d
STOPSIGNAL SIGUSR1
EXPOSE 80
CMD ["haproxy", "-W", "-db", "-S", "/run/haproxy/master.sock,level,admin", \
     "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/rollout.d"]
