# shellcheck shell=bash
# Messages of the scripts here. SCRIPT is the name that they begin with.

SCRIPT=${SCRIPT:-stack}

say() {
  printf '%s: %s\n' "$SCRIPT" "$*"
}

# fail CODE MESSAGE...: ends the script (sysexits codes).
fail() {
  local code=$1
  shift
  printf '%s: error: %s\n' "$SCRIPT" "$*" >&2
  exit "$code"
}

# Prints the end of a log under a heading, indented, on standard error.
show_log_end() {
  local log=$1 lines=${2:-25}
  printf '  last lines of %s:\n' "$log" >&2
  if [[ -s $log ]]; then
    tail -n "$lines" "$log" | sed 's/^/    /' >&2
  else
    printf '    (empty)\n' >&2
  fi
}

# Seconds since a time taken from now_ms, with one decimal.
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

now_ms() {
  local now=$EPOCHREALTIME
  printf '%s' "${now%[.,]*}${now: -6:3}"
}
