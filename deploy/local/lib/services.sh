# shellcheck shell=bash
# The services: what each is started with, when it is ready, how it ends. mysql.sh and lake.sh have the optional ones.

stack_up() {
  local wanted=("$@") service began broken=0 waits=() starting=()
  began=$(now_ms)
  [[ $* == all ]] || check_names "${wanted[@]}"
  [[ $# -gt 0 ]] || wanted=("${SERVICES[@]}")
  [[ $* != all ]] || mapfile -t wanted < <(all_services)
  require_installed "${wanted[@]}"
  mkdir -p "$DATA/logs" "$DATA/run"
  lock_data
  [[ " ${wanted[*]} " != *" connect "* ]] || end_outdated_connect
  for service in "${wanted[@]}"; do
    running_pid "$service" >/dev/null || starting+=("$service")
  done
  for service in "${starting[@]}"; do
    "ports_of_$service"
  done
  write_env
  make_certificates
  # Preparing a service may take a second or two (initdb, formatting the log folder): all at once.
  for service in "${wanted[@]}"; do
    start_and_wait "$service" "$began" &
    waits+=($!)
  done
  for service in "${waits[@]}"; do
    wait "$service" || broken=1
  done
  ((broken == 0)) || fail 69 "not everything came up; logs: $DATA/logs"
  say "up in $(seconds_since "$began"); addresses: $DATA/env"
}

all_services() {
  name_parts
  printf '%s\n' "${SERVICES[@]}" "${OPTIONAL[@]}"
  [[ ! -d $S3_SERVER ]] || echo s3
  [[ ! -d $REST_JARS ]] || echo rest
}

start_and_wait() {
  local service=$1 began=$2 limit="CDC_LOCAL_${1^^}_READY_SECONDS"
  if running_pid "$service" >/dev/null; then
    wait_ready "$service" "${!limit:-60}" "ready_$service" || return 1
    say "$service: runs"
    return 0
  fi
  "start_$service" || { show_log_end "$DATA/logs/$service-setup.log"; return 1; }
  wait_ready "$service" "${!limit:-60}" "ready_$service" || return 1
  if declare -F "after_$service" >/dev/null; then
    "after_$service" || { show_log_end "$DATA/logs/$service-setup.log"; return 1; }
  fi
  say "$service: ready after $(seconds_since "$began")"
}

# Connect first, because it waits for a broker that is gone; then the others at the same time.
stack_down() {
  local wanted=("$@") service waits=()
  check_names "${wanted[@]}"
  [[ $# -gt 0 ]] || wanted=("${SERVICES[@]}" "${OPTIONAL[@]}" "${LAKE[@]}")
  [[ -d $DATA/run ]] || { say "nothing runs"; return 0; }
  lock_data
  [[ " ${wanted[*]} " != *" connect "* ]] || stop connect TERM 20
  for service in "${wanted[@]}"; do
    case $service in
      connect) continue ;;
      # Fast shutdown: sessions are ended, the data is consistent.
      postgres) stop postgres INT 30 & ;;
      *) stop "$service" TERM 30 & ;;
    esac
    waits+=($!)
  done
  [[ ${#waits[@]} -eq 0 ]] || wait "${waits[@]}"
}

# Removes what this stack made and no more: CDC_LOCAL_DIR may be a folder with other things in it.
stack_clean() {
  local part
  stack_down
  remove_cluster
  for part in mysql mariadb s3 rest redis kafka registry connect plugins tls tls.part secrets demo run logs env lock; do
    rm -rf -- "${DATA:?}/$part"
  done
  rmdir --ignore-fail-on-non-empty -- "$DATA" 2>/dev/null || true
  say "data removed ($DATA)"
}

stack_status() {
  local service pid port all=0
  for service in "${SERVICES[@]}" "${OPTIONAL[@]}" "${LAKE[@]}"; do
    port="CDC_LOCAL_${service^^}_PORT"
    if ! pid=$(running_pid "$service"); then
      # An optional service that was never started is not missed.
      [[ " ${OPTIONAL[*]} ${LAKE[*]} " != *" $service "* || -d $DATA/$service ]] || continue
      printf '%-9s %-10s\n' "$service" stopped
      all=1
    elif "ready_$service" >/dev/null 2>&1; then
      printf '%-9s %-10s 127.0.0.1:%-6s pid %s\n' "$service" ready "${!port}" "$pid"
    else
      printf '%-9s %-10s 127.0.0.1:%-6s pid %s\n' "$service" "not ready" "${!port}" "$pid"
      all=1
    fi
  done
  return "$all"
}

check_names() {
  local name
  for name in "$@"; do
    [[ " ${SERVICES[*]} ${OPTIONAL[*]} ${LAKE[*]} " == *" $name "* ]] ||
      fail 64 "unknown service '$name': choose from ${SERVICES[*]} ${OPTIONAL[*]} ${LAKE[*]}"
  done
}

lock_data() {
  exec {stack_lock}>"$DATA/lock"
  flock -n "$stack_lock" || { say "waiting for another stack command on $DATA"; flock "$stack_lock"; }
}

# ---- PostgreSQL

ports_of_postgres() { port_free postgres CDC_LOCAL_POSTGRES_PORT; }

# initdb refuses root, so root's database belongs to the system's postgres user.
as_database_user() {
  if [[ $EUID -eq 0 ]]; then
    setpriv --reuid "$(database_user)" --regid "$(id -g "$(database_user)")" --clear-groups "$@"
  else
    "$@"
  fi
}

database_user() {
  if id postgres >/dev/null 2>&1; then printf postgres; else printf nobody; fi
}

start_postgres() {
  local bin cluster=$DATA/postgres
  bin=$(postgres_programs)
  [[ -f $cluster/cdc-created ]] || create_cluster "$bin" "$cluster" >"$DATA/logs/postgres-setup.log" 2>&1 || return 1
  local server=("$bin/postgres" -D "$(readlink -f "$cluster")" -p "$CDC_LOCAL_POSTGRES_PORT")
  if [[ $EUID -eq 0 ]]; then
    server=(setpriv --reuid "$(database_user)" --regid "$(id -g "$(database_user)")" --clear-groups "${server[@]}")
  fi
  spawn postgres "${server[@]}"
}

create_cluster() {
  local bin=$1 cluster=$2 home password
  remove_cluster
  home=$(cluster_home "$cluster")
  password=$(mktemp)
  printf '%s\n' "$ADMIN_PASSWORD" >"$password"
  [[ $EUID -ne 0 ]] || chown "$(database_user)" "$password"
  as_database_user "$bin/initdb" --pgdata="$home" --username="$ADMIN_USER" --pwfile="$password" --encoding=UTF8 \
    --locale=C.UTF-8 --auth=scram-sha-256 --no-sync || return 1
  rm "$password"
  install -m 600 "$DATA/tls/server.crt" "$home/server.crt"
  install -m 600 "$DATA/tls/server.key" "$home/server.key"
  install -m 600 "$DATA/tls/ca.crt" "$home/ca.crt"
  cat >>"$home/postgresql.conf" <<TEXT
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 50
max_wal_senders = 50
max_connections = 300
fsync = on
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_ca_file = 'ca.crt'
# Slots that nobody reads any more must not fill the disk of a test machine.
max_slot_wal_keep_size = '4GB'
TEXT
  cat >"$home/pg_hba.conf" <<TEXT
# The secure user exists to try TLS: it is refused without.
hostnossl all         $SECURE_USER 127.0.0.1/32 reject
host      all         all          127.0.0.1/32 scram-sha-256
host      replication all          127.0.0.1/32 scram-sha-256
TEXT
  [[ $EUID -ne 0 ]] || chown -R "$(database_user):" "$home"
  touch "$home/cdc-created"
}

# The cluster's own folder; where the database user may not enter the data folder (a checkout in
# root's home), one outside, with a link to it.
cluster_home() {
  local cluster=$1 outside
  mkdir -p "$cluster"
  if [[ $EUID -ne 0 ]]; then
    printf '%s' "$cluster"
    return
  fi
  chown "$(database_user):" "$cluster"
  if ! as_database_user test -x "$cluster"; then
    rmdir "$cluster"
    outside=$(mktemp -d /var/tmp/cdc-local-XXXXXXXX)
    chown "$(database_user):" "$outside"
    ln -s "$outside" "$cluster"
    cluster=$outside
  fi
  printf '%s' "$cluster"
}

remove_cluster() {
  local outside
  if [[ -L $DATA/postgres ]]; then
    outside=$(readlink "$DATA/postgres")
    [[ $outside != /var/tmp/cdc-local-* ]] || rm -rf -- "$outside"
  fi
  rm -rf -- "${DATA:?}/postgres"
}

ready_postgres() {
  pg_isready -q -h 127.0.0.1 -p "$CDC_LOCAL_POSTGRES_PORT" -t 2
}

after_postgres() {
  [[ ! -f $DATA/postgres/cdc-loaded ]] || return 0
  PGPASSWORD=$ADMIN_PASSWORD psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$CDC_LOCAL_POSTGRES_PORT" -U "$ADMIN_USER" \
    -d postgres -v "secure_user=$SECURE_USER" -v "secure_password=$SECURE_PASSWORD" \
    -f "$HERE/secure.sql" -f "$HERE/demo.sql" >"$DATA/logs/postgres-setup.log" 2>&1 || return 1
  touch "$DATA/postgres/cdc-loaded"
}

# ---- Redis

ports_of_redis() {
  port_free redis CDC_LOCAL_REDIS_PORT
  port_free redis CDC_LOCAL_REDIS_TLS_PORT
}

start_redis() {
  mkdir -p "$DATA/redis"
  cat >"$DATA/redis/redis.conf" <<TEXT
bind 127.0.0.1
port $CDC_LOCAL_REDIS_PORT
tls-port $CDC_LOCAL_REDIS_TLS_PORT
tls-cert-file $DATA/tls/server.crt
tls-key-file $DATA/tls/server.key
tls-ca-cert-file $DATA/tls/ca.crt
tls-auth-clients no
dir $DATA/redis
appendonly yes
appendfsync everysec
save ""
user default on nopass ~* &* +@all
user $SECURE_USER on >$SECURE_PASSWORD ~* &* +@all
TEXT
  spawn redis redis-server "$DATA/redis/redis.conf"
}

ready_redis() {
  [[ $(redis-cli -h 127.0.0.1 -p "$CDC_LOCAL_REDIS_PORT" ping) == PONG ]]
}

# ---- Kafka

ports_of_kafka() {
  port_free kafka CDC_LOCAL_KAFKA_PORT
  port_free kafka CDC_LOCAL_KAFKA_CONTROLLER_PORT
  port_free kafka CDC_LOCAL_KAFKA_SSL_PORT
  port_free kafka CDC_LOCAL_KAFKA_SASL_SSL_PORT
}

java_service() {
  local heap=$1
  shift
  JAVA=(java "-Xmx$heap" -XX:+UseSerialGC -XX:-UsePerfData -Xshare:auto "-Dlog4j2.configurationFile=$HERE/log4j2.properties" "$@")
}

start_kafka() {
  mkdir -p "$DATA/kafka"
  kafka_properties >"$DATA/kafka/server.properties"
  # The folder is formatted under another name, so that an interrupted format leaves nothing half done.
  if [[ ! -d $DATA/kafka/log ]]; then
    format_kafka >"$DATA/logs/kafka-setup.log" 2>&1 || return 1
  fi
  java_service 512m
  spawn kafka "${JAVA[@]}" -cp "$KAFKA_JARS/*" kafka.Kafka "$DATA/kafka/server.properties"
}

format_kafka() {
  local id
  # An id must not begin with '-'.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  rm -rf "$DATA/kafka/log.part"
  sed "s|^log.dirs=.*|log.dirs=$DATA/kafka/log.part|" "$DATA/kafka/server.properties" >"$DATA/kafka/format.properties"
  java_service 256m -XX:TieredStopAtLevel=1
  "${JAVA[@]}" -cp "$KAFKA_JARS/*" kafka.tools.StorageTool format -t "c${id:1}" -c "$DATA/kafka/format.properties" \
    --add-scram "SCRAM-SHA-256=[name=$SECURE_USER,password=$SECURE_PASSWORD]" \
    --add-scram "SCRAM-SHA-512=[name=$SECURE_USER,password=$SECURE_PASSWORD]" || return 1
  mv -T "$DATA/kafka/log.part" "$DATA/kafka/log"
}

kafka_properties() {
  local user roles=""
  for user in "${ROLE_USERS[@]}"; do
    roles+=" user_$user=\"$ROLE_PASSWORD\""
  done
  cat <<TEXT
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CDC_LOCAL_KAFKA_CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$CDC_LOCAL_KAFKA_PORT,CONTROLLER://127.0.0.1:$CDC_LOCAL_KAFKA_CONTROLLER_PORT,SSL://127.0.0.1:$CDC_LOCAL_KAFKA_SSL_PORT,SASL_SSL://127.0.0.1:$CDC_LOCAL_KAFKA_SASL_SSL_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$CDC_LOCAL_KAFKA_PORT,SSL://127.0.0.1:$CDC_LOCAL_KAFKA_SSL_PORT,SASL_SSL://127.0.0.1:$CDC_LOCAL_KAFKA_SASL_SSL_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$DATA/kafka/log
log.preallocate=false
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
offsets.topic.num.partitions=5
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# No other broker takes over from this one: to be fenced because a busy machine's disk stood still
# for seconds costs every group its coordinator. (One that was killed registers again after this.)
broker.session.timeout.ms=20000
broker.heartbeat.interval.ms=500
# Groups form without waiting, and tests may ask for short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.session.timeout.ms=10000
group.consumer.heartbeat.interval.ms=2000
# Everybody may do everything, except the users that exist to try rights.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:$SECURE_USER;User:CN=$SECURE_USER
${CDC_LOCAL_KAFKA_GROUP_PROTOCOLS:+group.coordinator.rebalance.protocols=$CDC_LOCAL_KAFKA_GROUP_PROTOCOLS}
ssl.keystore.type=PEM
ssl.keystore.location=$DATA/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$DATA/tls/ca.crt
ssl.client.auth=requested
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$SECURE_USER="$SECURE_PASSWORD"$roles;
TEXT
}

# Metadata from the broker itself: its port is open before it can serve.
ready_kafka() {
  [[ $(kcat -b "127.0.0.1:$CDC_LOCAL_KAFKA_PORT" -L -m 2) == *'broker 1 at'* ]]
}

# ---- schema registry

ports_of_registry() { port_free registry CDC_LOCAL_REGISTRY_PORT; }

start_registry() {
  mkdir -p "$DATA/registry"
  java_service 256m -XX:TieredStopAtLevel=1
  # One request at a time: schemas registered at once by several connectors get in each other's way in
  # its database, which answers 500 and ends the connector's task. By threads, not by connections: a
  # new version of a known schema takes a second connection while it holds the first.
  spawn registry env HTTP_PORT="$CDC_LOCAL_REGISTRY_PORT" QUARKUS_HTTP_HOST=127.0.0.1 \
    REGISTRY_DATASOURCE_URL="jdbc:h2:file:$DATA/registry/schemas" \
    QUARKUS_THREAD_POOL_CORE_THREADS=1 QUARKUS_THREAD_POOL_MAX_THREADS=1 \
    QUARKUS_DATASOURCE_JDBC_INITIAL_SIZE=1 QUARKUS_DATASOURCE_JDBC_MIN_SIZE=1 \
    QUARKUS_DATASOURCE_JDBC_MAX_SIZE=3 \
    "${JAVA[@]}" -jar "$REGISTRY_APP/quarkus-run.jar"
}

ready_registry() {
  curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$CDC_LOCAL_REGISTRY_PORT/health/ready"
}

# ---- Kafka Connect

ports_of_connect() { port_free connect CDC_LOCAL_CONNECT_PORT; }

start_connect() {
  mkdir -p "$DATA/connect" "$DATA/secrets"
  link_plugins
  connect_properties >"$DATA/connect/worker.properties"
  java_service 512m -XX:TieredStopAtLevel=1
  spawn connect "${JAVA[@]}" -cp "$KAFKA_JARS/*" org.apache.kafka.connect.cli.ConnectDistributed "$DATA/connect/worker.properties"
}

# The converter and our transform are one plugin: our jar declares the converter to Connect.
link_plugins() {
  local plugin
  rm -rf "$DATA/plugins"
  mkdir -p "$DATA/plugins/avro"
  ln -s "$CONVERTER_JARS"/*.jar "$TRANSFORM/cdc-connect.jar" "$DATA/plugins/avro/"
  for plugin in "$PLUGIN_POSTGRES" "$PLUGIN_MYSQL" "$PLUGIN_MARIADB"; do
    [[ ! -d $plugin ]] || ln -s "$plugin"/* "$DATA/plugins/"
  done
}

# Connect looks at its plugins once, when it starts: one that was installed later needs it new.
end_outdated_connect() {
  local plugin
  running_pid connect >/dev/null || return 0
  for plugin in "$PLUGIN_POSTGRES" "$PLUGIN_MYSQL" "$PLUGIN_MARIADB"; do
    if [[ -d $plugin && ! $DATA/plugins/$(basename "$plugin"/*) -ef $(echo "$plugin"/*) ]]; then
      say "connect: starts anew, because $(basename "$plugin") was installed since"
      stop connect TERM 20
      return 0
    fi
  done
}

connect_properties() {
  cat <<TEXT
bootstrap.servers=127.0.0.1:$CDC_LOCAL_KAFKA_PORT
group.id=connect-local
listeners=http://127.0.0.1:$CDC_LOCAL_CONNECT_PORT
plugin.path=$DATA/plugins
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=connect-local-configs
config.storage.replication.factor=1
offset.storage.topic=connect-local-offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect-local-status
status.storage.replication.factor=1
status.storage.partitions=1
connector.client.config.override.policy=All
exactly.once.source.support=${CDC_LOCAL_CONNECT_EXACTLY_ONCE:-enabled}
scheduled.rebalance.max.delay.ms=0
offset.flush.interval.ms=1000
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths=$DATA/secrets
TEXT
}

ready_connect() {
  curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$CDC_LOCAL_CONNECT_PORT/health"
}
