# What the scripts beside this file share: messages, waiting for conditions, processes that are ended by their number only.
# Sourced, never run.

repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# target_dir: where cargo puts what it builds, which a configuration above the repository may have set too.
target_dir() {
    local asked=${CARGO_TARGET_DIR:-}
    [[ -n $asked ]] || asked=$(cd "$repo_root" && cargo metadata --format-version 1 --no-deps --offline 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    printf '%s\n' "${asked:-$repo_root/target}"
}

# wait_for SECONDS WHAT COMMAND...: runs the command until it succeeds; after so many seconds fails and says what did not come.
wait_for() {
    local seconds_max=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((deadline <= SECONDS)); then
            say "waited ${seconds_max} s for $what"
            return 1
        fi
        sleep 0.05
    done
}

# started_at PID: when the process started, in the kernel's ticks. With the pid it names one process for ever, even if the pid is used again.
started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# record_process FILE PID: remembers a process.
record_process() { printf '%s %s\n' "$2" "$(started_at "$2")" >"$1"; }

# recorded_pid FILE: the pid of a remembered process that still runs; fails if it does not.
recorded_pid() {
    local pid ticks
    [[ -f $1 ]] || return 1
    read -r pid ticks <"$1" || return 1
    [[ -n ${ticks:-} && $(started_at "$pid") == "$ticks" ]] || return 1
    # A zombie has ended; only its parent has not looked yet.
    [[ $(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f1) != Z ]] || return 1
    printf '%s\n' "$pid"
}

has_ended() { ! recorded_pid "$1" >/dev/null; }

# end_process FILE: ends a remembered process, by force if it takes more than 20 s, and forgets it.
end_process() {
    local pid
    if pid=$(recorded_pid "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_for 20 "process $pid to end" has_ended "$1"; then
            kill -KILL "$pid" 2>/dev/null || true
            wait_for 10 "process $pid to end by force" has_ended "$1"
        fi
    fi
    rm -f "$1"
}
