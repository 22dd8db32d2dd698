#!/usr/bin/env python3
"""Requests of a core that is not to be trusted (S2): hostile_requests.py ADDRESS GATEWAY:PORT STATE METRICS KIND…

STATE is what hostile_core.py learnt of the phones it serves well, two at least that answer calls and messages. After each kind of
attack both phones are still reached by their Paths, and the gateway's tables are as full as before. METRICS: the gateway's, a URL.
Kinds: tokens dialogs notifies crowds streams; each is explained where it is done. A line for each finding; exit status 1 if one is bad.
"""
import json
import os
import random
import re
import socket
import sys
import time
import urllib.request

from hostile_core import MANY, Request

bad = 0
dice = random.Random(20)


def check(good: bool, text: str) -> None:
    global bad
    bad += not good
    print(f"{'ok     ' if good else 'FAILED '} {text}", flush=True)


class Gateway:
    """One UDP socket towards the gateway: requests go out, answers come in; a phone's BYE is answered."""

    def __init__(self, address: str, gateway: str, metrics: str) -> None:
        host, port = gateway.rsplit(":", 1)
        self.here, self.peer, self.metrics = address, (host, int(port)), metrics
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, 5071))
        self.sent_by = f"{address}:5071"
        self.number = 0

    def message(self, method: str, uri: str, headers: str, body: str = "", call_id: str | None = None, via: str = "UDP", cseq: int | None = None) -> str:
        self.number += 1
        names = "" if re.search(r"(?m)^From:", headers) else f"From: <sip:hostile@{self.here}>;tag=h{self.number}\r\n"
        names += "" if re.search(r"(?m)^To:", headers) else f"To: <{uri}>\r\n"
        return (f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{via} {self.sent_by};branch=z9hG4bKh{os.getpid()}x{self.number}\r\n"
                f"Max-Forwards: 70\r\n{names}Call-ID: {call_id or f'h{os.getpid()}x{self.number}'}\r\n"
                f"CSeq: {cseq or self.number} {'INVITE' if method == 'ACK' else method}\r\n"
                f"Contact: <sip:hostile@{self.sent_by}>\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}")

    def send(self, text: str) -> None:
        self.udp.sendto(text.encode(), self.peer)

    def answer_to(self, text: str, seconds: float = 8) -> Request | None:
        """Its final answer, asked again as timer E would; None: there is none."""
        branch = re.search(r"branch=(\S+)", text)[1].encode()
        end, again = time.monotonic() + seconds, 0.5
        self.send(text)
        while (left := end - time.monotonic()) > 0:
            self.udp.settimeout(min(left, again))
            try:
                octets = self.udp.recv(65535)
            except socket.timeout:
                if not text.startswith(("INVITE", "ACK")):
                    self.send(text)
                again *= 2
                continue
            if octets.startswith(b"SIP/2.0") and branch in octets and octets[8:9] != b"1":
                return Request(octets)
        return None

    def status(self, text: str, seconds: float = 8) -> int:
        r = self.answer_to(text, seconds)
        return int(r.lines[0].split(" ")[1]) if r else 0

    def figure(self, name: str) -> float:
        with urllib.request.urlopen(self.metrics, timeout=10) as f:
            found = [line.rsplit(" ", 1)[1] for line in f.read().decode().splitlines() if line.startswith(name)]
        return sum(float(v) for v in found)

    def settles(self, name: str, most: float, seconds: float = 40) -> bool:
        end = time.monotonic() + seconds
        while self.figure(name) > most:
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


class Phone:
    def __init__(self, known: dict) -> None:
        self.imsi, self.path, self.contact = known["imsi"], known["path"][0], known["contact"]
        self.token = re.search(r"sip:([^@>]*)@", self.path)[1]

    def route(self, token: str | None = None) -> str:
        return f"Route: {self.path if token is None else self.path.replace(self.token, token)}\r\n"


def served(g: Gateway, phones: list[Phone], when: str) -> None:
    got = [g.status(g.message("MESSAGE", p.contact, p.route() + "Content-Type: text/plain\r\n", "still there?")) for p in phones]
    check(got == [200] * len(phones), f"{when}: the phones are reached as before: {got}")
    check(g.settles("gmgate_proxied_requests_pending", 0), f"{when}: no request is left: {g.figure('gmgate_proxied_requests_pending'):.0f}")


