# nginx laid out as in its official image: the default site gone, logs on stdout and stderr, SIGQUIT to stop.
FROM debian:trixie-slim
ARG SUITE=trixie
COPY second-suite /usr/local/bin/
RUN sh /usr/local/bin/second-suite $SUITE \
    && apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends nginx/$SUITE nginx-common/$SUITE \
    && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/default \
    && ln -sf /dev/stdout /var/log/nginx/access.log \
    && ln -sf /dev/stderr /var/log/nginx/error.log
STOPSIGNAL SIGQUIT
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
