# The stores of the overlay `local` in one image, for kind and minikube: MariaDB, PostgreSQL, Redis and the
# SQS endpoint of `make run`, with invented people. Not for production, and in no registry.
#
# BASE is the base of deploy/Dockerfile: a Debian with Python 3.11 or later, named by digest.
# Build secrets, both optional: `pip.conf` and `ca.crt`, as there.
# checkov:skip=CKV_DOCKER_7: BASE is given by digest; `make image` takes no other.
ARG BASE
FROM ${BASE}
# Their own services are not started, nor their data made: that is devstack's. The local base has the
# packages already, and no apt.
# hadolint ignore=DL3008
RUN set -eu; \
    if ! command -v mariadbd > /dev/null; then \
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; \
        chmod +x /usr/sbin/policy-rc.d; \
        apt-get -qq update; \
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
            mariadb-server postgresql redis-server > /dev/null; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    rm -rf /var/lib/mysql/* /var/lib/postgresql/*; \
    # initdb asks what its account is called.
    useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stores; \
    install -d -o 10001 -g 10001 -m 0700 /data
COPY deploy/locks/stores.lock /app/requirements.lock
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    set -eu; \
    python3 -m venv /opt/venv; \
    /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --require-hashes \
        --only-binary :all: --requirement /app/requirements.lock
COPY mainapp /app/mainapp
COPY devstack /app/devstack
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
# checkov:skip=CKV_DOCKER_2: Kubernetes asks after its health, and ignores HEALTHCHECK.
ENTRYPOINT ["python", "-m"]
CMD ["devstack.stores"]
