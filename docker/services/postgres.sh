#!/usr/bin/env bash
# PostgreSQL as a source and a target: logical decoding, and the demo's databases at the first start.
set -euo pipefail

bin=$(echo /usr/lib/postgresql/*/bin)
options=(-c wal_level=logical -c max_replication_slots=20 -c max_wal_senders=20
  -c "max_slot_wal_keep_size=${POSTGRES_SLOT_KEEP_SIZE:-4GB}" -c unix_socket_directories=/tmp)

if [[ ! -f /data/loaded ]]; then
  rm -rf /data/cluster
  printf '%s\n' "${POSTGRES_PASSWORD:?the password of the superuser postgres}" >/tmp/password
  "$bin/initdb" --pgdata=/data/cluster --username=postgres --pwfile=/tmp/password --encoding=UTF8 \
    --locale=C.UTF-8 --auth-host=scram-sha-256 --auth-local=trust >/dev/null
  rm /tmp/password
  printf 'host all all all scram-sha-256\nhost replication all all scram-sha-256\n' >>/data/cluster/pg_hba.conf
  "$bin/pg_ctl" --pgdata=/data/cluster --wait --options="${options[*]} -c listen_addresses=''" start
  psql -X -q -v ON_ERROR_STOP=1 -h /tmp -U postgres -d postgres -f /usr/local/bin/demo.sql
  "$bin/pg_ctl" --pgdata=/data/cluster --wait --mode=fast stop
  touch /data/loaded
fi
exec "$bin/postgres" -D /data/cluster "${options[@]}" -c 'listen_addresses=*'
