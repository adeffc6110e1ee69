#!/bin/sh
# Prometheus on the mounted configuration; the coordinator's token comes by the environment.
set -eu
umask 077
printf '%s' "${CDC_READER_TOKEN:-}" >/tmp/reader-token
exec prometheus --config.file=/etc/prometheus/prometheus.yaml --storage.tsdb.path=/data \
  --storage.tsdb.retention.time=15d --web.listen-address=0.0.0.0:9090
