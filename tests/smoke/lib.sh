# Sourced by the smoke tests: a laboratory of their own (deploy/lab.sh), taken down however the test ends.
# The caller sets `name` first (a few letters, unique among the tests).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
lab_prefix=gms$name lab_state=/run/gmgate-smoke-$name lab_out=build/test-logs/smoke-$name
# GMGATE_BACKEND: dpdk, kernel or screen. Waiting ends with what is waited for, so patience costs nothing:
# a machine may be three times slower than expected, and in tests/vm the processor is emulated.
lab_backend=${GMGATE_BACKEND:-dpdk}
lab_patience=$([ -n "${GMGATE_VM:-}" ] && echo 6 || echo 3)
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

# The gateway answers and is well. One that ended is not waited for; loading the kernel's algorithms takes long on an emulated processor.
lab_came_up() {
    local answered='lab_gmctl health || ! lab_alive gmgated'
    lab_wait "$([ "$lab_backend" = dpdk ] && echo 20 || echo 60)" eval "$answered" && lab_alive gmgated && return 0
    echo "gmgated did not come up"
    return 1
}
# phones, extra configuration, more arguments of gmhome: everything up, with a capture of Gm.
lab_all_up() {
    local phones=$1 extra=${2:-}
    shift; [ $# -gt 0 ] && shift
    lab_up || exit 1
    lab_config "$extra" >"$lab_out/gmgated.yaml"
    lab_gmhome "$phones" --trace-cx "$@"
    lab_gmgated
    # Loading the kernel's algorithms takes a minute on an emulated processor.
    lab_came_up || exit 1
    lab_alive gmhome || { echo "gmhome ended"; exit 1; }
    lab_capture "$lab_out/gm.pcapng" || { echo "no capture"; exit 1; }
    printf 'esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n' >"$lab_out/wireshark/preferences"
}
# What is asked over and over starts no python: a second each time on an emulated processor.
field() { # file key: a number of a report; a.b: one inside another
    case $2 in
        *.*) python3 -c 'import json,sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v = v[k]
print(v)' "$1" "$2" ;;
        *) sed -n "s/^  \"$2\": \([-0-9.]*\),\{0,1\}\$/\1/p" "$1" | head -n 1 ;;
    esac
}
sets_in() { lab_gmctl sa count | awk -v state="$1" '$1 == state { n = $2 } END { print n + 0 }'; } # state, or total
dropped() { # reason: by all layers
    lab_gmctl -j drops | tr '{' '\n' | grep -F "\"reason\":\"$1\"" | sed 's/.*"count":\([0-9]*\).*/\1/' | awk '{ n += $1 } END { print n + 0 }'
}
# The gateway's states in the kernel, without the kernel's own notes of packets that had no SA (SPI 0): last words of TCP connections
# whose SAs are gone.
kernel_states() { ip -n "$lab_gw" xfrm state list reqid 18253 | grep -cE 'proto esp spi 0x0*[1-9a-f]'; }
xfrm_stat() { lab_in "$lab_gw" awk -v n="$1" '$1 == n { print $2 }' /proc/net/xfrm_stat; }
# text: with kernel ESP, what the gateway and the kernel say of every SA is the same (tests/vm/agree). Sets `refused`.
kernel_agrees() {
    local said rc
    # A set may go, or a packet come, between the two questions.
    for _ in 1 2 3 4 5 6; do
        said=$(tests/vm/agree "$lab_backend" "$lab_gw" "$lab_state/gmgated.sock") && { rc=0; break; } || rc=1
        sleep 5
    done
    refused=$(sed -n 's/.*refused by the kernel: //p' <<<"$said")
    if [ $rc = 0 ]; then ok "$1: $(tail -n 1 <<<"$said")"; else fail "$1: $said"; fi
}
