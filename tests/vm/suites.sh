# Sourced by kernel_test and screen_test: the suites of one backend in one machine. The caller sets `backend`.
#   kernel_test [SUITE…]     missing part scale registration misbehaviour failures, with kernel also nat; without one: all
# missing: a kernel that lacks something; part: what only this backend has (kernel_part, screen_part); scale: 5,000 phones; the others:
# the smoke tests of these names.
# Each suite's time is a line "time …".
suites=("$@")
if [ $# = 0 ]; then
    suites=(missing part scale registration misbehaviour failures)
    [ "$backend" = kernel ] && suites+=(nat)
fi

if [ "${GMGATE_VM:-}" != 1 ]; then
    out=build/test-logs/vm-$backend
    rm -rf "$out"
    GMGATE_BACKEND=$backend tests/vm/run --timeout 1500 --cpus 1 --mem 2048 --out "$out" "tests/vm/${backend}_test" "${suites[@]}"
    worst=$?
    # What was captured in there tshark reads out here, where it starts in a second.
    if [ -s "$out/smoke-reg/witness.arguments" ] && command -v tshark >/dev/null; then
        # shellcheck disable=SC2046
        tests/smoke/witness.py "$out/smoke-reg/gm.pcapng" "$out/smoke-reg/wireshark" $(cat "$out/smoke-reg/witness.arguments") || worst=1
    fi
    exit $worst
fi

scale() {
    local device=()
    ip link set lo up
    if [ "$backend" = screen ]; then
        ip link add scale0 type veth peer name scale1 && ip link set scale0 up && ip link set scale1 up
        device=(scale0)
    else
        ip addr add 10.21.0.1/32 dev lo
    fi
    build/release/tests/backend_scale 5000 10.21.0.1 "${device[@]}"
}
run_suite() {
    local at=$SECONDS rc
    case $1 in
        missing) tests/vm/missing ;;
        part) "tests/vm/${backend}_part" ;;
        nat) tests/vm/kernel_nat ;;
        registration | misbehaviour) "tests/smoke/${1}_test" ;;
        # The rules that only the packet layer can break: sets that must go at once, stay, or move.
        failures) tests/smoke/failures_test C3 C8 D1 D2 D6 D7 B3 C12 ;;
        scale) scale ;;
        *) echo "no suite '$1'"; false ;;
    esac
    rc=$?
    [ $rc = 0 ] || echo "FAILED  $backend $1: exit status $rc"
    echo "time    $backend $1: $((SECONDS - at)) s"
    return $rc
}
# Two at a time, since all of them wait a lot: one lane's output is kept until it is done. The one that takes modules out goes first.
worst=0 first=() second=()
for suite in "${suites[@]}"; do
    case $suite in
        missing) run_suite missing || worst=1 ;;
        part | scale | nat) first+=("$suite") ;;
        *) second+=("$suite") ;;
    esac
done
lane() {
    local suite worst=0
    for suite in "$@"; do run_suite "$suite" || worst=1; done
    return $worst
}
lane "${second[@]}" >/tmp/second-lane 2>&1 &
lane "${first[@]}" || worst=1
wait $! || worst=1
cat /tmp/second-lane
exit $worst