def call(g: Gateway, p: Phone) -> tuple[str, str, str, str]:
    """A call to the phone that is answered: Call-ID, our From, its To, the route to it."""
    body = "v=0\r\no=- 1 1 IN IP4 10.30.0.2\r\ns=-\r\nc=IN IP4 10.30.0.2\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"
    text = g.message("INVITE", p.contact, p.route() + "Content-Type: application/sdp\r\n", body)
    r = g.answer_to(text, 20)
    if r is None or " 200 " not in r.lines[0]:
        check(False, f"a call to begin with: {r.lines[0] if r else 'no answer'}")
        return "", "", "", ""
    names = f"From: {r.values('from')[0]}\r\nTo: {r.values('to')[0]}\r\n"
    route = "Route: " + ", ".join(reversed(", ".join(r.values("record-route")).split(", "))) + "\r\n"
    cseq = int(r.values("cseq")[0].split(" ")[0])
    g.send(g.message("ACK", p.contact, names + route, call_id=r.values("call-id")[0], cseq=cseq))
    return r.values("call-id")[0], r.values("from")[0], r.values("to")[0], route


# Flow tokens that are none, altered ones, one phone's number with the other's proof: 404 each, no phone hears a thing.
def tokens(g: Gateway, phones: list[Phone]) -> None:
    a, b = phones[0].token, phones[1].token
    forged = {"a digit changed": a[:20] + ("0" if a[20] != "0" else "1") + a[21:], "one's number, the other's proof": a[:16] + b[16:],
              "in capitals": a.upper(), "cut": a[:-1], "longer": a + "0", "half": a[:16], "zeros": "0" * len(a), "a kilobyte": "f" * 1024,
              "none": "", "escaped": "".join(f"%{ord(c):02x}" for c in a), "a number of nobody": "f" * 16 + a[16:]}
    wrong = []
    for what, token in forged.items():
        if token == a:
            continue
        for method in ("MESSAGE", "INVITE", "BYE", "NOTIFY", "REFER"):
            status = g.status(g.message(method, phones[0].contact, phones[0].route(token)))
            if status != 404:
                wrong.append((what, method, status))
    for _ in range(300):  # guessed
        guess = "".join(dice.choice("0123456789abcdef") for _ in range(len(a)))
        g.send(g.message("MESSAGE", phones[0].contact, phones[0].route(guess)))
    check(not wrong, f"forged flow tokens find nobody: {wrong or '404 each'}")
    # As the request's own target, where a strict router or a core in "via" mode would have it.
    host = re.search(r"@([^;>]*)", phones[0].path)[1]
    got = g.status(g.message("MESSAGE", f"sip:{a[:16]}{b[16:]}@{host}", ""))
    check(got == 404, f"nor as a target: {got}")


# BYE, UPDATE, CANCEL, PRACK, INFO, REFER and NOTIFY for a call that is another's, or nobody's: the call goes on.
def dialogs(g: Gateway, phones: list[Phone]) -> None:
    victim, other = phones[0], phones[1]
    before = g.figure("gmgate_dialogs")
    call_id, ours, theirs, route = call(g, victim)
    if not call_id:
        return
    there = g.figure("gmgate_dialogs")
    check(there == before + 1, f"a call runs: {there:.0f} sessions")
    names, wrong = f"From: {ours}\r\nTo: {theirs}\r\n", []
    changed = names.replace("tag=", "tag=x")
    swapped = f"From: {theirs}\r\nTo: {ours}\r\n"
    for method in ("BYE", "UPDATE", "PRACK", "INFO", "REFER", "NOTIFY", "CANCEL"):
        for what, text in {
                "by the other phone's Path": g.message(method, other.contact, names + other.route(), call_id=call_id, cseq=5000),
                "its route and the other phone": g.message(method, other.contact, changed + route, call_id=call_id, cseq=5001),
                "with other tags": g.message(method, victim.contact, changed + route, call_id=call_id, cseq=5002),
                "from the phone itself": g.message(method, victim.contact, swapped + route, call_id=call_id, cseq=5003),
                "of another call": g.message(method, victim.contact, names + route, call_id="x" + call_id, cseq=5004),
                "with a forged route": g.message(method, victim.contact, names + route.replace(victim.token, victim.token[::-1]), call_id=call_id, cseq=5005),
        }.items():
            status = g.status(text)
            # REFER and NOTIFY are the phone's own to take or leave; the others belong to a call.
            refused = 400 <= status < 500 or (method in ("REFER", "NOTIFY") and status >= 200)
            if not refused or g.figure("gmgate_dialogs") != there:
                wrong.append((method, what, status))
    check(not wrong, f"nobody else ends or changes it: {wrong or 'answered each, the call is there'}")
    for _ in range(500):  # BYEs for calls of nobody
        g.send(g.message("BYE", victim.contact, changed + route, call_id=f"none{dice.getrandbits(60)}"))
    check(g.settles("gmgate_proxied_requests_pending", 0), "five hundred BYEs for no call are worked off")
    check(g.figure("gmgate_dialogs") == there, "and the call goes on")
    got = g.status(g.message("OPTIONS", victim.contact, names + route, call_id=call_id, cseq=5999))
    check(200 <= got < 500 and got != 481, f"who is in it is heard: {got}")
    got = g.status(g.message("BYE", victim.contact, names + route, call_id=call_id, cseq=6000))
    check(got == 200 and g.settles("gmgate_dialogs", before), f"and ends it: {got}, {g.figure('gmgate_dialogs'):.0f} sessions")


