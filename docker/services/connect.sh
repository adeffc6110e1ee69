#!/usr/bin/env bash
# Kafka Connect with Debezium. CONNECT_BOOTSTRAP_SERVERS is required; a line for each further property
# may stand in CONNECT_PROPERTIES.
set -euo pipefail

group=${CONNECT_GROUP_ID:-connect}
factor=${CONNECT_REPLICATION_FACTOR:-1}
cat >/tmp/worker.properties <<TEXT
bootstrap.servers=$CONNECT_BOOTSTRAP_SERVERS
group.id=$group
listeners=http://0.0.0.0:8083
rest.advertised.host.name=${CONNECT_REST_HOST:-connect}
plugin.path=/opt/plugins
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=$group-configs
config.storage.replication.factor=$factor
offset.storage.topic=$group-offsets
offset.storage.replication.factor=$factor
offset.storage.partitions=5
status.storage.topic=$group-status
status.storage.replication.factor=$factor
status.storage.partitions=1
connector.client.config.override.policy=All
exactly.once.source.support=${CONNECT_EXACTLY_ONCE:-enabled}
scheduled.rebalance.max.delay.ms=0
offset.flush.interval.ms=${CONNECT_OFFSET_FLUSH_MS:-10000}
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths=/etc/connect/secrets
${CONNECT_PROPERTIES:-}
TEXT

# shellcheck disable=SC2086 # options are words
exec java ${JAVA_OPTIONS:-} "-Xmx${CONNECT_HEAP:-512m}" -Dlog4j2.configurationFile=/etc/log4j2.properties \
  -cp '/opt/kafka/*' org.apache.kafka.connect.cli.ConnectDistributed /tmp/worker.properties
