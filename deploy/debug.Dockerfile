# The image of `make debug-pod`: clients of the stores, and nothing of ours.
#
# BASE is the services' (deploy/Dockerfile), by digest:
#   docker build -f deploy/debug.Dockerfile --build-arg BASE=python:3.11-slim-bookworm@sha256:... \
#     -t registry.example/dialler/debug:0.1.0 deploy
# checkov:skip=CKV_DOCKER_7: BASE is given by digest.
ARG BASE

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends curl mariadb-client postgresql-client redis-tools && \
    rm -rf /var/lib/apt/lists/*
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
# checkov:skip=CKV_DOCKER_2: It serves nothing.
CMD ["sleep", "3600"]
