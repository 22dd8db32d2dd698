#!/usr/bin/env python3
"""A home network that does everything wrong (S2): hostile_core.py ADDRESS PORT udp|tcp SEED KEYS [STATE]

Serves UDP and TCP. What it does to a phone's registration is the scenario with the number of the phone (its IMSI's last three digits);
phones above 900 are served well. Each key it ever sends is appended to KEYS, as patterns for memory_scan; what it learns of the phones
it serves well (Path, Contact, the gateway's subscriptions) to STATE, as JSON lines for hostile_requests.py.
  hostile_core.py list          number, name, what the phone must hear (outcome status), "alone" or "crowd", a line each
  hostile_core.py list-tcp      the same for a core over TCP, with what only a stream can do
SM8 may be large enough for TCP in either list. What spoils the stream that all phones share is done "alone": whatever else is under way on it is lost with it.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import select
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import memory_keys  # noqa: E402

REALM = "ims.mnc001.mcc001.3gppnetwork.org"


# ---- 3GPP TS 35.206 ----

def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b))


def milenage(k: bytes, opc: bytes, rand: bytes, sqn: bytes, amf: bytes):
    rounds = memory_keys.aes_round_keys(k)
    temp = memory_keys.aes_encrypt(rounds, xor(rand, opc))

    def out(turn: int, constant: int) -> bytes:
        x = xor(temp, opc)
        x = x[turn // 8:] + x[:turn // 8]
        x = x[:15] + bytes([x[15] ^ constant])
        return xor(memory_keys.aes_encrypt(rounds, x), opc)
    in1 = xor((sqn + amf) * 2, opc)
    in1 = in1[8:] + in1[:8]
    mac = xor(memory_keys.aes_encrypt(rounds, xor(temp, in1)), opc)[:8]
    f2 = out(0, 1)
    return mac, f2[8:], out(32, 2), out(64, 4), f2[:6]  # MAC, RES, CK, IK, AK


class Vector:
    def __init__(self, seed: bytes, imsi: str, number: int) -> None:
        k = hmac.new(seed, b"gmgate-K" + imsi.encode(), hashlib.sha256).digest()[:16]
        opc = hmac.new(seed, b"gmgate-OPc" + imsi.encode(), hashlib.sha256).digest()[:16]
        rand, amf = os.urandom(16), b"\x80\x00"
        sqn = (int(time.time()) * 4096 + number * 32).to_bytes(6, "big")
        mac, _, ck, ik, ak = milenage(k, opc, rand, sqn, amf)
        self.nonce = base64.b64encode(rand + xor(sqn, ak) + amf + mac).decode()
        self.ck, self.ik = ck.hex(), ik.hex()


# ---- messages ----

class Request:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        head = octets.split(b"\r\n\r\n")[0].decode("utf-8", "replace")
        self.lines = head.split("\r\n")
        self.method = self.lines[0].split(" ")[0]

    def values(self, *names: str) -> list[str]:
        return [line.split(":", 1)[1].strip() for line in self.lines[1:] if line.split(":", 1)[0].strip().lower() in names]


def answer(r: Request, status: str, headers: str = "", body: bytes = b"") -> bytes:
    out = f"SIP/2.0 {status}\r\n"
    out += "".join(f"Via: {v}\r\n" for v in r.values("via", "v"))
    out += f"From: {r.values('from', 'f')[0]}\r\nTo: {r.values('to', 't')[0]}"
    out += "" if ";tag=" in r.values("to", "t")[0] else ";tag=hostile"
    out += f"\r\nCall-ID: {r.values('call-id', 'i')[0]}\r\nCSeq: {r.values('cseq')[0]}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return out.encode("utf-8", "surrogateescape") + body


def auth(v: Vector, params: str) -> str:
    return f'WWW-Authenticate: Digest realm="{REALM}",nonce="{v.nonce}",algorithm=AKAv1-MD5,qop="auth"{params}\r\n'


def pair(ck: str, ik: str) -> str:
    return f',ck="{ck}",ik="{ik}"'


def challenge(r: Request, v: Vector, more: str = "") -> bytes:
    return answer(r, "401 Unauthorized", auth(v, pair(v.ck, v.ik)) + more)


def accepted(r: Request, headers: str | None = None, expires: str = ";expires=600000") -> bytes:
    contact = re.match(r"<[^>]*>", r.values("contact", "m")[0])
    own = f"Contact: {contact[0] if contact else '*'}{expires}\r\n"
    path = "".join(f"Path: {p}\r\n" for p in r.values("path"))
    user = r.values("to", "t")[0]
    if headers is None:
        headers = f"Service-Route: <sip:orig@10.30.0.2:5060;lr>\r\nP-Associated-URI: {re.match(r'<[^>]*>', user)[0]}\r\n"
    return answer(r, "200 OK", own + path + headers)


def changed(octets: bytes, what: bytes, by: bytes) -> bytes:
    assert what in octets, what
    return octets.replace(what, by, 1)


MANY = "X:\r\n" * 10000
ROUTE = "Service-Route: <sip:orig@10.30.0.2:5060;lr>\r\n"

# Name, what is sent for SM2 or SM8 ([seconds, octets] in order), what the phone hears. `b` is in the names of those that spoil SM8.
FIRST = {
    "no keys": (lambda r, v: [(0, answer(r, "401 U", auth(v, "")))], "refused 500"),
    "no ik": (lambda r, v: [(0, answer(r, "401 U", auth(v, f',ck="{v.ck}"')))], "refused 500"),
    "no ck": (lambda r, v: [(0, answer(r, "401 U", auth(v, f',ik="{v.ik}"')))], "refused 500"),
    "ck too short": (lambda r, v: [(0, answer(r, "401 U", auth(v, pair(v.ck[2:], v.ik))))], "refused 500"),
    "ik too long": (lambda r, v: [(0, answer(r, "401 U", auth(v, pair(v.ck, v.ik + "00"))))], "refused 500"),
    "ck odd": (lambda r, v: [(0, answer(r, "401 U", auth(v, pair(v.ck[1:], v.ik))))], "refused 500"),
    "ck not hex": (lambda r, v: [(0, answer(r, "401 U", auth(v, pair("xyz" + v.ck[3:], v.ik))))], "refused 500"),
    "ck twice": (lambda r, v: [(0, answer(r, "401 U", auth(v, pair(v.ck, v.ik) + f',ck="{v.ik}"')))], "refused 500"),
    "a quote without end": (lambda r, v: [(0, answer(r, "401 U", f'WWW-Authenticate: Digest nonce="{v.nonce}" ck="{v.ck}" ik="{v.ik}\r\n'))], "refused 500"),
    "Basic": (lambda r, v: [(0, answer(r, "401 U", f'WWW-Authenticate: Basic realm="x"{pair(v.ck, v.ik)}\r\n'))], "refused 500"),
    "two challenges": (lambda r, v: [(0, challenge(r, v, auth(v, pair(v.ik, v.ck))))], "registered 200"),
    "one that cannot be read behind": (lambda r, v: [(0, challenge(r, v, f'WWW-Authenticate: Digest x="{v.ck}{v.ik}\r\n'))], "* *"),
    "keys beside their place": (lambda r, v: [(0, challenge(r, v, f'Proxy-Authenticate: Digest realm="x"{pair(v.ck, v.ik)}\r\n'))], "registered 200"),
    "nonce too short": (lambda r, v: [(0, changed(challenge(r, v), v.nonce.encode(), b"YQ=="))], "* 401"),
    "nonce no base64": (lambda r, v: [(0, changed(challenge(r, v), v.nonce.encode(), b"***"))], "* 401"),
    "wrong algorithm": (lambda r, v: [(0, changed(challenge(r, v), b"AKAv1-MD5", b"SHA-512"))], "* 401"),
    "ten thousand headers": (lambda r, v: [(0, challenge(r, v, MANY))], "refused 504"),
    "64 kB": (lambda r, v: [(0, challenge(r, v, "X: " + "y" * 63000 + "\r\n"))], "refused 504"),
    "NUL": (lambda r, v: [(0, challenge(r, v, "X: a\0b\r\n"))], "refused 504"),
    "lone LF": (lambda r, v: [(0, challenge(r, v, "X: a\nY: b\r\n"))], "refused 504"),
    "noise": (lambda r, v: [(0, os.urandom(500).replace(b"\n", b"x") + b"\r\n\r\n")], "refused 504"),
    "another branch": (lambda r, v: [(0, changed(challenge(r, v), b"branch=z9hG4bKg", b"branch=z9hG4bKh"))], "refused 504"),
    "another CSeq": (lambda r, v: [(0, re.sub(rb"CSeq: (\d+) REGISTER", rb"CSeq: \1 MESSAGE", challenge(r, v)))], "refused 504"),
    "late": (lambda r, v: [(9, challenge(r, v))], "refused 504"),
    "late and early": (lambda r, v: [(0, challenge(r, v)), (9, challenge(r, v)), (0, answer(r, "200 OK")), (0, answer(r, "403 No"))], "registered 200"),
    "a hundred times": (lambda r, v: [(0, challenge(r, v))] * 100, "registered 200"),
    "provisional for ever": (lambda r, v: [(0.1, answer(r, "100 Trying"))] * 80, "refused 504"),
    "302": (lambda r, v: [(0, answer(r, "302 Moved", "Contact: <sip:evil@10.20.66.6>\r\n"))], "refused 302"),
    "603": (lambda r, v: [(0, answer(r, "603 Decline", auth(v, pair(v.ck, v.ik))))], "refused 603"),
    "407": (lambda r, v: [(0, answer(r, "407 Proxy", f'Proxy-Authenticate: Digest realm="x",nonce="{v.nonce}"{pair(v.ck, v.ik)}\r\n'))], "refused 407"),
    "200 at once": (lambda r, v: [(0, accepted(r))], "refused 500"),
    "nothing": (lambda r, v: [], "refused 504"),
}
SECOND = {
    "b: bad Service-Route": (lambda r, v: [(0, accepted(r, "Service-Route: ;;,,<>\r\n"))], "registered 200"),
    "b: foreign Service-Route": (lambda r, v: [(0, accepted(r, "Service-Route: <sip:10.20.66.6;lr>\r\n"))], "registered 200"),
    "b: 1400 identities": (lambda r, v: [(0, accepted(r, ROUTE + "P-Associated-URI: " + ",".join(f"<sip:u{i}@{REALM[:9]}>" for i in range(1400)) + "\r\n"))], "* *"),
    "b: identities that are none": (lambda r, v: [(0, accepted(r, ROUTE + 'P-Associated-URI: x,<>,"",;\r\n'))], "registered 200"),
    "b: expires 0": (lambda r, v: [(0, accepted(r, expires=";expires=0"))], "* *"),
    "b: expires huge": (lambda r, v: [(0, accepted(r, expires=";expires=99999999999999999999"))], "registered 200"),
    "b: expires negative": (lambda r, v: [(0, accepted(r, expires=";expires=-1"))], "registered 200"),
    "b: nothing in it": (lambda r, v: [(0, answer(r, "200 OK"))], "* *"),
    "b: challenged again": (lambda r, v: [(0, challenge(r, v))], "refused 504"),
    "b: keys in the 200": (lambda r, v: [(0, accepted(r, ROUTE + auth(v, pair(v.ck, v.ik))))], "registered 200"),
    "b: 403 twice": (lambda r, v: [(0, answer(r, "403 No", auth(v, pair(v.ck, v.ik))))] * 2, "refused 403"),
    "b: 10000 headers": (lambda r, v: [(0, accepted(r, MANY))], "refused 504"),
}
STREAM = {
    "dribble": (lambda r, v: [(0.002, bytes([b])) for b in challenge(r, v)], "registered 200"),
    "two at once": (lambda r, v: [(0, challenge(r, v) + challenge(r, v)[:400]), (0.05, challenge(r, v)[400:])], "registered 200"),
    "closed in the middle": (lambda r, v: [(0, challenge(r, v)[:-40]), (0.1, b"")], "refused 504"),
    "no Content-Length": (lambda r, v: [(0, re.sub(rb"Content-Length: \d+\r\n", b"", challenge(r, v)))], "refused 504"),
    "a body that never comes": (lambda r, v: [(0, changed(challenge(r, v), b"Content-Length: 0", b"Content-Length: 60000"))], "refused 504"),
}


# What is no SIP ends a stream; half a message holds up whatever comes behind it.
SPOILS = {"ten thousand headers", "64 kB", "NUL", "lone LF", "noise", "b: 10000 headers", "b: 1400 identities", *STREAM}


def scenarios(stream: bool):
    return (list(STREAM.items()) if stream else []) + list(FIRST.items()) + list(SECOND.items())


class InPieces(list):
    """A plan of parts of messages: nothing else is sent in between."""


class Core:
    def __init__(self, address: str, port: int, transport: str, seed: bytes, keys: str, state: str | None) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, port))
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address, port))
        self.tcp.listen(64)
        self.seed, self.keys, self.state = seed, keys, state
        # By the transport the gateway is told to use: a large REGISTER comes by TCP in any case.
        self.scenarios = scenarios(transport == "tcp")
        self.answered: dict[bytes, list] = {}
        self.count = 0
        self.lock = threading.Lock()
        self.writing = threading.RLock()  # a message goes out whole, whoever else is answering

    def run(self) -> None:
        streams: dict[socket.socket, bytes] = {}

        def send(s: socket.socket, out: bytes) -> None:
            with self.writing:
                s.sendall(out) if out else s.shutdown(socket.SHUT_RDWR)
        while True:
            for s in select.select([self.udp, self.tcp, *streams], [], [])[0]:
                if s is self.udp:
                    octets, peer = s.recvfrom(65535)
                    self.take(octets, lambda out, peer=peer: self.udp.sendto(out, peer) if out else None)
                elif s is self.tcp:
                    streams[s.accept()[0]] = b""
                else:
                    try:
                        part = s.recv(65535)
                    except OSError:
                        part = b""
                    if not part:
                        streams.pop(s)
                        s.close()
                        continue
                    held = streams[s] + part
                    while (end := held.find(b"\r\n\r\n")) >= 0:
                        length = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", held[:end])
                        size = end + 4 + (int(length[1]) if length else 0)
                        if len(held) < size:
                            break
                        message, held = held[:size], held[size:]
                        if message.strip():
                            self.take(message, lambda out, s=s: send(s, out))
                    streams[s] = held

    def take(self, octets: bytes, send) -> None:
        if octets.startswith(b"SIP/2.0") or not octets.strip():
            return
        r = Request(octets)
        key = f"{r.values('via', 'v')[0]}|{r.method}".encode()
        if key in self.answered:
            return  # a retransmission: what it is given is under way
        self.answered[key] = []
        plan = self.plan(r)
        threading.Thread(target=self.play, args=(plan, send), daemon=True).start()

    def play(self, plan: list, send) -> None:
        in_pieces = isinstance(plan, InPieces)
        if in_pieces:
            self.writing.acquire()
        try:
            for delay, octets in plan:
                if delay:
                    time.sleep(delay)
                send(octets)
        except OSError:
            return
        finally:
            if in_pieces:
                self.writing.release()

    def plan(self, r: Request) -> list:
        if r.method == "ACK":
            return []
        imsi = re.search(r'username="(\d{15})', " ".join(r.values("authorization")))
        v = Vector(self.seed, imsi[1] if imsi else "001010000000999", self.next())
        with self.lock, open(self.keys, "a", encoding="ascii") as f:
            for name, octets in memory_keys.forms(f"{imsi[1][-3:] if imsi else r.method}-{self.count}", bytes.fromhex(v.ck), bytes.fromhex(v.ik)):
                f.write(f"{name} {octets.hex()}\n")
        if r.method == "SUBSCRIBE" and re.search(r"sip:\d{12}9\d\d@", r.lines[0]):
            accept = answer(r, "200 OK", "Contact: <sip:scscf@10.30.0.2:5060>\r\nExpires: 600000\r\n")
            ours = Request(accept).values("to")[0]
            self.learnt(subscribed=r.lines[0].split(" ")[1], call_id=r.values("call-id")[0], us=ours, gateway=r.values("from")[0],
                        target=re.match(r"<([^>]*)>", r.values("contact")[0])[1])
            return [(0, accept)]
        if r.method == "SUBSCRIBE":  # of the gateway, to the state of a registration: keys where nobody asks for them
            return [(0, challenge(r, v))]
        if r.method != "REGISTER":
            return [(0, answer(r, "200 OK"))]
        number = int(imsi[1][-3:]) if imsi else 0
        answered = re.search(r'response="[0-9a-f]{32}"', " ".join(r.values("authorization"))) is not None
        leaving = re.search(r"expires=0\b", " ".join(r.values("contact", "m"))) or r.values("expires") == ["0"]
        if leaving:
            return [(0, accepted(r, "", ";expires=0"))]
        if number <= len(self.scenarios):
            name, (what, _) = self.scenarios[number - 1]
            if name.startswith("b:") == answered:
                return InPieces(what(r, v)) if name in STREAM else what(r, v)
        if answered and number > 900:
            self.learnt(imsi=imsi[1], path=r.values("path"), contact=re.match(r"<([^>]*)>", r.values("contact")[0])[1])
        return [(0, accepted(r) if answered else challenge(r, v))]

    def learnt(self, **what) -> None:
        if self.state is not None:
            with self.lock, open(self.state, "a", encoding="utf-8") as f:
                f.write(json.dumps(what) + "\n")

    def next(self) -> int:
        self.count += 1
        return self.count


def main() -> int:
    if sys.argv[1].startswith("list"):
        stream = sys.argv[1] == "list-tcp"
        for n, (name, (_, heard)) in enumerate(scenarios(stream)):
            print(f"{n + 1}|{name}|{heard}|{'alone' if name in SPOILS and (stream or name.startswith('b:')) else 'crowd'}")
        return 0
    address, port, transport, seed, keys, *state = sys.argv[1:]
    Core(address, int(port), transport, bytes.fromhex(seed), keys, state[0] if state else None).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
