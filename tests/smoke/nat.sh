# Sourced after lib.sh by tests with phones behind NATs: at most three of them, tests/smoke/nat.py.

# NAT number i: PREFIX-pi is where the phones are, all of 192.168.1.0/24; the NAT itself runs where the lab's phones are, and 10.20.i.1
# is its address, which nobody has: packets to it are the NAT's alone.
nat_up() {
    local i=$1 ns=$lab_prefix-p$1
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip link add "$lab_prefix-i$i" netns "$ns" type veth peer name "$lab_prefix-o$i" netns "$lab_ue"
    ip netns exec "$ns" ethtool -K "$lab_prefix-i$i" tx off >/dev/null 2>&1
    ip -n "$ns" link set "$lab_prefix-i$i" up
    ip -n "$lab_ue" link set "$lab_prefix-o$i" up
    ip -n "$ns" route add local 192.168.1.0/24 dev lo
    ip -n "$ns" addr add 192.168.2.2/24 dev "$lab_prefix-i$i"
    ip -n "$ns" route add default via 192.168.2.1
    ip -n "$ns" neigh add 192.168.2.1 lladdr "$(ip -n "$lab_ue" -o link show "$lab_prefix-o$i" | sed 's/.*ether \([0-9a-f:]*\).*/\1/')" dev "$lab_prefix-i$i"
    shift
    lab_start "$lab_ue" "nat$i" python3 tests/smoke/nat.py --inside "$lab_prefix-o$i" --outside "$lab_prefix-ue" \
        --address "10.20.$i.1" --map "$lab_out/nat$i.map" "$@"
    lab_wait 10 test -e "$lab_out/nat$i.map"
}
# NAT, then gmue's arguments.
nat_gmue() {
    local i=$1
    shift
    ip netns exec "$lab_prefix-p$i" "$lab_bin/gmue" --pcscf 10.21.0.1:5060 --realm "$lab_realm" --seed "$lab_seed" \
        --keylog "$lab_out/wireshark/esp_sa" "$@" 8>&- 9>&-
}
mapped() { awk -v who="udp 192.168.1.2:4500" '$1 " " $2 == who { print $3 }' "$lab_out/nat$1.map"; } # NAT: where its phone's ESP comes from
endpoint_of() { # phone
    lab_gmctl -j sa show --impi "$(printf '%015d' $((1010000000000 + $1)))@$lab_realm" | sed -n 's/.*"endpoint":"\([0-9.:]*\)".*/\1/p' | tail -n 1
}
known_at() { [ "$(endpoint_of "$1")" = "$2" ]; }
taken() { lab_gmctl stats | awk -v n="$1" '$1 == n { print int($2) }'; }
signal_nat() { kill "-$2" "$(cat "$lab_state/nat$1.pid")"; }


nat_clear() { for i in 1 2 3; do ip netns del "$lab_prefix-p$i" 2>/dev/null; done; }
# The NATs' addresses are nobody's here: no ICMP about their packets.
nat_room() {
    ip -n "$lab_ue" route del local 10.20.0.0/16 dev lo
    ip -n "$lab_ue" route add blackhole 10.20.0.0/16
}
# In lib.sh's place at the end.
nat_finish() {
    local rc=$? i
    for i in 1 2 3; do
        [ -f "$lab_state/phone$i.pid" ] && lab_stop "phone$i"
        [ -f "$lab_state/nat$i.pid" ] && lab_stop "nat$i"
    done
    nat_clear
    (exit $rc)
    finish
}
