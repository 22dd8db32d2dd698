# A laboratory of three network namespaces on this machine; sourced by deploy/demo and the smoke tests.
#
#   PREFIX-ue ── veth ── PREFIX-gw ── veth ── PREFIX-home
#   phones: 10.20.0.0/16, fd00:20::/64, behind the router 10.21.0.2, fd00:21::2
#   gateway: 10.21.0.1, fd00:21::1 towards the phones; 10.30.0.1 towards the home network, which is 10.30.0.2
#
# The caller sets, before sourcing: lab_prefix (short: interface names hold 15 characters), lab_state (a directory for pids and the
# gateway's socket, made here and removed by lab_down), lab_out (where logs go). Needs root.
# lab_patience (default 1): every waiting time is so many times longer.
# lab_backend (default dpdk): the gateway's backend; with kernel the gateway's addresses and routes are the host's.

lab_ue=$lab_prefix-ue lab_gw=$lab_prefix-gw lab_home=$lab_prefix-home
lab_realm=ims.mnc001.mcc001.3gppnetwork.org
lab_seed=676d676174652064656d6f2073656564
lab_bin=${lab_bin:-build/release/bin}
lab_backend=${lab_backend:-dpdk}
lab_suites='null/aes-gcm, aes-gmac/null, hmac-sha-1-96/aes-cbc, hmac-sha-1-96/null, hmac-md5-96/aes-cbc, hmac-md5-96/null, hmac-sha-1-96/des-ede3-cbc, hmac-md5-96/des-ede3-cbc'

# Ends what runs and removes every namespace and interface; also what an earlier run left. Safe to call at any time.
lab_down() {
    local name pid ns
    if [ -d "$lab_state" ]; then
        # Phones first, the gateway next: it gives the interface back and wipes its keys.
        for name in gmue dumpcap dumpcap-core gmgated gmhome; do
            [ -f "$lab_state/$name.pid" ] && lab_stop "$name"
        done
    fi
    for ns in "$lab_ue" "$lab_gw" "$lab_home"; do
        [ -e "/run/netns/$ns" ] || continue
        ip netns pids "$ns" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "$ns" 2>/dev/null || true
    done
    rm -rf "$lab_state"
    # gmgated makes it for what a killed run would leave to put back; not empty: somebody else's gateway.
    rmdir /run/gmgate 2>/dev/null || true
}

lab_exists() { [ -e "/run/netns/$lab_ue" ] || [ -e "/run/netns/$lab_gw" ] || [ -e "/run/netns/$lab_home" ] || [ -d "$lab_state" ]; }

# Namespaces, cables, addresses.
lab_up() {
    local n p
    mkdir -p "$lab_state" "$lab_out"
    for n in "$lab_ue" "$lab_gw" "$lab_home"; do
        ip netns add "$n"
        # Addresses are usable at once: nobody else is on these cables.
        ip netns exec "$n" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
        ip -n "$n" link set lo up
    done
    ip link add "$lab_prefix-ue" netns "$lab_ue" type veth peer name "$lab_prefix-nic" netns "$lab_gw"
    ip link add "$lab_prefix-core" netns "$lab_gw" type veth peer name "$lab_prefix-home" netns "$lab_home"
    # A veth hands over frames whose checksums are not filled in, unless told not to.
    for p in "$lab_ue $lab_prefix-ue" "$lab_gw $lab_prefix-nic" "$lab_gw $lab_prefix-core" "$lab_home $lab_prefix-home"; do
        ip netns exec "${p% *}" ethtool -K "${p#* }" tx off >/dev/null 2>&1 || true
        ip -n "${p% *}" link set "${p#* }" up
    done
    ip -n "$lab_ue" addr add 10.21.0.2/24 dev "$lab_prefix-ue"
    ip -n "$lab_ue" addr add fd00:21::2/64 dev "$lab_prefix-ue" nodad
    # This one host is all the phones: every address of the two networks is local to it.
    ip -n "$lab_ue" route add local 10.20.0.0/16 dev lo
    ip -n "$lab_ue" -6 route add local fd00:20::/64 dev lo
    if [ "$lab_backend" = kernel ]; then
        ip -n "$lab_gw" addr add 10.21.0.1/24 dev "$lab_prefix-nic"
        ip -n "$lab_gw" addr add fd00:21::1/64 dev "$lab_prefix-nic" nodad
        ip -n "$lab_gw" route add 10.20.0.0/16 via 10.21.0.2
        ip -n "$lab_gw" -6 route add fd00:20::/64 via fd00:21::2
    fi
    ip -n "$lab_gw" addr add 10.30.0.1/24 dev "$lab_prefix-core"
    ip -n "$lab_home" addr add 10.30.0.2/24 dev "$lab_prefix-home"
}

