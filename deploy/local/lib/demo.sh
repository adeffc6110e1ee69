# shellcheck shell=bash
# Starting and ending what a demo runs: the stack's services, and the pipeline's processes.

# In the order of the pipeline file, which is the order of their ports.
SINKS=(webhook-notifications analytics-db analytics-mirror)
# Last first: this is the order in which they are stopped.
FLEET=(coordinator receiver)
for sink in "${SINKS[@]}"; do
  FLEET=("worker-$sink" "${FLEET[@]}")
done
declare -A DEMO_PORTS=(
  [CDC_LOCAL_COORDINATOR_PORT]=18090
  [CDC_LOCAL_WORKER_PORT]=18091
  [CDC_LOCAL_WEBHOOK_PORT]=18000
)

load_demo() {
  local name value
  load_settings
  STACK=$HERE/stack
  STACK_DATA=$DATA
  PIPELINE=$ROOT/config/demo-local.yaml
  # From here on process.sh keeps its files here.
  DATA=$STACK_DATA/demo
  for name in "${!DEMO_PORTS[@]}"; do
    value=${!name:-$(saved_value "$name")}
    export "$name=${value:-${DEMO_PORTS[$name]}}"
  done
  BIN=${CARGO_TARGET_DIR:-$ROOT/target}/debug
  [[ $BIN == /* ]] || BIN=$ROOT/$BIN
}

# One demo at a time; the lock is also what spawn keeps out of the processes it starts.
lock_demo() {
  mkdir -p "$DATA/run" "$DATA/logs"
  # shellcheck disable=SC2034 # spawn closes it
  exec {stack_lock}>"$DATA/lock"
  flock -n "$stack_lock" || { say "waiting for another demo in $DATA"; flock "$stack_lock"; }
}

# Fetches and builds, both at once: neither needs the other.
demo_build() {
  local pid
  "$STACK" packages
  command -v cargo >/dev/null || fail 69 "there is no cargo: install Rust with rustup; rust-toolchain.toml names the version"
  say "installing the services and building the binaries"
  # A group of its own, so that an interrupt ends what it started too.
  set -m
  "$STACK" install </dev/null &
  pid=$!
  set +m
  # shellcheck disable=SC2064 # the process group of now is meant
  trap "kill -TERM -- -$pid 2>/dev/null || true" EXIT
  (cd "$ROOT" && cargo build --locked --workspace --bins) || fail 69 "the binaries could not be built"
  wait "$pid" || fail 69 "the services could not be installed"
  trap - EXIT
}

# The services that did not run before are ours to stop.
demo_stack_up() {
  local service
  for service in "${SERVICES[@]}"; do
    DATA=$STACK_DATA running_pid "$service" >/dev/null || printf '%s\n' "$service" >>"$DATA/services"
  done
  "$STACK" up </dev/null
  set -a
  # shellcheck source=/dev/null
  source "$STACK_DATA/env"
  set +a
}

# For later commands by hand: `set -a; source .local/demo/env`.
write_demo_env() {
  local name
  {
    cat "$STACK_DATA/env"
    for name in "${!DEMO_PORTS[@]}"; do
      printf '%s=%s\n' "$name" "${!name}"
    done | sort
  } >"$DATA/env"
}

fleet_stop() {
  local name
  for name in "${FLEET[@]}"; do
    stop "$name" TERM 20
  done
}

fleet_start() {
  local index sink name
  port_free receiver CDC_LOCAL_WEBHOOK_PORT
  port_free coordinator CDC_LOCAL_COORDINATOR_PORT
  spawn receiver "$BIN/webhook_receiver" --bind "127.0.0.1:$CDC_LOCAL_WEBHOOK_PORT" --file "$DATA/events.jsonl"
  spawn coordinator "$BIN/cdc-coordinator" serve "$PIPELINE"
  for index in "${!SINKS[@]}"; do
    sink=${SINKS[index]}
    name=CDC_LOCAL_WORKER_PORT_$index
    export "$name=$((CDC_LOCAL_WORKER_PORT + index))"
    port_free "worker of $sink" "$name"
    spawn "worker-$sink" "$BIN/cdc-worker" run "$PIPELINE" --sink "$sink"
  done
  await 30 "the coordinator is ready" is_ok "http://127.0.0.1:$CDC_LOCAL_COORDINATOR_PORT/readyz"
  for index in "${!SINKS[@]}"; do
    await 30 "the worker of ${SINKS[index]} is ready" is_ok "http://127.0.0.1:$((CDC_LOCAL_WORKER_PORT + index))/readyz"
  done
}

is_ok() {
  curl -fsS -o /dev/null --max-time 2 "$1" 2>/dev/null
}

# await SECONDS WHAT CHECK...: until the check succeeds; ends the demo when a process of the
# pipeline ends or the time is over.
await() {
  local seconds=$1 what=$2 deadline name
  shift 2
  deadline=$(($(now_ms) + seconds * 1000))
  until "$@"; do
    for name in "${FLEET[@]}"; do
      [[ ! -f $DATA/run/$name.pid ]] || running_pid "$name" >/dev/null || {
        show_log_end "$DATA/logs/$name.log"
        fail 70 "$name ended while waiting until $what"
      }
    done
    if (($(now_ms) > deadline)); then
      for name in "${FLEET[@]}"; do
        [[ ! -f $DATA/logs/$name.log ]] || show_log_end "$DATA/logs/$name.log" 12
      done
      fail 75 "not within $seconds s: $what"
    fi
    sleep 0.1
  done
}

demo_down() {
  if [[ ! -d $DATA ]]; then
    say "nothing runs"
    return 0
  fi
  lock_demo
  demo_stop
}

demo_stop() {
  local name services=() any=no
  for name in "${FLEET[@]}"; do
    ! running_pid "$name" >/dev/null || any=yes
  done
  [[ $any == yes || -s $DATA/services ]] || say "nothing runs that a demo started"
  fleet_stop
  if [[ -s $DATA/services ]]; then
    mapfile -t services < <(sort -u "$DATA/services")
    "$STACK" down "${services[@]}"
  fi
  rm -f "$DATA/services"
}