# NOTIFYs of registration state: of no subscription, of the true one with documents that bomb, go back, leap, or are none.
def notifies(g: Gateway, phones: list[Phone], state: list[dict]) -> None:
    subscribed = [s for s in state if phones[0].imsi in s.get("subscribed", "")]
    check(bool(subscribed), "the gateway has subscribed")
    s = subscribed[-1]
    target, sequence, start = s["target"], 1000, time.monotonic()

    def notify(body: str, call_id: str = s["call_id"], us: str = s["us"], gateway: str = s["gateway"], event: str = "reg",
               content: str = "application/reginfo+xml", cseq: int | None = None, substate: str = "active;expires=600000") -> int:
        nonlocal sequence
        sequence += 1
        headers = f"From: {us}\r\nTo: {gateway}\r\nEvent: {event}\r\nSubscription-State: {substate}\r\nContent-Type: {content}\r\n"
        text = g.message("NOTIFY", target, headers, body, call_id, cseq=cseq or sequence)
        return g.status(text) if len(text) < 60000 else stream_status(g, text)

    def document(version: str, full: str = "full", inside: str | None = None) -> str:
        aor, contact = s["subscribed"], phones[0].contact
        inside = inside if inside is not None else (f'<registration aor="{aor}" id="a" state="active">'
                                                    f'<contact id="c" state="active" event="registered"><uri>{contact}</uri></contact></registration>')
        return f'<?xml version="1.0"?><reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="{version}" state="{full}">{inside}</reginfo>'

    gone = document("0", inside=f'<registration aor="{s["subscribed"]}" id="a" state="terminated"/>')
    for what, got, wanted in (
            ("of no subscription", notify(gone, call_id="1" + s["call_id"]), (481,)),
            ("from another dialog's tag", notify(gone, us=s["us"] + "x"), (481,)),
            ("to another tag", notify(gone, gateway=s["gateway"] + "x"), (481,)),
            ("without tags", notify(gone, us=s["us"].split(";")[0]), (481,)),
            ("of another package", notify(gone, event="presence"), (489,)),
            ("of another type", notify(gone, content="text/plain"), (415,))):
        check(got in wanted, f"a NOTIFY {what}: {got}")
    got = notify(document("10"))
    check(got == 200, f"a true one: {got}")
    malformed = {
        "half": document("11")[:120], "no XML": "\x01" * 200, "empty elements": "<a>" * 9000, "a million laughs":
        '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {c} "{("&" + p + ";") * 10}">' for p, c in zip("abcdefgh", "bcdefghi")) + "]>" +
        document("11", inside='<registration aor="&i;" id="a" state="active"/>'), "another file":
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + document("11", inside="&x;"), "version minus one": document("-1"),
        "version huge": document("99999999999999999999"), "no version": document("").replace('version="" ', ""), "a thousand identities":
        document("11", inside="".join(f'<registration aor="sip:{i}@x" id="{i}" state="active"/>' for i in range(700))), "an identity of 20 kB":
        document("11", inside=f'<registration aor="sip:{"a" * 20000}@x" id="a" state="terminated"/>')}
    results = {what: notify(body) for what, body in malformed.items()}
    check(all(v == 400 for v in results.values()), f"documents that bomb: {results}")
    # Elements nobody knows are passed over (RFC 3680 5.1), however deep they lie.
    deep = notify(document("11", inside="<x>" * 5000 + "</x>" * 5000))
    check(deep in (200, 400), f"five thousand elements one in another: {deep}")
    huge = stream_status(g, g.message("NOTIFY", target, f"From: {s['us']}\r\nTo: {s['gateway']}\r\nEvent: reg\r\nSubscription-State: active\r\n"
                                      "Content-Type: application/reginfo+xml\r\n", document("12") + " " * 60000, s["call_id"], "TCP", 1500))
    check(huge in (0, 400, 413), f"one of 60 kB over TCP: {huge}")
    old = [notify(gone.replace('version="0"', f'version="{v}"')) for v in (0, 9, 10)]
    check(old == [200] * 3, f"old versions, saying that she is gone: {old}, and not obeyed")
    leap = notify(gone.replace('version="0" state="full"', 'version="77" state="partial"'))
    check(leap == 200, f"a part with a leap before it, saying the same: {leap}, and not obeyed")
    back = notify(gone, cseq=3)
    check(back == 500, f"a CSeq that goes back: {back}")
    for i in range(2000):  # as many as fit; nobody waits for the answers
        g.send(g.message("NOTIFY", target, f"From: {s['us']}\r\nTo: {s['gateway']}\r\nEvent: reg\r\nSubscription-State: active\r\n"
                         "Content-Type: application/reginfo+xml\r\n", "<a>" * 400, s["call_id"], cseq=2000 + i))
    time.sleep(1)
    left = g.figure("gmgate_registered_users")
    check(left >= len(phones), f"who is registered: {left:.0f} phones, {time.monotonic() - start:.0f} s later")


