# Sourced by the smoke tests: a laboratory of their own (deploy/lab.sh), taken down however the test ends.
# The caller sets `name` first (a few letters, unique among the tests).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
lab_prefix=gms$name lab_state=/run/gmgate-smoke-$name lab_out=build/test-logs/smoke-$name
# GMGATE_BACKEND: dpdk, kernel or screen. In tests/vm the processor is emulated: everything takes many times longer.
lab_backend=${GMGATE_BACKEND:-dpdk}
lab_patience=${GMGATE_VM:+6}
. deploy/lab.sh

bad=0
ok() { echo "ok      $*"; }
fail() { echo "FAILED  $*"; bad=$((bad + 1)); }
# expect TEXT command…: the command succeeds.
expect() {
    local text=$1
    shift
    if "$@" >"$lab_out/expect.log" 2>&1; then ok "$text"; else fail "$text ($*)"; tail -n 5 "$lab_out/expect.log" | sed "s/^/        /"; fi
}
expect_equal() { # text wanted got
    if [ "$2" = "$3" ]; then ok "$1: $3"; else fail "$1: expected '$2', got '$3'"; fi
}
skip() { echo "$*"; exit 77; }
finish() {
    local rc=$?
    trap '' INT TERM
    if [ "$rc" != 0 ] && [ "$rc" != 77 ]; then
        for f in gmgated gmhome; do [ -s "$lab_out/$f.log" ] && { echo "--- $f.log"; tail -n 8 "$lab_out/$f.log"; }; done
    fi
    lab_down
    rm -f "/run/$lab_prefix.lock"
    # What is written in the VM is gone with it.
    [ -n "${VM_OUT:-}" ] && cp -r "$lab_out" "$VM_OUT/"
    exit "$rc"
}

[ "$(id -u)" = 0 ] || skip "needs root for network namespaces"
for program in gmgated gmctl gmhome gmue; do [ -x "$lab_bin/$program" ] || { echo "$lab_bin/$program is not built"; exit 1; }; done
exec 8>"/run/$lab_prefix.lock"
flock -n 8 || { echo "another run of this test is under way"; exit 1; }
trap finish EXIT
trap 'exit 130' INT TERM
lab_down
rm -rf "$lab_out"
mkdir -p "$lab_out/wireshark"

# phones, extra configuration, more arguments of gmhome: everything up, with a capture of Gm.
lab_all_up() {
    local phones=$1 extra=${2:-}
    shift; [ $# -gt 0 ] && shift
    lab_up || exit 1
    lab_config "$extra" >"$lab_out/gmgated.yaml"
    lab_gmhome "$phones" --trace-cx "$@"
    lab_gmgated
    # Loading the kernel's algorithms takes a minute on an emulated processor.
    lab_wait "$([ "$lab_backend" = dpdk ] && echo 20 || echo 120)" lab_gmctl health || { echo "gmgated did not come up"; exit 1; }
    lab_alive gmhome || { echo "gmhome ended"; exit 1; }
    lab_capture "$lab_out/gm.pcapng" || { echo "no capture"; exit 1; }
    printf 'esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n' >"$lab_out/wireshark/preferences"
}
field() { python3 -c 'import json,sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v = v[k]
print(v)' "$1" "$2"; }
sets_in() { lab_gmctl -j sa count | python3 -c 'import json,sys
v = json.load(sys.stdin)
v = v.get("states", v)
print(v.get(sys.argv[1], 0) if isinstance(v, dict) else {s["state"]: s["count"] for s in v}.get(sys.argv[1], 0))' "$1"; }
dropped() { # reason
    lab_gmctl -j drops | python3 -c 'import json,sys
n = 0
for line in sys.stdin:
    for d in [json.loads(line)] if line.strip() else []:
        for r in d.get("drops", [d]):
            if r.get("reason") == sys.argv[1]: n += r.get("count", 0)
print(n)' "$1"; }
