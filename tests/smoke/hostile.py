#!/usr/bin/env python3
"""A stranger on the Gm wire: sends what nobody should, and checks what comes back. Runs in the phones' namespace."""
import glob
import os
import random
import socket
import struct
import sys

GATEWAY = ("10.21.0.1", 5060)
GATEWAY6 = ("fd00:21::1", 5060)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
rng = random.Random(7)
failures = 0


def expect(condition: bool, text: str) -> None:
    global failures
    print(("ok      " if condition else "FAILED  ") + text)
    failures += not condition


def udp(source: str = "10.20.99.1", port: int = 5060) -> socket.socket:
    s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
    if ":" in source:
        s.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
    s.bind((source, port))
    s.settimeout(0.6)
    return s


def ask(data: bytes, source: str = "10.20.99.1") -> str:
    """First line of the answer; empty: none."""
    with udp(source) as s:
        s.sendto(data, GATEWAY6 if ":" in source else GATEWAY)
        try:
            return s.recv(65535).split(b"\r\n")[0].decode(errors="replace")
        except TimeoutError:
            return ""


def message(method: str = "REGISTER", extra: str = "", body: str = "", source: str = "10.20.99.1", branch: str | None = None) -> bytes:
    branch = branch or f"z9hG4bK{rng.getrandbits(60):x}"
    return (f"{method} sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {source}:5060;branch={branch}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:x@ims.mnc001.mcc001.3gppnetwork.org>;tag=1\r\nTo: <sip:x@ims.mnc001.mcc001.3gppnetwork.org>\r\n"
            f"Call-ID: {rng.getrandbits(60):x}\r\nCSeq: 1 {method}\r\nContact: <sip:x@{source}:5060>\r\n"
            f"Authorization: Digest username=\"x@ims.mnc001.mcc001.3gppnetwork.org\",realm=\"r\",nonce=\"\",uri=\"sip:r\",response=\"\"\r\n"
            f"Require: sec-agree\r\nProxy-Require: sec-agree\r\n"
            f"{extra}Content-Length: {len(body)}\r\n\r\n{body}").encode()


MECHANISM = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1111;spi-s=2222;port-c=7001;port-s=7002"


def sip() -> None:
    expect(ask(b"\x00" * 100) == "", "NULs: no answer")
    expect(ask(os.urandom(1000)) == "", "noise: no answer")
    expect(ask(b"") == "" and ask(b"\r\n\r\n") in ("", "\r\n"), "empty datagram, keepalive: no harm")
    whole = message(extra=f"Security-Client: {MECHANISM}\r\n")
    answers = {ask(whole[:n], f"10.20.99.{2 + n % 200}")[:11] for n in range(10, len(whole) - 1, 37)}
    expect(answers <= {"", "SIP/2.0 400", "SIP/2.0 403", "SIP/2.0 421", "SIP/2.0 494", "SIP/2.0 505"}, f"truncated anywhere: {sorted(answers)}")
    expect("SIP/2.0 421" in ask(message(), "10.20.99.1"), "no Security-Client: 421")
    expect("SIP/2.0 494" in ask(message(extra="Security-Client: tls\r\n")), "nothing acceptable: 494")
    expect("SIP/2.0 400" in ask(message(extra="Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;ea\r\n")), "damaged Security-Client: 400")
    many = ",".join([MECHANISM] * 100)
    expect(ask(message(extra=f"Security-Client: {many}\r\n"))[:11] in ("SIP/2.0 400", "SIP/2.0 494"), "100 mechanisms in a line: refused")
    # A datagram of more than eight fragments is dropped before SIP; over TCP the same reaches it (below).
    many = ",".join([MECHANISM] * 700)
    expect(ask(message(extra=f"Security-Client: {many}\r\n"))[:11] in ("SIP/2.0 400", ""), "700 mechanisms in a line: refused")
    lines = "".join(f"Security-Client: {MECHANISM}\r\n" for _ in range(600))
    expect(ask(message(extra=lines))[:11] in ("SIP/2.0 400", ""), "600 Security-Client lines: refused")
    bomb = "".join(f"X-{i}: y\r\n" for i in range(6000))
    expect(ask(message(extra=bomb[:60000]))[:11] in ("SIP/2.0 400", "SIP/2.0 413", "SIP/2.0 513", ""), "header bomb: refused")
    expect(ask(message(extra="X: " + "y" * 60000 + "\r\n"))[:11] in ("SIP/2.0 400", "SIP/2.0 413", "SIP/2.0 513", ""), "one header of 60 kB: refused")
    expect(ask(message(body="z" * 60000))[:9] in ("SIP/2.0 4", "SIP/2.0 5", ""), "a body of 60 kB: refused")
    expect("SIP/2.0 403" in ask(message("INVITE")), "INVITE in clear: 403")
    expect("SIP/2.0 403" in ask(message("OPTIONS", source="fd00:20::99:1").replace(b"fd00:20::99:1", b"[fd00:20::99:1]"), "fd00:20::99:1"),
           "OPTIONS in clear, IPv6: 403")
    torture = sorted(glob.glob(os.path.join(ROOT, "tests/data/torture/*.dat")))
    for i, path in enumerate(torture):  # of a source each: one alone would soon be over its rate
        with open(path, "rb") as f:
            ask_quick(f.read(), f"10.20.97.{1 + i % 250}")
    expect(len(torture) >= 49, f"{len(torture)} torture messages in clear")
    # Flood of first REGISTERs, spoofed: limited, and forgotten.
    for i in range(3000):
        source = f"10.20.{100 + i % 20}.{1 + i // 20 % 250}"
        with udp(source) as s:
            s.sendto(message(extra=f"Security-Client: {MECHANISM}\r\n", source=source), GATEWAY)
    print("        3000 REGISTERs of 3000 sources sent")


