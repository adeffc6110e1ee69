# shellcheck shell=bash
# What tests of Iceberg tables need besides: VersityGW, which is S3 on a folder, and the REST catalog
# of Iceberg's own tests.

# ---- S3

ports_of_s3() { port_free s3 CDC_LOCAL_S3_PORT; }

# Each bucket is a folder and each object a file of it.
start_s3() {
  mkdir -p "$DATA/s3/users" "$DATA/s3/buckets/$S3_BUCKET"
  spawn s3 env ROOT_ACCESS_KEY="$S3_KEY" ROOT_SECRET_KEY="$S3_SECRET" "$S3_SERVER/versitygw" \
    --port "127.0.0.1:$CDC_LOCAL_S3_PORT" --region "$S3_REGION" --iam-dir "$DATA/s3/users" \
    --quiet posix "$DATA/s3/buckets"
}

# Without keys it is refused, by the server itself.
ready_s3() {
  [[ $(curl -sS -o /dev/null -w '%{http_code}' --max-time 2 "http://127.0.0.1:$CDC_LOCAL_S3_PORT/$S3_BUCKET") == 403 ]]
}

# ---- REST catalog

ports_of_rest() { port_free rest CDC_LOCAL_REST_PORT; }

# Tables go where whoever makes them says: into a folder or into S3, for which it gives keys with a
# table. It listens on every address of the machine and asks nobody who he is.
start_rest() {
  mkdir -p "$DATA/rest"
  java_service 512m -XX:TieredStopAtLevel=1
  # One connection: of two, one may keep the file locked for ever (SQLITE_BUSY) once both wrote at the same time.
  spawn rest env CATALOG_CLIENTS=1 CATALOG_CATALOG__IMPL=org.apache.iceberg.jdbc.JdbcCatalog \
    CATALOG_URI="jdbc:sqlite:$DATA/rest/catalog.db" CATALOG_JDBC_USER=user CATALOG_JDBC_PASSWORD=password \
    CATALOG_JDBC_SCHEMA__VERSION=V1 CATALOG_WAREHOUSE="file://$DATA/rest/warehouse" \
    CATALOG_REST_PORT="$CDC_LOCAL_REST_PORT" CATALOG_IO__IMPL=org.apache.iceberg.io.ResolvingFileIO \
    CATALOG_INCLUDE__CREDENTIALS=true CATALOG_S3_ENDPOINT="http://127.0.0.1:$CDC_LOCAL_S3_PORT" \
    CATALOG_S3_PATH__STYLE__ACCESS=true CATALOG_S3_ACCESS__KEY__ID="$S3_KEY" \
    CATALOG_S3_SECRET__ACCESS__KEY="$S3_SECRET" CATALOG_CLIENT_REGION="$S3_REGION" AWS_REGION="$S3_REGION" \
    "${JAVA[@]}" -cp "$REST_JARS/*" org.apache.iceberg.rest.RESTCatalogServer
}

ready_rest() {
  curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$CDC_LOCAL_REST_PORT/v1/config"
}
