#!/usr/bin/env bash
# The schema registry, its schemas in a file. One request at a time: schemas that several connectors
# register at once get in each other's way in its database.
set -euo pipefail

export HTTP_PORT=8081 QUARKUS_HTTP_HOST=0.0.0.0
export REGISTRY_DATASOURCE_URL=jdbc:h2:file:/data/schemas
export QUARKUS_THREAD_POOL_CORE_THREADS=1 QUARKUS_THREAD_POOL_MAX_THREADS=1
export QUARKUS_DATASOURCE_JDBC_INITIAL_SIZE=1 QUARKUS_DATASOURCE_JDBC_MIN_SIZE=1 QUARKUS_DATASOURCE_JDBC_MAX_SIZE=3
# shellcheck disable=SC2086 # options are words
exec java ${JAVA_OPTIONS:-} "-Xmx${REGISTRY_HEAP:-256m}" -jar /opt/registry/quarkus-run.jar
