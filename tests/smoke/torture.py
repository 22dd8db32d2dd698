#!/usr/bin/env python3
"""RFC 4475 over the wire, against tests/data/torture/verdicts.txt.

  torture.py script WAY DELAY            what to tell gmue --console, for "SA, UDP" (sa-udp) or "SA, TCP" (sa-tcp)
  torture.py judge WAY FILE              reads what gmue --console said
  torture.py clear GATEWAY               sends each in clear itself, over UDP and TCP, a source each; runs in the phones' namespace
"""
import json
import os
import re
import select
import socket
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "tests/data/torture")
WAYS = {"sa-udp": 2, "sa-tcp": 3, "clear-udp": 4, "clear-tcp": 5}
failures = 0


def table() -> list[list[str]]:
    with open(os.path.join(FOLDER, "verdicts.txt"), encoding="utf-8") as f:
        rows = [[c.strip() for c in line.split("|")] for line in f if line.strip() and not line.startswith("#")]
    assert len(rows) == 49, len(rows)
    return rows


def compare(way: str, row: list[str], got: str) -> None:
    """`pass` is any final answer that only the home network can have given."""
    global failures
    wanted = row[WAYS[way]]
    # What ends a stream may overtake the answer from beyond us, which then comes on another connection (RFC 3261 18.2.2).
    if wanted == "403 pass close" and re.fullmatch(r"403 close( \d\d\d)?", got):
        return
    # In a stream that is waited on nothing is heard, as where nothing is answered.
    fits = got == wanted.replace("wait", "-")
    if not fits and "pass" in wanted:
        pattern = wanted.replace("pass", r"(?:2\d\d|404|480|405|501|403)")
        fits = re.fullmatch(pattern, got) is not None
    failures += not fits
    if not fits:
        print(f"FAILED  {way} {row[0]} ({row[1]}): {got}, should be {wanted}: {row[6]}")


def script(way: str, delay: str) -> None:
    print("register")
    for row in table():
        print(f"raw {os.path.join(FOLDER, row[0])}.dat")
        print(f"wait {delay}")
        if row[WAYS[way]] == "wait":  # what the stream waits for comes: this, which ends it
            print("request MESSAGE to=sip:echo@ims.mnc001.mcc001.3gppnetwork.org")
        print("request MESSAGE to=sip:echo@ims.mnc001.mcc001.3gppnetwork.org")
    print("status")
    print("deregister")


def answers(call_id: bytes, octets: bytes) -> bool:
    """Is an answer with this Call-ID one to the message? Some share the branch of an earlier one, and so repeat it (RFC 3261
    17.2.3); a late answer of an earlier INVITE, which is sent until it is acknowledged, is none."""
    if call_id in octets:
        return True
    for row in table():
        with open(os.path.join(FOLDER, row[0] + ".dat"), "rb") as f:
            other = f.read()
        if call_id in other:
            return not other.lstrip().startswith(b"INVITE")
    return False


def judge(way: str, path: str) -> None:
    global failures
    with open(path, encoding="utf-8") as f:
        events = [json.loads(line) for line in f if line.startswith("{")]
    rows = {row[0]: row for row in table()}
    now, got, served, seen = None, [], 0, set()
    octets, last, waited = b"", None, False
    for e in events:
        did = e.get("did", "")
        if did.startswith("raw "):
            now, got = os.path.basename(did)[:-4], []
            last, waited = None, rows[now][WAYS[way]] == "wait"
            with open(os.path.join(FOLDER, now + ".dat"), "rb") as f:
                octets = f.read()
        elif e.get("event") == "stray-answer" and now and e["status"] >= 200:
            # A final answer to an INVITE that nobody acknowledges comes again, and later.
            this = (e["status"], e["call-id"])
            if answers(e["call-id"].encode(), octets) and (way == "sa-tcp" or this != last):
                got.append(str(e["status"]))
                last = this
            if e["set"] == 0:
                failures += 1
                print(f"FAILED  {way} {now}: answered in clear")
        elif e.get("event") == "stream-ended" and now and not waited:
            got.append("close")
        elif did.startswith("request") and now and waited:
            waited = False
        elif did.startswith("request") and now:
            compare(way, rows[now], " ".join(got) or "-")
            seen.add(now)
            if e.get("status") == 200:
                served += 1
            else:
                failures += 1
                print(f"FAILED  {way}: after {now} the phone's MESSAGE got {e.get('status')} {e.get('text')}")
            now = None
        elif did == "status" and e["violations"]:
            # What the phone itself thinks of an answer to what it never asked is not the question; of a stream that is not SIP, it is.
            print(f"        {way}: the phone noticed {e['violations']}")
        elif e.get("error"):
            failures += 1
            print(f"FAILED  {way}: {e}")
    done = [e for e in events if e.get("did") == "deregister"]
    if len(seen) != 49 or not done or done[0]["outcome"] != "deregistered":
        failures += 1
        print(f"FAILED  {way}: {len(seen)} of 49 messages, {done}")
    print(f"        {way}: {len(seen)} messages, and {served} MESSAGEs of the phone answered with 200")


def finals(answers: bytes) -> list[str]:
    return [s.decode() for s in re.findall(rb"(?m)^SIP/2\.0 ([2-6]\d\d)", answers)]


def clear(gateway: str) -> None:
    where = (gateway, 5060)
    for n, row in enumerate(table()):
        with open(os.path.join(FOLDER, row[0] + ".dat"), "rb") as f:
            octets = f.read()
        # UDP: the answer goes to the port the Via names, so that one is listened to.
        port = re.search(rb"(?im)^v(?:ia)?\s*:[^;,]*?:(\d+)", octets)
        socks = []
        for p in {5060, int(port[1]) if port else 5060, 39000}:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
            s.bind((f"10.20.91.{n + 1}", p))
            socks.append(s)
        socks[0].sendto(octets, where)
        got: list[str] = []
        end = time.monotonic() + 0.4
        while not got and (left := end - time.monotonic()) > 0:
            for s in select.select(socks, [], [], left)[0]:
                got += finals(s.recv(65535))
        for s in socks:
            s.close()
        compare("clear-udp", row, " ".join(got) or "-")

        s = socket.socket()
        s.setsockopt(socket.SOL_IP, 15, 1)
        s.bind((f"10.20.92.{n + 1}", 0))
        s.settimeout(2)
        s.connect(where)
        s.sendall(octets)
        answers, ended = b"", False
        end = time.monotonic() + 0.6
        while not ended and (left := end - time.monotonic()) > 0:
            s.settimeout(left)
            try:
                part = s.recv(65535)
                answers += part
                ended = not part
            except TimeoutError:
                break
            except ConnectionError:
                ended = True
        s.close()
        got = finals(answers) + (["close"] if ended else [])
        compare("clear-tcp", row, " ".join(got) or "-")
    print("        clear: 49 messages over UDP, 49 over TCP")


def main() -> int:
    if sys.argv[1] == "script":
        script(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "judge":
        judge(sys.argv[2], sys.argv[3])
    else:
        clear(sys.argv[2])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
