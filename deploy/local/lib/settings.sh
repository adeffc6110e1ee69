# shellcheck shell=bash
# Folders, ports, users and versions. A port comes from the environment, else from the env file of
# the data that is there, else from the default.

declare -A DEFAULT_PORTS=(
  [CDC_LOCAL_POSTGRES_PORT]=15432
  [CDC_LOCAL_REDIS_PORT]=16379
  [CDC_LOCAL_REDIS_TLS_PORT]=16380
  [CDC_LOCAL_KAFKA_PORT]=19092
  [CDC_LOCAL_KAFKA_CONTROLLER_PORT]=19093
  [CDC_LOCAL_KAFKA_SSL_PORT]=19094
  [CDC_LOCAL_KAFKA_SASL_SSL_PORT]=19095
  [CDC_LOCAL_REGISTRY_PORT]=18081
  [CDC_LOCAL_CONNECT_PORT]=18083
  [CDC_LOCAL_MYSQL_PORT]=13306
  [CDC_LOCAL_MARIADB_PORT]=13307
  [CDC_LOCAL_S3_PORT]=17070
  [CDC_LOCAL_REST_PORT]=18181
)
SERVICES=(postgres redis kafka registry connect)
# Started only when they are named.
# shellcheck disable=SC2034 # install.sh and services.sh use it
OPTIONAL=(mysql mariadb)
# The same, and `up all` leaves out what is not installed.
# shellcheck disable=SC2034 # install.sh and services.sh use it
LAKE=(s3 rest)

# Well-known on purpose: the stack listens on loopback only and holds no data of anyone.
ADMIN_USER=postgres
ADMIN_PASSWORD=postgres
MYSQL_ADMIN_USER=cdc_admin
MYSQL_ADMIN_PASSWORD=cdc_admin_password
SECURE_USER=cdc_secure
SECURE_PASSWORD=cdc_secure_password
# Users of Kafka without any right of their own, for trying what each process needs.
# shellcheck disable=SC2034 # services.sh uses it
ROLE_USERS=(cdc_worker cdc_coordinator cdc_deploy cdc_operator)
ROLE_PASSWORD=cdc_role_password
S3_KEY=cdc_s3_key
S3_SECRET=cdc_s3_secret
S3_REGION=us-east-1
S3_BUCKET=lake

load_settings() {
  ROOT=$(cd -- "$HERE/../.." && pwd)
  DATA=${CDC_LOCAL_DIR:-$ROOT/.local}
  CACHE=${CDC_LOCAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cdc-platform}
  absolute_path CDC_LOCAL_DIR "$DATA"
  absolute_path CDC_LOCAL_CACHE "$CACHE"
  # shellcheck source=/dev/null
  source "$HERE/versions.env"
  load_ports
}

