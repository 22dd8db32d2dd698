#!/usr/bin/env python3
"""tshark as an independent witness of a capture of Gm: opens our ESP with the key table and says what it saw.

    witness.py CAPTURE WIRESHARK_DIR [--forged SPI …] [--phones N]

Checks: every ICV tshark can verify is good (but those of --forged SPIs); every suite's ESP dissects as SIP; no SIP in clear but the
first REGISTER and its challenge, and none of a phone after its SM6; nothing in clear on a protected port; no ck or ik on the wire.
Exit status 77: tshark is missing.
"""
import argparse
import collections
import csv
import os
import re
import shutil
import subprocess
import sys

PROTECTED = "{6100..6103, 6200..6207}"
DECODE = [word for port in ("6100-6103", "6200-6207") for word in ("-d", f"udp.port=={port},sip", "-d", f"tcp.port=={port},sip")]

failures = 0


def expect(condition: bool, text: str) -> None:
    global failures
    print(("ok      " if condition else "FAILED  ") + text)
    if not condition:
        failures += 1


def tshark(capture: str, display_filter: str, fields: list[str]) -> list[list[str]]:
    command = ["tshark", "-n", "-r", capture, *DECODE, "-Y", display_filter, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=f"]
    for f in fields:
        command += ["-e", f]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"tshark: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    rows = []
    for line in done.stdout.decode(errors="replace").split("\n"):
        row = line.split("\t")
        # A method read out of what is no SIP may hold tabs and line ends: the first field is always a number.
        if row[0].isdigit():
            rows.append((row + [""] * len(fields))[:len(fields)])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("wireshark")
    parser.add_argument("--forged", nargs="*", default=[])
    parser.add_argument("--phones", type=int, default=1)
    args = parser.parse_args()
    if shutil.which("tshark") is None:
        print("tshark is not installed")
        return 77
    os.environ["WIRESHARK_CONFIG_DIR"] = os.path.abspath(args.wireshark)
    forged = {int(s, 0) for s in args.forged}

    suites = {}  # SPI and destination -> (encryption, integrity)
    with open(os.path.join(args.wireshark, "esp_sa"), newline="") as table:
        for row in csv.reader(table):
            suites[(int(row[3], 0), row[2])] = (row[4], row[6])

    seen = collections.Counter()      # suite -> SIP messages tshark read inside ESP
    verified = collections.Counter()  # suite -> ICVs tshark found good
    bad, unknown, forged_seen = [], [], 0
    for number, spi, dst4, dst6, good, wrong, method, status in tshark(
            # An ICMP error quotes ESP: a phone that has gone does not know protocol 50 any more.
            args.capture, "esp and not icmp and not icmpv6", ["frame.number", "esp.spi", "ip.dst", "ipv6.dst", "esp.icv_good", "esp.icv_bad", "sip.Method", "sip.Status-Code"]):
        key = (int(spi, 0), dst4 or dst6)
        if key[0] in forged:
            forged_seen += 1
            continue
        suite = suites.get(key)
        if suite is None:
            unknown.append(f"{number}: {spi} to {key[1]}")
            continue
        if wrong in ("1", "True"):
            bad.append(number)
        if good in ("1", "True"):
            verified[suite] += 1
        if method or status:
            seen[suite] += 1
    expect(not bad, f"tshark verifies our ICVs: {sum(verified.values())} good, bad in frames {bad[:5]}")
    expect(not unknown, f"every ESP packet belongs to an SA of the key table (frames without: {unknown[:5]})")
    for suite in sorted(set(suites.values())):
        name = f"{suite[0]} + {suite[1]}"
        if suite[1].startswith("ANY"):
            # AES-GMAC: this tshark neither verifies it nor knows that it has an IV; gmue's own ESP is the witness there.
            print(f"note    {name}: beyond this tshark, SIP guessed in {seen[suite]} packets")
            continue
        expect(seen[suite] >= 2, f"{name}: {seen[suite]} SIP messages dissected, {verified[suite]} ICVs verified")
    if forged:
        expect(forged_seen > 0, f"the forged ESP is on the wire ({forged_seen} packets)")

    # In clear: SM1 and SM6 of each phone and nothing else.
    # What is sent again crosses its answer: it is of the transaction that was begun before.
    challenged, begun, late, odd = set(), set(), [], []
    clear = 0
    for number, src4, src6, dst4, dst6, method, status, call, cseq in tshark(
            args.capture, "sip and not esp and not icmp and not icmpv6",
            ["frame.number", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "sip.Method", "sip.Status-Code", "sip.Call-ID", "sip.CSeq"]):
        clear += 1
        source, destination = src4 or src6, dst4 or dst6
        if method:
            if method != "REGISTER":
                odd.append((number, method))
            if source in challenged and (call, cseq) not in begun:
                late.append(number)
            begun.add((call, cseq))
        else:
            if status not in ("401", "100"):
                odd.append((number, status))
            if destination in challenged and (call, cseq) not in begun:
                late.append(number)
            if status == "401":
                challenged.add(destination)
    expect(clear >= 2 * args.phones, f"{clear} SIP messages in clear, {len(challenged)} phones challenged")
    expect(not odd, f"in clear only REGISTER and its 401 (others: {odd[:5]})")
    expect(not late, f"no SIP in clear after a phone's SM6 (frames: {late[:5]})")
    naked = tshark(args.capture, f"(udp.port in {PROTECTED} or tcp.port in {PROTECTED}) and not esp", ["frame.number"])
    expect(not naked, f"nothing in clear on a protected port (frames: {[n[0] for n in naked[:5]]})")
    with open(args.capture, "rb") as raw:
        data = raw.read()
    expect(re.search(rb'[ ,;](ck|ik)="?[0-9a-fA-F]{16}', data) is None, "no ck or ik on Gm")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
