#!/usr/bin/env bash
# The packet backend over a real veth, real ESP from an independent sender: two network namespaces, removed on exit.
#
#   tests/smoke/dataplane.sh [BUILD_DIR]      default: build/release; root needed
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
probe=$build/tests/dataplane_probe
[ "$(id -u)" = 0 ] || { echo "dataplane.sh: run it as root (network namespaces)" >&2; exit 77; }
[ -x "$probe" ] || { echo "dataplane.sh: no $probe; build the target dataplane_probe" >&2; exit 1; }

ue=gmports-ue-$$
gw=gmports-gw-$$
clean() {
    for ns in "$ue" "$gw"; do
        # Only processes inside our own namespaces.
        if ip netns list | grep -qw "$ns"; then
            for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
            ip netns del "$ns" 2>/dev/null || true
        fi
    done
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add "$ue"
ip netns add "$gw"
ip -n "$ue" link set lo up
ip -n "$gw" link set lo up
ip link add gmue0 netns "$ue" type veth peer name gmnic0 netns "$gw"
# A veth hands over packets whose checksums are not filled in, as if a NIC would: not on this wire.
ip netns exec "$ue" ethtool -K gmue0 tx off >/dev/null
ip netns exec "$ue" sysctl -qw net.ipv6.conf.gmue0.accept_dad=0
for i in 2 10 11 12 13 14 15 16 17; do
    ip -n "$ue" addr add 10.99.0.$i/24 dev gmue0
    ip -n "$ue" addr add fd00:99::$i/64 dev gmue0 nodad
done
ip -n "$ue" link set gmue0 up
ip -n "$gw" link set gmnic0 up

python3 tests/smoke/dataplane_check.py --probe "$probe" --ue "$ue" --gw "$gw"
