# shellcheck shell=bash
# The demo's story: deploy, change, watch the sinks, compare, report.

demo_run() {
  local began
  began=$(now_ms)
  lock_demo
  demo_build
  trap 'demo_failed $?' EXIT
  trap 'exit 130' INT TERM
  fleet_stop
  demo_stack_up
  write_demo_env
  heading "Deploy: topics and the Debezium connector"
  ROWS=$(source_value "SELECT (SELECT count(*) FROM public.customers) + (SELECT count(*) FROM public.orders)")
  FIRST=no
  is_ok "$CDC_LOCAL_CONNECT_URL/connectors/cdc-demo" || FIRST=yes
  "$BIN/cdc" deploy "$PIPELINE" || fail 70 "deploy failed"
  heading "Start: webhook receiver, coordinator, one worker per sink"
  fleet_start
  say "ready: coordinator, workers of the webhook, the events table and the mirror"
  [[ $FIRST == no ]] || show_snapshot
  show_changes
  show_webhook
  show_table
  check_null
  show_mirror
  show_health
  trap - EXIT INT TERM
  finish "$began"
}

# Prints why the demo ended, and stops what it started unless it is to stay.
demo_failed() {
  local code=$1
  trap - EXIT INT TERM
  if [[ ${KEEP:-} == 1 ]]; then
    say "left running for a look (logs: $DATA/logs); 'make demo-down' stops it" >&2
  else
    demo_stop >&2 || true
  fi
  exit "$code"
}

heading() {
  printf '\n== %s\n' "$*"
}

source_value() {
  PGPASSWORD=$CDC_LOCAL_SOURCE_PASSWORD psql -XAtq -h "$CDC_LOCAL_POSTGRES_HOST" -p "$CDC_LOCAL_POSTGRES_PORT" \
    -U "$CDC_LOCAL_SOURCE_USER" -d "$CDC_LOCAL_SOURCE_DATABASE" -v ON_ERROR_STOP=1 "${@:2}" -c "$1"
}

target_value() {
  PGPASSWORD=$CDC_LOCAL_TARGET_PASSWORD psql -XAtq -h "$CDC_LOCAL_POSTGRES_HOST" -p "$CDC_LOCAL_POSTGRES_PORT" \
    -U "$CDC_LOCAL_TARGET_USER" -d "$CDC_LOCAL_TARGET_DATABASE" -v ON_ERROR_STOP=1 "${@:2}" -c "$1"
}

# Events of the snapshot at each sink: different rows, since a snapshot may begin again.
webhook_snapshot() {
  jq -rn '[inputs | select(.value.op == "r") | "\(.metadata.topic) \(.key)"] | unique | length' "$DATA/events.jsonl"
}

table_snapshot() {
  target_value "SELECT count(DISTINCT (source_topic, event_key)) FROM public.cdc_events WHERE event_value->>'op' = 'r'"
}

# Changes of this run at each sink, by their place in the source's log.
webhook_changes() {
  jq -rn --argjson from "$FROM_LSN" '[inputs | select(.value.op != "r" and .value.source.lsn >= $from)
    | .metadata | "\(.topic) \(.partition) \(.offset)"] | unique | length' "$DATA/events.jsonl"
}

table_changes() {
  target_value "SELECT count(*) FROM public.cdc_events WHERE event_value->>'op' <> 'r'
    AND (event_value->'source'->>'lsn')::numeric >= $FROM_LSN"
}

reached() {
  local count
  count=$("$1" 2>/dev/null) && ((count >= $2))
}

show_snapshot() {
  heading "Snapshot: the $ROWS rows that the source has"
  await 60 "the webhook has the snapshot's $ROWS rows" reached webhook_snapshot "$ROWS"
  await 60 "the table has the snapshot's $ROWS rows" reached table_snapshot "$ROWS"
  say "webhook: $(webhook_snapshot) rows, table: $(table_snapshot) rows"
}

