# shellcheck shell=bash
# Starting, recognising and ending the processes of this stack. A pid file holds the pid and the
# kernel's start time of the process, so that a pid that was given to another one is not taken for ours.

# spawn NAME COMMAND...: in a session of its own, so that an interrupt at the terminal spares it.
spawn() {
  local name=$1 pid
  shift
  mkdir -p "$DATA/run" "$DATA/logs"
  [[ ! -f $DATA/logs/$name.log ]] || mv "$DATA/logs/$name.log" "$DATA/logs/$name.log.1"
  # The lock must not live on in the service.
  setsid "$@" >"$DATA/logs/$name.log" 2>&1 </dev/null {stack_lock}>&- &
  pid=$!
  disown "$pid"
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$DATA/run/$name.pid"
}

# Field 22 of the process's stat line, counted after the name, which may hold anything; empty when
# there is no such process.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  # shellcheck disable=SC2086 # split into fields
  set -- $stat
  [[ $1 == Z ]] || printf '%s' "${20}"
}

# Prints the pid of a service of ours that runs; fails when it does not.
running_pid() {
  local pid started
  [[ -f $DATA/run/$1.pid ]] || return 1
  read -r pid started <"$DATA/run/$1.pid" || return 1
  [[ -n $started && $(start_time "$pid") == "$started" ]] || return 1
  printf '%s' "$pid"
}

# stop NAME SIGNAL SECONDS: asks, waits, and kills what does not end in time.
stop() {
  local name=$1 signal=$2 seconds=$3 pid deadline
  if pid=$(running_pid "$name"); then
    kill -s "$signal" "$pid" 2>/dev/null || true
    deadline=$(($(now_ms) + seconds * 1000))
    while running_pid "$name" >/dev/null; do
      if (($(now_ms) > deadline)); then
        say "$name: does not end within $seconds s, killed"
        kill -s KILL "$pid" 2>/dev/null || true
        deadline=$((deadline + 600000))
      fi
      sleep 0.05
    done
    say "$name: stopped"
  fi
  rm -f "$DATA/run/$name.pid"
}

# wait_ready NAME SECONDS CHECK...: until the check succeeds; fails when the process ends first or
# the time is over, and shows why.
wait_ready() {
  local name=$1 seconds=$2 deadline
  shift 2
  deadline=$(($(now_ms) + seconds * 1000))
  until "$@" >/dev/null 2>&1; do
    if ! running_pid "$name" >/dev/null; then
      printf 'stack: error: %s ended while starting\n' "$name" >&2
      show_log_end "$DATA/logs/$name.log"
      return 1
    fi
    if (($(now_ms) > deadline)); then
      printf 'stack: error: %s is not ready after %s s (%s_READY_SECONDS)\n' "$name" "$seconds" "CDC_LOCAL_${name^^}" >&2
      show_log_end "$DATA/logs/$name.log"
      return 1
    fi
    sleep 0.1
  done
}

# port_free NAME VARIABLE: refuses a port on which someone else listens, before anything starts.
port_free() {
  local service=$1 variable=$2
  local port=${!variable}
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail 69 "port $port for $service is in use by another process: stop it or set $variable to a free port"
  fi
}