# The gateway's configuration, to standard output. $1: extra lines, added at the end.
lab_config() {
    cat <<YAML
# config/gmgated.yaml explains every key.
gateway:
  name: 10.30.0.1
  visited_network: visited.example
gm:
  interface: $lab_prefix-nic
  tap: gm0
  addresses: [10.21.0.1/24, "fd00:21::1/64"]
  routes: [10.20.0.0/16 via 10.21.0.2, "fd00:20::/64 via fd00:21::2"]
  port_ps: 6100-6103
  port_pc: 6200-6207
backend: $lab_backend
core:
  listen: ["10.30.0.1:5060"]
  next_hop: 10.30.0.2:5060
security:
  suites: [$lab_suites]
ops:
  socket: $lab_state/gmgated.sock
  metrics: 127.0.0.1:9464
${1:-}
YAML
    # All phones of IPv6 are in one /64 here, where each has its own out there. A caller with limits of its own says so itself.
    case ${1:-} in *limits:*) ;; *) printf 'limits:\n  ipv6_source_prefix: 128\n' ;; esac
}

lab_in() { ip netns exec "$@"; }
# namespace name command…: in the background; its log is $lab_out/NAME.log. No signal of the terminal reaches it.
lab_start() {
    local ns=$1 name=$2
    shift 2
    setsid ip netns exec "$ns" "$@" >"$lab_out/$name.log" 2>&1 </dev/null 8>&- 9>&- &
    echo $! >"$lab_state/$name.pid"
    _lab_since $! >"$lab_state/$name.since"
}
# When a process began: a pid that is another's by now is not ours to kill.
_lab_since() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
lab_alive() { kill -0 "$(cat "$lab_state/$1.pid" 2>/dev/null)" 2>/dev/null; }
# name [signal]: and waits for it to end.
lab_stop() {
    local pid
    pid=$(cat "$lab_state/$1.pid" 2>/dev/null) || return 0
    rm -f "$lab_state/$1.pid"
    [ "$(_lab_since "$pid")" = "$(cat "$lab_state/$1.since" 2>/dev/null)" ] || return 0
    kill "-${2:-TERM}" "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
    echo "lab: $1 did not end in 10 s, killed" >&2
    kill -KILL "$pid" 2>/dev/null || true
}
# seconds command…: until it succeeds.
lab_wait() {
    local seconds=$(($1 * ${lab_patience:-1}))
    shift
    for _ in $(seq $((seconds * 10))); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}
lab_gmctl() { "$lab_bin/gmctl" --socket "$lab_state/gmgated.sock" "$@"; }
lab_gmhome() { # phones, more arguments
    local phones=$1
    shift
    lab_start "$lab_home" gmhome "$lab_bin/gmhome" --listen 10.30.0.2:5060 --realm "$lab_realm" --generate "$phones" --seed "$lab_seed" "$@"
}
lab_gmgated() { lab_start "$lab_gw" gmgated "$lab_bin/gmgated" --config "$lab_out/gmgated.yaml"; }
lab_ue_args=(--pcscf 10.21.0.1:5060 --pcscf6 "[fd00:21::1]:5060" --realm "$lab_realm" --seed "$lab_seed"
             --ue-net 10.20.0.0/16 --ue-net6 fd00:20::/64)
lab_gmue() { ip netns exec "$lab_ue" "$lab_bin/gmue" "${lab_ue_args[@]}" "$@" 8>&- 9>&-; }
# file [name namespace interface]: by default what the phones' end of Gm sees.
lab_capture() {
    local file=$1 name=${2:-dumpcap} ns=${3:-$lab_ue} device=${4:-$lab_prefix-ue}
    lab_start "$ns" "$name" dumpcap -q -B 64 -i "$device" -w "$file"
    echo "$ns $device $file" >"$lab_state/$name.capture"
    lab_wait 10 test -s "$file"
}
# [name]: ends a capture when everything up to now is in its file. dumpcap throws away what it has not read when it is told to stop; so a
# datagram with a mark is sent on the same cable (to all nodes of IPv6: nobody need answer for it), and waited for in the file.
lab_capture_end() {
    local name=${1:-dumpcap} ns device file mark=gmgate-end-of-capture-$RANDOM$RANDOM
    read -r ns device file <"$lab_state/$name.capture" || return 1
    _lab_marked() {
        ip netns exec "$ns" bash -c 'printf %s "$0" >"/dev/udp/ff02::1%$1/9"' "$mark" "$device"
        grep -qaF "$mark" "$file"
    }
    lab_wait 20 _lab_marked || echo "lab: the end of $file may be missing" >&2
    lab_stop "$name" INT
    rm -f "$lab_state/$name.capture"
}