show_changes() {
  local tags
  heading "Changes at the source"
  FROM_LSN=$(source_value "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
  RUN=$(date +%s)
  tags=$(PGPASSWORD=$CDC_LOCAL_SOURCE_PASSWORD psql -X -h "$CDC_LOCAL_POSTGRES_HOST" -p "$CDC_LOCAL_POSTGRES_PORT" \
    -U "$CDC_LOCAL_SOURCE_USER" -d "$CDC_LOCAL_SOURCE_DATABASE" -v run="$RUN" -f "$HERE/demo-changes.sql" 2>&1) ||
    { printf '%s\n' "$tags" >&2; fail 70 "the source refused the demo's changes"; }
  CHANGED_MS=$(now_ms)
  grep -v -e '^BEGIN$' -e '^COMMIT$' <<<"$tags" | sed 's/^\([A-Z]\)/    \1/'
  CHANGES=$(awk '/^(INSERT|UPDATE|DELETE) / { n += $NF } END { print n + 0 }' <<<"$tags")
  await 30 "the webhook has $CHANGES changes" reached webhook_changes "$CHANGES"
  await 30 "the table has $CHANGES changes" reached table_changes "$CHANGES"
  say "$CHANGES changes, at the webhook and in the table $(seconds_since "$CHANGED_MS") after the last commit"
}

show_webhook() {
  heading "At the webhook (POST of {key, value, metadata}; key and row shown)"
  jq -r --argjson from "$FROM_LSN" 'select(.value.op != "r" and .value.source.lsn >= $from)
    | (.value.after // {}) as $row
    | "\(.value.op)  \(.metadata.topic)[\(.metadata.partition)]@\(.metadata.offset)  \(.key)  \($row | {name, newsletter, balance, status, amount}
    | with_entries(select(.key as $name | $row | has($name))))"' \
    "$DATA/events.jsonl" | cut -c 1-170 | sed 's/^/    /'
}

show_table() {
  heading "In the PostgreSQL table public.cdc_events"
  target_value "SELECT event_value->>'op' AS op, source_topic, source_partition AS part, source_offset AS offset, event_key,
      left(coalesce(event_value->'after'->>'name', event_value->'after'->>'status'), 24) AS shows
    FROM public.cdc_events WHERE event_value->>'op' <> 'r' AND (event_value->'source'->>'lsn')::numeric >= $FROM_LSN
    ORDER BY (event_value->'source'->>'lsn')::numeric, source_topic, source_offset" -P format=aligned -P tuples_only=off |
    sed 's/^/    /'
}

# The connector alone would turn the NULL into the column's default.
check_null() {
  local webhook table
  webhook=$(jq -rn --arg email "mary-$RUN@example.com" \
    '[inputs | select(.value.op == "u" and .value.after.email == $email) | .value.after.newsletter] | tostring' "$DATA/events.jsonl")
  table=$(target_value "SELECT event_value->'after'->'newsletter' FROM public.cdc_events
    WHERE event_value->>'op' = 'u' AND event_value->'after'->>'email' = 'mary-$RUN@example.com'")
  [[ $webhook == '[null]' && $table == null ]] ||
    fail 70 "NULL in customers.newsletter (default true) arrived as $webhook at the webhook and $table in the table"
  say "NULL in customers.newsletter, whose default is true, arrived as null at both"
}

# The judge of the mirror: every row and column of both tables, while both live.
show_mirror() {
  local code=0
  heading "The mirror: the source's tables, typed, in the schema mirror"
  # A coordinator that has just begun to lead hears of its workers with their next heartbeats.
  await 30 "the coordinator knows the mirror's worker" mirror_has_worker
  "$BIN/cdc" verify "$PIPELINE" --sink analytics-mirror --timeout 60 || code=$?
  ((code == 0)) || fail 70 "cdc verify ended with exit code $code: the mirror is not what the source is"
  target_value "SELECT c.id, c.name, c.newsletter, c.tier, c.balance, c.tags, count(o.id) AS orders, sum(o.amount) AS amount
    FROM mirror.customers c LEFT JOIN mirror.orders o ON o.customer_id = c.id
    GROUP BY c.id ORDER BY c.id DESC LIMIT 5" -P format=aligned -P tuples_only=off -P null=∅ |
    sed 's/^/    /'
}

# Leaves health, as it is now, in a file.
ask_health() {
  "$BIN/cdc-coordinator" health "$PIPELINE" --json >"$DATA/health.json" 2>/dev/null || true
}

mirror_has_worker() {
  ask_health
  jq -e 'any(.sinks[]; .sink_id == "analytics-mirror" and (.workers | length > 0))' "$DATA/health.json" >/dev/null 2>&1
}

lag_is_zero() {
  ask_health
  jq -e --argjson sinks "${#SINKS[@]}" '(.sinks | length == $sinks) and all(.sinks[]; .lag_records == 0) and all(.consumer_lag[]; .lag == 0)
    and .verdict == "ok"' "$DATA/health.json" >/dev/null 2>&1
}

show_health() {
  local code=0
  # A sink that got more than the source said would have been seen by then.
  await 45 "every lag is 0 and health is ok (last answer: $DATA/health.json)" lag_is_zero
  heading "cdc-coordinator health"
  "$BIN/cdc-coordinator" health "$PIPELINE" || code=$?
  ((code == 0)) || fail 70 "health ended with exit code $code"
}

finish() {
  local webhook table rows failed=0
  webhook=$(webhook_changes)
  table=$(table_changes)
  rows=$(source_value "SELECT (SELECT count(*) FROM public.customers) || ' customers, ' || (SELECT count(*) FROM public.orders) || ' orders'")
  heading "Summary"
  printf '    %-34s %s\n' "source" "$rows"
  printf '    %-34s %s\n' "changes made at the source" "$CHANGES"
  printf '    %-34s %s\n' "changes at the webhook" "$webhook"
  printf '    %-34s %s\n' "changes in the table" "$table"
  printf '    %-34s %s\n' "rows in the mirror" \
    "$(target_value "SELECT (SELECT count(*) FROM mirror.customers) || ' customers, ' || (SELECT count(*) FROM mirror.orders) || ' orders'")"
  printf '    %-34s %s\n' "rows in the table altogether" "$(target_value 'SELECT count(*) FROM public.cdc_events')"
  printf '    %-34s %s\n' "lag, in records" \
    "$(jq -r '[.sinks[] | "\(.sink_id) \(.lag_records)"] + ["pipeline \([.consumer_lag[].lag] | add)"] | join(", ")' "$DATA/health.json")"
  ((webhook == CHANGES && table == CHANGES)) || failed=1
  if [[ ${KEEP:-} == 1 ]]; then
    look_further
  else
    demo_stop | sed 's/^/    /'
    printf '\n    To look further: KEEP=1 make demo\n'
  fi
  ((failed == 0)) || fail 70 "the sinks do not have exactly the changes of the source"
  say "done in $(seconds_since "$1")"
}

look_further() {
  local bin=${BIN#"$ROOT"/} data=${DATA#"$ROOT"/}
  cat <<TEXT

    Everything runs. To look further, from the checkout:
      set -a; source $data/env; set +a
      $bin/cdc consume config/demo-local.yaml --table public.customers --limit 3
      $bin/cdc status config/demo-local.yaml
      $bin/cdc verify config/demo-local.yaml --sink analytics-mirror
      tail -f $data/logs/receiver.log
      psql "postgres://$CDC_LOCAL_SOURCE_USER:$CDC_LOCAL_SOURCE_PASSWORD@127.0.0.1:$CDC_LOCAL_POSTGRES_PORT/$CDC_LOCAL_SOURCE_DATABASE"
    make demo-down stops it all.
TEXT
}