def stream_status(g: Gateway, text: str) -> int:
    """The same over a connection of its own; 0: it was closed, or silent."""
    with socket.create_connection(g.peer, 5, (g.here, 0)) as s:
        s.settimeout(8)
        try:
            s.sendall(text.replace("SIP/2.0/UDP", "SIP/2.0/TCP", 1).encode())
            held = b""
            while b"\r\n\r\n" not in held:
                part = s.recv(65535)
                if not part:
                    return 0
                held += part
        except OSError:
            return 0
    return int(held.split(b" ")[1])


# Ten thousand header lines, and lines without end, in requests over UDP and TCP.
def crowds(g: Gateway, phones: list[Phone]) -> None:
    p = phones[0]
    for what, headers in {"ten thousand headers": MANY, "a line of 200 kB": "X: " + "y" * 200_000 + "\r\n", "500 Vias": "Via: SIP/2.0/UDP h;branch=z9hG4bKa\r\n" * 500,
                          "900 Routes": "Route: " + ",".join(["<sip:10.30.0.1;lr>"] * 900) + "\r\n"}.items():
        text = g.message("MESSAGE", p.contact, p.route() + headers)
        over = {"TCP": stream_status(g, text)}
        if len(text) < 60000:
            over["UDP"] = g.status(text, 3)
        check(all(v == 0 or 400 <= v < 600 for v in over.values()), f"{what}: {over}")


# A hundred connections with half a message each, another hundred that say nothing, and some that are cut again and again.
def streams(g: Gateway, phones: list[Phone]) -> None:
    p = phones[0]
    before = g.figure('gmgate_sip_connections{side="core"}')
    text = g.message("MESSAGE", p.contact, p.route(), "half of this never comes" * 40, via="TCP")
    held = []
    for i in range(200):
        s = socket.create_connection(g.peer, 5, (g.here, 0))
        if i % 2 == 0:
            s.sendall(text[:len(text) * (i + 1) // 210].encode())
        held.append(s)
    there = g.figure('gmgate_sip_connections{side="core"}')
    check(there - before <= 200, f"two hundred connections, half a message each or none: {there:.0f} open")
    served(g, phones, "with all of them open")
    got = stream_status(g, g.message("MESSAGE", p.contact, p.route()))
    check(got == 200, f"and one that says all of it is heard: {got}")
    for _ in range(300):
        with socket.create_connection(g.peer, 5, (g.here, 0)) as s:
            s.sendall(text[:dice.randrange(len(text))].encode())
    closed = 0
    end = time.monotonic() + 45
    for s in held:  # each is closed by the gateway, when its time is over
        s.settimeout(max(0.1, end - time.monotonic()))
        try:
            closed += s.recv(1) == b""
        except socket.timeout:
            pass
        except OSError:
            closed += 1
        s.close()
    check(closed == len(held), f"the gateway has closed {closed} of {len(held)}")
    check(g.settles('gmgate_sip_connections{side="core"}', before + 1), "none of them is left")


def main() -> int:
    address, gateway, path, metrics, *kinds = sys.argv[1:]
    with open(path, encoding="utf-8") as f:
        state = [json.loads(line) for line in f]
    phones = [Phone(k) for k in {s["imsi"]: s for s in state if "imsi" in s and s["path"]}.values()]
    phones = phones[-2:]
    g = Gateway(address, gateway, metrics)
    served(g, phones, "before")
    for kind in kinds:
        if kind == "notifies":
            notifies(g, phones, state)
        else:
            {"tokens": tokens, "dialogs": dialogs, "crowds": crowds, "streams": streams}[kind](g, phones)
        served(g, phones, f"after {kind}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
