# A registry that wants a password, as private ones do. It keeps what is pushed in memory. On 127.0.0.1 it needs no TLS.
# busybox is what the images that are pushed to it consist of.
FROM debian:trixie-slim
RUN apt-get -q -o Acquire::Check-Valid-Until=false update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        docker-registry apache2-utils busybox-static \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /etc/registry \
    && htpasswd -Bbc /etc/registry/users deployer secret \
    && printf '%s\n' 'version: 0.1' 'storage: { inmemory: {} }' 'http: { addr: ":5000" }' \
        'auth: { htpasswd: { realm: registry, path: /etc/registry/users } }' >/etc/registry/config.yml
EXPOSE 5000
CMD ["docker-registry", "serve", "/etc/registry/config.yml"]
