#!/usr/bin/env python3
"""A Diameter HSS for the tests: what an S-CSCF asks on Cx (3GPP TS 29.228, 29.229) for subscribers by gmue's rule (--seed).

Answers CER, DWR, DPR, UAR and LIR (which S-CSCF?), MAR (an AKA vector; resynchronisation), SAR; sends RTR when told to. Writes a line for each to
standard output. Told by datagrams to --control: "deregister IMSI", answered with "ok" or an error.
"""
import argparse
import base64
import hashlib
import hmac
import os
import selectors
import socket
import struct
import sys

import milenage

CX, VENDOR = 16777216, 10415
COMMANDS = {257: "CE", 280: "DW", 282: "DP", 300: "UA", 301: "SA", 302: "LI", 303: "MA", 304: "RT"}
ASSIGNMENTS = {1: "REGISTRATION", 2: "RE_REGISTRATION", 3: "UNREGISTERED_USER", 4: "TIMEOUT_DEREGISTRATION",
               5: "USER_DEREGISTRATION", 9: "AUTHENTICATION_FAILURE", 10: "AUTHENTICATION_TIMEOUT"}
# AVPs of the base protocol (RFC 6733) and of Cx (TS 29.229 6.3).
USER_NAME, HOST_IP, AUTH_APP, VSA, SESSION, ORIGIN_HOST, SUPPORTED_VENDOR, VENDOR_ID = 1, 257, 258, 260, 263, 264, 265, 266
RESULT, PRODUCT, STATE, DESTINATION_REALM, DESTINATION_HOST, ORIGIN_REALM = 268, 269, 277, 283, 293, 296
EXPERIMENTAL, EXPERIMENTAL_CODE, VISITED, SERVER_NAME, CAPABILITIES = 297, 298, 600, 602, 603
PUBLIC_ID, USER_DATA, SCHEME, AUTHENTICATE, AUTHORIZATION = 601, 606, 608, 609, 610
AUTH_ITEM, ITEM_NUMBER, ASSIGNMENT, REASON, REASON_CODE, REASON_INFO, CONFIDENTIALITY, INTEGRITY = 612, 613, 614, 615, 616, 617, 625, 626


def avp(code, value, vendor=None):
    if isinstance(value, int):
        value = struct.pack(">I", value)
    elif isinstance(value, str):
        value = value.encode()
    elif isinstance(value, list):
        value = b"".join(value)
    if vendor is None and code >= 600:
        vendor = VENDOR
    head = struct.pack(">I", vendor) if vendor else b""
    length = 8 + len(head) + len(value)
    flags = (0x80 if vendor else 0) | 0x40
    return struct.pack(">II", code, flags << 24 | length) + head + value + bytes(-length % 4)


def parse(data):
    """AVPs as (code, value), in order."""
    found = []
    while len(data) >= 8:
        code, rest = struct.unpack(">II", data[:8])
        length, start = rest & 0xFFFFFF, 12 if rest >> 31 else 8
        if not start <= length <= len(data):
            raise ValueError("AVP length")
        found.append((code, data[start:length]))
        data = data[length + -length % 4 :]
    return found


def first(avps, code):
    return next((value for c, value in avps if c == code), b"")


class Subscribers:
    """K and OPc by the rule of gmue and gmhome; the last SQN of each."""

    def __init__(self, seed, realm, count):
        self._seed, self.realm, self._count, self._sqn = seed, realm, count, {}

    def imsi(self, impi):
        imsi, _, realm = impi.partition("@")
        known = realm == self.realm and len(imsi) == 15 and imsi.isdigit() and 0 < int(imsi) - 1010000000000 <= self._count
        return imsi if known else None

    def _milenage(self, imsi):
        keys = [hmac.new(self._seed, (label + imsi).encode(), hashlib.sha256).digest()[:16] for label in ("gmgate-K", "gmgate-OPc")]
        return milenage.Milenage(*keys)

    def vector(self, imsi):
        self._sqn[imsi] = self._sqn.get(imsi, 0) + 33  # SEQ + 1, IND + 1 (TS 33.102 C.3.2)
        return self._milenage(imsi).vector(os.urandom(16), self._sqn[imsi].to_bytes(6, "big"), bytes(2))

    def resynchronise(self, imsi, rand, auts):
        sqn = self._milenage(imsi).resynchronise(rand, auts)
        if sqn is not None:
            self._sqn[imsi] = int.from_bytes(sqn, "big")
        return sqn is not None

    def profile(self, imsi):
        identities = (f"sip:{imsi}@{self.realm}", f"tel:+{imsi}")
        inside = "".join(f"<PublicIdentity><Identity>{i}</Identity></PublicIdentity>" for i in identities)
        return (f'<?xml version="1.0" encoding="UTF-8"?><IMSSubscription><PrivateID>{imsi}@{self.realm}</PrivateID>'
                f"<ServiceProfile>{inside}</ServiceProfile></IMSSubscription>")


