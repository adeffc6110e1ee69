# shellcheck shell=bash
# The optional sources: MySQL, which a jar for tests packs, and MariaDB, which Debian has.

ports_of_mysql() { port_free mysql CDC_LOCAL_MYSQL_PORT; }

ports_of_mariadb() { port_free mariadb CDC_LOCAL_MARIADB_PORT; }

# server_options DATA PORT: what both servers are started with.
server_options() {
  local data=$1 port=$2
  printf '%s\n' "--datadir=$data" "--port=$port" --bind-address=127.0.0.1 --skip-name-resolve \
    "--user=$(id -un)" --character-set-server=utf8mb4 --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --max-connections=100 \
    --server-id=1 --log-bin=binlog --binlog-format=ROW --binlog-row-image=FULL
  # Relative to the data folder, because the path of a socket must be short.
  printf '%s\n' --socket=mysql.sock "--pid-file=$data/mysql.pid"
  # Not UTC, so that a time that is read in the wrong zone shows.
  printf '%s\n' --default-time-zone=+02:00
}

# Without TLS: the packed server is of 2019 and has no key exchange that is still in use.
start_mysql() {
  local data=$DATA/mysql/data server=("$MYSQL_SERVER/bin/mysqld" --no-defaults "--basedir=$MYSQL_SERVER") options
  mapfile -t options < <(server_options "$data" "$CDC_LOCAL_MYSQL_PORT")
  options+=(--gtid-mode=ON --enforce-gtid-consistency=ON --mysqlx=OFF --performance-schema=OFF --skip-ssl)
  create_database mysql "${server[@]}" "--datadir=$data" "--user=$(id -un)" --initialize-insecure || return 1
  spawn mysql "${server[@]}" "${options[@]}"
}

start_mariadb() {
  local data=$DATA/mariadb/data options
  mapfile -t options < <(server_options "$data" "$CDC_LOCAL_MARIADB_PORT")
  options+=(--gtid-strict-mode=ON
    "--ssl-ca=$DATA/tls/ca.crt" "--ssl-cert=$DATA/tls/server.crt" "--ssl-key=$DATA/tls/server.key")
  create_database mariadb mariadb-install-db --no-defaults "--datadir=$data" "--user=$(id -un)" \
    --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve || return 1
  spawn mariadb "$(mariadb_program)" --no-defaults "${options[@]}"
}

# create_database SERVICE COMMAND...: has the command fill the service's data folder, once.
create_database() {
  local service=$1
  shift
  [[ ! -f $DATA/$service/created ]] || return 0
  rm -rf -- "${DATA:?}/$service"
  mkdir -p "$DATA/$service/data"
  chmod 700 "$DATA/$service/data"
  "$@" >"$DATA/logs/$service-setup.log" 2>&1 || return 1
  touch "$DATA/$service/created"
}

# as_root SERVICE ARGUMENTS...: by the socket, where root needs no password.
as_root() {
  (cd "$DATA/$1/data" && shift && mariadb --no-defaults --protocol=socket --socket=mysql.sock --user=root \
    --skip-ssl --default-character-set=utf8mb4 --batch "$@")
}

ready_mysql() { as_root mysql --execute='SELECT 1'; }

ready_mariadb() { as_root mariadb --execute='SELECT 1'; }

after_mysql() { load_demo_database mysql; }

after_mariadb() { load_demo_database mariadb; }

load_demo_database() {
  local service=$1
  [[ ! -f $DATA/$service/loaded ]] || return 0
  as_root "$service" <"$HERE/demo-mysql.sql" >"$DATA/logs/$service-setup.log" 2>&1 || return 1
  touch "$DATA/$service/loaded"
}