def ask_quick(data: bytes, source: str) -> None:
    with udp(source) as s:
        s.sendto(data, GATEWAY)


def tcp() -> None:
    def dial(data: bytes) -> bytes:
        s = socket.socket()
        s.setsockopt(socket.SOL_IP, 15, 1)
        s.bind(("10.20.98.1", 0))
        s.settimeout(2)
        s.connect(GATEWAY)
        try:
            s.sendall(data)
            got = b""
            while chunk := s.recv(65535):
                got += chunk
            return got
        except (TimeoutError, ConnectionError) as e:
            return type(e).__name__.encode()
        finally:
            s.close()
    answer = dial(os.urandom(300).replace(b"\n", b"x") + b"\r\n\r\n")
    expect(answer.startswith(b"SIP/2.0 4") or answer in (b"", b"ConnectionResetError"), "noise on a stream: closed")
    answer = dial(b"REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/TCP 10.20.98.1;branch=z9hG4bKq\r\n\r\n")
    expect(answer.startswith(b"SIP/2.0 400") or answer in (b"", b"ConnectionResetError"), "no Content-Length on a stream: closed")
    answer = dial(b"REGISTER sip:x SIP/2.0\r\nContent-Length: 99999999\r\n\r\n" + b"a" * 70000)
    expect(answer.startswith(b"SIP/2.0 4") or answer in (b"", b"ConnectionResetError", b"BrokenPipeError"), "100 MB announced on a stream: closed")
    answer = dial(message(extra="Security-Client: " + ",".join([MECHANISM] * 700) + "\r\n"))
    expect(answer.startswith(b"SIP/2.0 4") or answer in (b"", b"ConnectionResetError", b"BrokenPipeError"), "700 mechanisms on a stream: refused")
    # Port_ps in clear never answers a SYN.
    s = socket.socket()
    s.settimeout(1)
    try:
        s.connect((GATEWAY[0], 6100))
        expect(False, "TCP in clear to port_ps is not accepted")
    except TimeoutError:
        expect(True, "TCP in clear to port_ps: silence")
    except OSError as e:
        expect(False, f"TCP in clear to port_ps: {e}")
    s.close()


def esp() -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
    raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 50)
    for n in range(0, 40):  # runts
        raw.sendto(os.urandom(n), (GATEWAY[0], 0))
        raw6.sendto(os.urandom(n), (GATEWAY6[0], 0))
    for spi in [0, 1, 255, 256, 0x04000000, 0x04000001, 0xFFFFFFFF] + [rng.getrandbits(32) for _ in range(500)]:
        raw.sendto(struct.pack("!II", spi, 1) + os.urandom(96), (GATEWAY[0], 0))
        raw6.sendto(struct.pack("!II", spi, rng.getrandbits(32)) + os.urandom(96), (GATEWAY6[0], 0))
    # Spoofed: somebody else's SPI and address, wrong everything else.
    hdr = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for i in range(300):
        spi = 0x04000000 + rng.randrange(0, 20)
        payload = struct.pack("!II", spi, rng.getrandbits(31)) + os.urandom(rng.choice([0, 4, 12, 20, 36, 100, 1200]))
        source = socket.inet_aton(f"10.20.0.{rng.randrange(1, 9)}")
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), rng.getrandbits(16), 0, 64, 50, 0, source, socket.inet_aton(GATEWAY[0]))
        hdr.sendto(ip + payload, (GATEWAY[0], 0))
    # Fragments that never complete, and that overlap.
    for i in range(400):
        ident = rng.getrandbits(16)
        offset = rng.choice([0, 0, 1, 8, 100, 8000])
        payload = os.urandom(64)
        flags = 0x2000 | offset
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, flags, 64, rng.choice([17, 50]), 0, socket.inet_aton("10.20.0.1"),
                         socket.inet_aton(GATEWAY[0]))
        hdr.sendto(ip + payload, (GATEWAY[0], 0))
    # Cleartext for protected ports, both families, spoofed as a registered phone.
    for port in (6100, 6101, 6102, 6103, 6200, 6207):
        with udp("10.20.0.1", 0) as s:
            s.sendto(message(), (GATEWAY[0], port))
        with udp("fd00:20::1", 0) as s:
            s.sendto(message(), (GATEWAY6[0], port))
    print("        runt, unknown, spoofed and fragmented ESP sent")


def main() -> int:
    if "--warm-up" in sys.argv:  # so that a second look at the memory shows growth, not first use
        sip()
        esp()
        return 0
    sip()
    tcp()
    esp()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