class Hss:
    def __init__(self, subscribers, host, peer_host):
        self._subscribers, self._host, self._peer_host = subscribers, host, peer_host
        self._peers, self._session, self._waiting = {}, 0, {}
        self._any = f"sip:{peer_host}:5060"  # the S-CSCF for who has none
        self._registered = {}  # IMSI: the S-CSCF's name

    def say(self, *words):
        print(*words, flush=True)

    def _origin(self):
        return [avp(ORIGIN_HOST, self._host), avp(ORIGIN_REALM, self._subscribers.realm)]

    def message(self, flags, command, application, hop, end, avps):
        body = b"".join(avps)
        return struct.pack(">IIIII", 1 << 24 | 20 + len(body), flags << 24 | command, application, hop, end) + body

    def on_message(self, peer, data):
        command, application, hop, end = struct.unpack(">IIII", data[4:20])
        flags, command = command >> 24, command & 0xFFFFFF
        avps = parse(data[20:])
        if not flags & 0x80:
            reply = self._waiting.pop(hop, None)
            result = first(avps, RESULT)
            self.say(f"{COMMANDS.get(command, command)}A {int.from_bytes(result, 'big')}")
            if reply:
                reply("ok" if result == struct.pack(">I", 2001) else "error: refused")
            return
        name = COMMANDS.get(command, "")
        handler = {"CE": self._capabilities, "UA": self._authorise, "LI": self._locate, "MA": self._vectors,
                   "SA": self._assign}.get(name)
        answer = handler(peer, avps) if handler else [avp(RESULT, 2001 if name in ("DW", "DP") else 3001)]
        session = first(avps, SESSION)
        head = [avp(SESSION, session)] if session else []
        peer.sendall(self.message(flags & 0x40, command, application, hop, end, head + answer + self._origin()))

    def _capabilities(self, peer, avps):
        self._peers[first(avps, ORIGIN_HOST).decode()] = peer
        self.say("CER", first(avps, ORIGIN_HOST).decode())
        address = struct.pack(">H", 1) + socket.inet_aton(peer.getsockname()[0])
        cx = avp(VSA, [avp(VENDOR_ID, VENDOR), avp(AUTH_APP, CX)])
        return [avp(RESULT, 2001), avp(HOST_IP, address), avp(VENDOR_ID, VENDOR), avp(PRODUCT, "gmgate-test-hss"),
                avp(SUPPORTED_VENDOR, VENDOR), cx]

    def _cx(self, result, extra=()):
        cx = avp(VSA, [avp(VENDOR_ID, VENDOR), avp(AUTH_APP, CX)])
        return [cx, avp(STATE, 1), avp(RESULT, result), *extra]

    def _cx_experimental(self, code, extra=()):
        cx = avp(VSA, [avp(VENDOR_ID, VENDOR), avp(AUTH_APP, CX)])
        return [cx, avp(STATE, 1), avp(EXPERIMENTAL, [avp(VENDOR_ID, VENDOR), avp(EXPERIMENTAL_CODE, code)]), *extra]

    def _authorise(self, peer, avps):
        """UAR: 2001 first registration, any S-CSCF; 2002 with the name of the S-CSCF that has the user; 5001 user unknown."""
        impi, impu, visited = (first(avps, code).decode() for code in (USER_NAME, PUBLIC_ID, VISITED))
        imsi = self._subscribers.imsi(impi)
        scscf = self._registered.get(imsi)
        self.say("UAR", impi, impu, visited, "unknown" if imsi is None else scscf or "first")
        if imsi is None:
            return self._cx_experimental(5001)
        if scscf:
            return self._cx_experimental(2002, [avp(SERVER_NAME, scscf)])
        return self._cx_experimental(2001, [avp(CAPABILITIES, [avp(SERVER_NAME, self._any)])])

    def _locate(self, peer, avps):
        impu = first(avps, PUBLIC_ID).decode()
        scscf = self._registered.get(self._subscribers.imsi(impu.removeprefix("sip:")) or impu.removeprefix("tel:+"))
        self.say("LIR", impu, scscf or "not registered")
        return self._cx(2001, [avp(SERVER_NAME, scscf)]) if scscf else self._cx_experimental(5003)

    def _vectors(self, peer, avps):
        impi, impu = first(avps, USER_NAME).decode(), first(avps, PUBLIC_ID).decode()
        imsi = self._subscribers.imsi(impi)
        item = parse(first(avps, AUTH_ITEM))
        resync = first(item, AUTHORIZATION)
        if len(resync) not in (0, 30):  # some send it as it stood in SIP
            resync = base64.b64decode(resync)
        if imsi is None:
            self.say("MAR", impi, impu, "unknown")
            return self._cx(5030)
        if resync and not self._subscribers.resynchronise(imsi, resync[:16], resync[16:]):
            self.say("MAR", impi, impu, "AUTS is wrong")
            return self._cx(5012)
        self.say("MAR", impi, impu, "resynchronised" if resync else "vector")
        challenge, res, ck, ik = self._subscribers.vector(imsi)
        vector = avp(AUTH_ITEM, [avp(ITEM_NUMBER, 1), avp(SCHEME, "Digest-AKAv1-MD5"), avp(AUTHENTICATE, challenge),
                                 avp(AUTHORIZATION, res), avp(CONFIDENTIALITY, ck), avp(INTEGRITY, ik)])
        return self._cx(2001, [avp(USER_NAME, impi), avp(PUBLIC_ID, impu), avp(607, 1), vector])

    def _assign(self, peer, avps):
        impi, impu = first(avps, USER_NAME).decode(), first(avps, PUBLIC_ID).decode()
        kind = int.from_bytes(first(avps, ASSIGNMENT), "big")
        self.say("SAR", impi, impu, ASSIGNMENTS.get(kind, kind))
        imsi = self._subscribers.imsi(impi) if impi else self._subscribers.imsi(impu.removeprefix("sip:"))
        if imsi is None:
            return self._cx(5001)
        if kind in (1, 2):
            self._registered[imsi] = first(avps, SERVER_NAME).decode()
        elif kind in (4, 5):
            self._registered.pop(imsi, None)
        user = avp(USER_NAME, f"{imsi}@{self._subscribers.realm}")
        return self._cx(2001, [user, avp(USER_DATA, self._subscribers.profile(imsi))] if kind in (1, 2, 3) else [user])

    def on_command(self, words, reply):
        peer = self._peers.get(self._peer_host)
        if len(words) != 2 or words[0] != "deregister" or peer is None:
            return reply("error: deregister IMSI, when an S-CSCF is there")
        self._session += 1
        impi, number = f"{words[1]}@{self._subscribers.realm}", self._session
        self._waiting[number] = reply
        reason = avp(REASON, [avp(REASON_CODE, 0), avp(REASON_INFO, "subscription ended")])
        avps = [avp(SESSION, f"{self._host};{number};0"), *self._cx_request(), *self._origin(), avp(DESTINATION_HOST, self._peer_host),
                avp(DESTINATION_REALM, self._subscribers.realm), avp(USER_NAME, impi), avp(PUBLIC_ID, f"sip:{impi}"), reason]
        self.say("RTR", impi)
        self._registered.pop(words[1], None)
        peer.sendall(self.message(0xC0, 304, CX, number, number, avps))

    def _cx_request(self):
        return [avp(VSA, [avp(VENDOR_ID, VENDOR), avp(AUTH_APP, CX)]), avp(STATE, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1", help="address; the port is 3868")
    parser.add_argument("--peer-host", required=True, help="the S-CSCF's Diameter name")
    parser.add_argument("--realm", required=True)
    parser.add_argument("--seed", required=True, type=bytes.fromhex)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--control", required=True, help="path of a datagram socket")
    options = parser.parse_args()
    if not milenage.known_answer():
        sys.exit("hss: Milenage does not give the known answer of TS 35.208")
    hss = Hss(Subscribers(options.seed, options.realm, options.subscribers), options.listen, options.peer_host)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(options.control)
    server = socket.create_server((options.listen, 3868))
    loop, unread = selectors.DefaultSelector(), {}
    loop.register(server, selectors.EVENT_READ)
    loop.register(control, selectors.EVENT_READ)
    hss.say("listening")
    while True:
        for key, _ in loop.select():
            if key.fileobj is server:
                peer, _ = server.accept()
                loop.register(peer, selectors.EVENT_READ)
                unread[peer] = b""
            elif key.fileobj is control:
                words, sender = control.recvfrom(1024)
                hss.on_command(words.decode().split(), lambda text, to=sender: to and control.sendto(text.encode(), to))
            else:
                peer = key.fileobj
                data = peer.recv(65536)
                if not data:
                    loop.unregister(peer)
                    del unread[peer]
                    peer.close()
                    continue
                data = unread[peer] + data
                while len(data) >= 20 and len(data) >= (length := int.from_bytes(data[1:4], "big")) >= 20:
                    hss.on_message(peer, data[:length])
                    data = data[length:]
                unread[peer] = data


if __name__ == "__main__":
    main()
