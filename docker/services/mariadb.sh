#!/usr/bin/env bash
# MariaDB as a source: a binlog as Debezium needs it, and the demo's database at the first start.
set -euo pipefail

options=(--no-defaults --datadir=/data/cluster --socket=/tmp/mariadb.sock --pid-file=/tmp/mariadb.pid
  --character-set-server=utf8mb4 --server-id=1 --log-bin=binlog --binlog-format=ROW
  --binlog-row-image=FULL --gtid-strict-mode=ON)

if [[ ! -f /data/loaded ]]; then
  rm -rf /data/cluster
  mariadb-install-db --no-defaults --datadir=/data/cluster --auth-root-authentication-method=normal \
    --skip-test-db --skip-name-resolve >/dev/null
  mariadbd "${options[@]}" --skip-networking &
  server=$!
  until mariadb-admin --no-defaults --socket=/tmp/mariadb.sock --user=root ping >/dev/null 2>&1; do sleep 0.2; done
  # The demo's users are for loopback; here they come from other containers.
  sed "s/@'127.0.0.1'/@'%'/g" /usr/local/bin/demo-mysql.sql |
    mariadb --no-defaults --socket=/tmp/mariadb.sock --user=root --default-character-set=utf8mb4
  mariadb-admin --no-defaults --socket=/tmp/mariadb.sock --user=root shutdown
  wait "$server"
  touch /data/loaded
fi
exec mariadbd "${options[@]}" --bind-address=0.0.0.0
