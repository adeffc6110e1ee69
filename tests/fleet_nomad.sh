# shellcheck shell=bash
# The part of tests/fleet that needs Nomad: one sink's workers as a job, replaced under load, and a
# version that never becomes ready. On the services that tests/fleet has running in containers.

# NOMAD names the program; without one the part is skipped.
nomad_fleet() {
  NOMAD=${NOMAD:-$(command -v nomad || true)}
  if [[ -z $NOMAD ]]; then
    say "SKIPPED: Nomad is not installed (NOMAD=/path/to/nomad names one)"
    return
  fi
  [[ $EUID -eq 0 ]] || { say "SKIPPED: Nomad's agent needs root"; return; }
  nomad_agent
  compose stop worker-webhook >/dev/null 2>&1
  nomad_pipeline "$(published WEBHOOK)" >"$WORK/pipeline.yaml"
  nomad_run "$WORK/pipeline.yaml" INFO || { tail -n 20 "$WORK/nomad-run.log" >&2; fail "the first deployment"; }
  say "the sink webhook is a Nomad job"
  nomad_upgrade
  nomad_revert
  compose up -d --no-build worker-webhook >/dev/null 2>&1
  nomad job stop -purge cdc-worker-webhook >"$WORK/nomad-stop.log"
  until_true 60 "its allocations are gone" no_allocations
}

nomad() { "$NOMAD" "$@"; }

nomad_agent() {
  local port
  port=$(free_port)
  export NOMAD_ADDR=http://127.0.0.1:$port
  mkdir -p "$WORK/nomad"
  printf 'plugin "raw_exec" {\n  config {\n    enabled = true\n  }\n}\nports {\n  http = %s\n  rpc  = %s\n  serf = %s\n}\n' \
    "$port" "$(free_port)" "$(free_port)" >"$WORK/nomad/agent.hcl"
  # Its client for AWS refuses a bundle that others accept.
  env -u AWS_CA_BUNDLE "$NOMAD" agent -dev -bind 127.0.0.1 -config "$WORK/nomad/agent.hcl" >"$WORK/nomad/log" 2>&1 &
  NOMAD_AGENT=$!
  until_true 30 "a Nomad agent answers" node_is_ready
}

node_is_ready() { nomad node status | grep -q ready; }
no_allocations() { ! pgrep -P "$NOMAD_AGENT" -f " executor " >/dev/null; }

# nomad_pipeline PORT: the pipeline of the containers, as this machine reaches them.
nomad_pipeline() {
  sed -e "s|bootstrap_servers: .*|bootstrap_servers: 127.0.0.1:$(published KAFKA)|" \
    -e "s|http://registry:8081|http://127.0.0.1:$(published REGISTRY)|" \
    -e "s|url: http://coordinator:8090|url: http://127.0.0.1:$(published COORDINATOR)|" \
    -e "s|http://webhook-receiver:8000|http://127.0.0.1:$1|" docker/pipeline.yaml
}

# nomad_run PIPELINE LOG-LEVEL: another level is another version. Ends with the deployment.
nomad_run() {
  timeout 240 "$NOMAD" job run -var sink=webhook -var "pipeline=$1" -var driver=raw_exec \
    -var "command=$PWD/target/$PROFILE/cdc-worker" -var min_healthy_time=2s -var healthy_deadline=20s -var progress_deadline=30s \
    -var "environment={CDC_WORKER_TOKEN=\"demo-worker\",CDC_LOG_LEVEL=\"$2\"}" \
    deploy/nomad/worker.nomad.hcl >"$WORK/nomad-run.log" 2>&1
}

# load N: one order after the other, in transactions of their own.
load() {
  sql cdc_demo "DO \$\$ BEGIN FOR n IN 1..$1 LOOP
    INSERT INTO public.orders (customer_id, quantity, amount) VALUES (1 + n % 5, 1, n);
    COMMIT; PERFORM pg_sleep(0.05); END LOOP; END \$\$"
}

# The longest time without an event at the receiver since SECONDS-EPOCH, in ms.
longest_gap() {
  docker logs -t "$(compose ps -q webhook-receiver)" 2>&1 | python3 -c '
import sys
from datetime import datetime
since = float(sys.argv[1])
times = []
for line in sys.stdin:
    stamp = line.split(" ", 1)[0][:26].rstrip("Z")
    at = datetime.fromisoformat(stamp + "+00:00").timestamp()
    if at > since:
        times.append(at)
print(round(1000 * max((b - a for a, b in zip(times, times[1:])), default=0)))' "$1"
}

nomad_upgrade() {
  local before began loading gap mirror
  before=$(received)
  mirror=$(compose ps -q worker-mirror)
  began=$(date +%s.%N)
  load 600 &
  loading=$!
  nomad_run "$WORK/pipeline.yaml" DEBUG || { tail -n 20 "$WORK/nomad-run.log" >&2; fail "the upgrade"; }
  wait "$loading"
  until_true 60 "replaced under load, all 600 events arrived" equals $((before + 600)) received
  gap=$(longest_gap "$began")
  say "longest time without an event: $gap ms"
  ((gap < 5000)) || fail "a gap of $gap ms, over 5 s"
  [[ $mirror == "$(compose ps -q worker-mirror)" ]] || fail "another sink's worker was replaced"
}

nomad_revert() {
  local before
  nomad_pipeline 1 >"$WORK/wrong.yaml"
  before=$(received)
  load 20
  ! nomad_run "$WORK/wrong.yaml" DEBUG || fail "a version whose receiver does not exist was promoted"
  grep -qi 'rolling back\|reverted\|failed' "$WORK/nomad-run.log" || fail "the deployment did not say that it failed"
  load 20
  until_true 60 "a version that is never ready was not promoted, the old one delivers" equals $((before + 40)) received
}