# Kafka Connect splits its plugin path at commas, and the env file is read by plain readers.
absolute_path() {
  local name=$1 path=$2
  [[ $path == /* ]] || fail 64 "$name must be an absolute path, not '$path'"
  [[ $path != *[[:space:],]* ]] || fail 64 "the path '$path' holds a space or a comma: set $name to one without"
}

load_ports() {
  local name value
  local -A owner=()
  for name in "${!DEFAULT_PORTS[@]}"; do
    value=${!name:-$(saved_value "$name")}
    value=${value:-${DEFAULT_PORTS[$name]}}
    if [[ ! $value =~ ^[1-9][0-9]{0,4}$ ]] || ((value > 65535)); then
      fail 64 "$name must be a port from 1 to 65535, not '$value'"
    fi
    [[ -z ${owner[$value]:-} ]] || fail 64 "$name and ${owner[$value]} have the same port $value"
    owner[$value]=$name
    printf -v "$name" '%s' "$value"
  done
}

saved_value() {
  [[ -f $DATA/env ]] || return 0
  sed -n "s/^$1=//p" "$DATA/env"
}

env_lines() {
  local name
  for name in "${!DEFAULT_PORTS[@]}"; do
    printf '%s=%s\n' "$name" "${!name}"
  done | sort
  cat <<TEXT
CDC_LOCAL_DIR=$DATA
CDC_LOCAL_POSTGRES_HOST=127.0.0.1
CDC_LOCAL_POSTGRES_ADMIN_USER=$ADMIN_USER
CDC_LOCAL_POSTGRES_ADMIN_PASSWORD=$ADMIN_PASSWORD
CDC_LOCAL_POSTGRES_SECURE_USER=$SECURE_USER
CDC_LOCAL_POSTGRES_SECURE_PASSWORD=$SECURE_PASSWORD
CDC_LOCAL_MYSQL_ADMIN_USER=$MYSQL_ADMIN_USER
CDC_LOCAL_MYSQL_ADMIN_PASSWORD=$MYSQL_ADMIN_PASSWORD
CDC_LOCAL_SOURCE_DATABASE=cdc_demo
CDC_LOCAL_SOURCE_USER=cdc_user
CDC_LOCAL_SOURCE_PASSWORD=cdc_password
CDC_LOCAL_TARGET_DATABASE=analytics
CDC_LOCAL_TARGET_USER=analytics_user
CDC_LOCAL_TARGET_PASSWORD=analytics_password
CDC_LOCAL_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:$CDC_LOCAL_KAFKA_PORT
CDC_LOCAL_KAFKA_SSL_BOOTSTRAP_SERVERS=127.0.0.1:$CDC_LOCAL_KAFKA_SSL_PORT
CDC_LOCAL_KAFKA_SASL_SSL_BOOTSTRAP_SERVERS=127.0.0.1:$CDC_LOCAL_KAFKA_SASL_SSL_PORT
CDC_LOCAL_KAFKA_SASL_USER=$SECURE_USER
CDC_LOCAL_KAFKA_SASL_PASSWORD=$SECURE_PASSWORD
CDC_LOCAL_KAFKA_ROLE_PASSWORD=$ROLE_PASSWORD
CDC_LOCAL_REGISTRY_ADDRESS=http://127.0.0.1:$CDC_LOCAL_REGISTRY_PORT
CDC_LOCAL_REGISTRY_URL=http://127.0.0.1:$CDC_LOCAL_REGISTRY_PORT/apis/ccompat/v7
CDC_LOCAL_REGISTRY_CONVERTER_URL=http://127.0.0.1:$CDC_LOCAL_REGISTRY_PORT/apis/registry/v2
CDC_LOCAL_CONNECT_URL=http://127.0.0.1:$CDC_LOCAL_CONNECT_PORT
CDC_LOCAL_REDIS_URL=redis://127.0.0.1:$CDC_LOCAL_REDIS_PORT
CDC_LOCAL_REDIS_TLS_URL=rediss://$SECURE_USER:$SECURE_PASSWORD@127.0.0.1:$CDC_LOCAL_REDIS_TLS_PORT
CDC_LOCAL_REDIS_SECURE_USER=$SECURE_USER
CDC_LOCAL_REDIS_SECURE_PASSWORD=$SECURE_PASSWORD
CDC_LOCAL_S3_ENDPOINT=http://127.0.0.1:$CDC_LOCAL_S3_PORT
CDC_LOCAL_S3_BUCKET=$S3_BUCKET
CDC_LOCAL_S3_REGION=$S3_REGION
CDC_LOCAL_S3_KEY=$S3_KEY
CDC_LOCAL_S3_SECRET=$S3_SECRET
CDC_LOCAL_REST_URL=http://127.0.0.1:$CDC_LOCAL_REST_PORT
CDC_LOCAL_TLS_CA=$DATA/tls/ca.crt
CDC_LOCAL_TLS_CLIENT_CERT=$DATA/tls/client.crt
CDC_LOCAL_TLS_CLIENT_KEY=$DATA/tls/client.key
CDC_LOCAL_TLS_SERVER_CERT=$DATA/tls/server.crt
CDC_LOCAL_TLS_SERVER_KEY=$DATA/tls/server.key
TEXT
  [[ -z ${KAFKA_JARS:-} ]] || printf 'CDC_LOCAL_KAFKA_JARS=%s\nCDC_LOCAL_JDBC_PLUGIN=%s\nCDC_LOCAL_READERS=%s\n' \
    "$KAFKA_JARS" "$PLUGIN_JDBC" "$READERS"
  [[ ! -d ${S3_SERVER:-} ]] || printf 'CDC_LOCAL_S3_SERVER=%s\n' "$S3_SERVER"
  [[ ! -d ${ICEBERG_CONNECT:-} ]] || printf 'CDC_LOCAL_ICEBERG_CONNECT=%s\n' "$ICEBERG_CONNECT"
  [[ ! -d ${REST_JARS:-} ]] || printf 'CDC_LOCAL_REST_JARS=%s\n' "$REST_JARS"
}

print_env() {
  if [[ -f $DATA/env ]]; then
    cat "$DATA/env"
  else
    env_lines
  fi
}

write_env() {
  env_lines >"$DATA/env.new"
  mv "$DATA/env.new" "$DATA/env"
}
