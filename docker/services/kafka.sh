#!/usr/bin/env bash
# One broker that is its own controller: listener INTERNAL for containers, EXTERNAL for the host.
set -euo pipefail

cat >/tmp/server.properties <<TEXT
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=INTERNAL://:9092,EXTERNAL://:9094,CONTROLLER://localhost:9093
advertised.listeners=INTERNAL://${KAFKA_HOST:-kafka}:9092,EXTERNAL://localhost:${KAFKA_EXTERNAL_PORT:-9092}
listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
log.dirs=/data/log
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.num.partitions=10
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Nobody takes over from the only broker: a disk that stands still for seconds must not fence it.
broker.session.timeout.ms=20000
TEXT

# shellcheck disable=SC2206 # options are words
java=(java ${JAVA_OPTIONS:-} "-Xmx${KAFKA_HEAP:-512m}" -Dlog4j2.configurationFile=/etc/log4j2.properties -cp '/opt/kafka/*')
if [[ ! -f /data/log/meta.properties ]]; then
  # An id must not begin with '-'.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  "${java[@]}" kafka.tools.StorageTool format --ignore-formatted -t "c${id:1}" -c /tmp/server.properties
fi
exec "${java[@]}" kafka.Kafka /tmp/server.properties
