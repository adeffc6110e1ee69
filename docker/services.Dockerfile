# The services around the platform, all on one base: targets connect, kafka, registry, postgres,
# redis, mariadb, prometheus.
#
#   deploy/local/stack install mysql mariadb && deploy/local/stack export docker/parts
#   docker build -f docker/services.Dockerfile --target connect -t cdc-connect docker
#
# docker/parts/ has the jars of the versions in deploy/local/versions.env, which the tests run on. The
# image that a production needs of these is connect: Debezium's plugins, the converter and our
# transform; for the others take whatever you trust.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS java
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless curl kcat \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /data
COPY parts/log4j2.properties /etc/log4j2.properties
USER 65532:65532
VOLUME /data
ENV JAVA_OPTIONS="-XX:+UseSerialGC -XX:-UsePerfData -XX:TieredStopAtLevel=1"

FROM java AS kafka
COPY parts/kafka/ /opt/kafka/
COPY services/kafka.sh /usr/local/bin/
EXPOSE 9092 9094
# The broker's own answer: its port is open before it can serve.
HEALTHCHECK --interval=3s --timeout=5s --start-period=180s --retries=20 \
  CMD ["bash", "-c", "kcat -b localhost:9092 -L -m 3 | grep -q 'broker 1 at'"]
ENTRYPOINT ["bash", "/usr/local/bin/kafka.sh"]

FROM java AS connect
# For ${file:/etc/connect/secrets/…} in the settings of connectors.
USER root
RUN mkdir -p /etc/connect/secrets
USER 65532:65532
COPY parts/kafka/ /opt/kafka/
COPY parts/plugins/ /opt/plugins/
COPY services/connect.sh /usr/local/bin/
EXPOSE 8083
HEALTHCHECK --interval=3s --timeout=5s --start-period=180s --retries=20 \
  CMD ["curl", "-fsS", "-o", "/dev/null", "--max-time", "4", "http://localhost:8083/health"]
ENTRYPOINT ["bash", "/usr/local/bin/connect.sh"]

FROM java AS registry
COPY parts/registry/ /opt/registry/
COPY services/registry.sh /usr/local/bin/
EXPOSE 8081
HEALTHCHECK --interval=3s --timeout=5s --start-period=180s --retries=20 \
  CMD ["curl", "-fsS", "-o", "/dev/null", "--max-time", "4", "http://localhost:8081/health/ready"]
ENTRYPOINT ["bash", "/usr/local/bin/registry.sh"]

FROM ${BASE} AS postgres
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres /data
COPY parts/demo.sql services/postgres.sh /usr/local/bin/
USER postgres
VOLUME /data
EXPOSE 5432
# By the network: while the demo's data is loaded the server listens on its socket only.
HEALTHCHECK --interval=3s --timeout=5s --start-period=180s --retries=20 CMD ["pg_isready", "-q", "-h", "127.0.0.1"]
STOPSIGNAL SIGINT
ENTRYPOINT ["bash", "/usr/local/bin/postgres.sh"]

FROM ${BASE} AS redis
RUN apt-get update \
    && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o redis -g redis /data
USER redis
VOLUME /data
EXPOSE 6379
HEALTHCHECK --interval=3s --timeout=5s --retries=10 CMD ["redis-cli", "ping"]
ENTRYPOINT ["redis-server", "--bind", "*", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]

FROM ${BASE} AS mariadb
RUN apt-get update \
    && apt-get install -y --no-install-recommends mariadb-server-core mariadb-client-core \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /data
COPY parts/demo-mysql.sql services/mariadb.sh /usr/local/bin/
USER 65532:65532
VOLUME /data
EXPOSE 3306
HEALTHCHECK --interval=3s --timeout=5s --start-period=180s --retries=20 \
  CMD ["mariadb", "-h", "127.0.0.1", "-u", "cdc_user", "-pcdc_password", "-e", "SELECT 1"]
ENTRYPOINT ["bash", "/usr/local/bin/mariadb.sh"]

FROM ${BASE} AS prometheus
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus curl \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /data
COPY services/prometheus.sh /usr/local/bin/
USER 65532:65532
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=5s --timeout=5s --retries=5 CMD ["curl", "-fsS", "-o", "/dev/null", "http://localhost:9090/-/ready"]
ENTRYPOINT ["sh", "/usr/local/bin/prometheus.sh"]
