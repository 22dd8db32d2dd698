# Sourced by deploy/demo and tests/run: a long command's last line as progress on a terminal, silence elsewhere.

# with_progress LOG command…: output to LOG; returns the command's status.
with_progress() {
    local log=$1 pid line
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r')
            printf '\r\033[K  %s' "${line:0:$((${COLUMNS:-100} - 4))}"
            sleep 0.3
        done
        printf '\r\033[K'
    fi
    wait "$pid"
}
