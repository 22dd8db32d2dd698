"""How long each SIP message took through the gateway: the same message on the Gm wire and on the core wire.

Two captures by the same clock. With encryption null the SIP inside ESP can be read, and the gateway changes neither start line's method or status, nor
Call-ID, nor CSeq: they name a message on both wires. What was seen more than once on one wire in one direction (retransmissions) is left out.
"""
import collections
import re
import struct

START = re.compile(rb"(?:([A-Z]+) (?:sip|tel):[^ \r\n]+ SIP/2\.0|SIP/2\.0 (\d{3}) [^\r\n]*)\r\n")
CALL_ID = re.compile(rb"\r\n(?:Call-ID|i): *([^\r\n]+)", re.I)
CSEQ = re.compile(rb"\r\nCSeq: *(\d+) +([A-Z]+)", re.I)

Crossing = collections.namedtuple("Crossing", "call method what to_core seconds entered left")


def packets(path: str):
    """(time in seconds, octets) of each packet in a pcapng file."""
    with open(path, "rb") as f:
        data = f.read()
    order, units, at = "<", [], 0
    while at + 12 <= len(data):
        if data[at:at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8:at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            units = []
        kind, size = struct.unpack_from(order + "II", data, at)
        if size < 12 or at + size > len(data):
            return  # cut off
        if kind == 1:  # an interface, with the unit of its times
            unit, option = 1e-6, at + 16
            while option + 4 <= at + size - 4:
                code, length = struct.unpack_from(order + "HH", data, option)
                if code == 9:
                    exponent = data[option + 4]
                    unit = 2.0 ** -(exponent & 0x7F) if exponent & 0x80 else 10.0 ** -exponent
                if code == 0:
                    break
                option += 4 + (length + 3) // 4 * 4
            units.append(unit)
        elif kind == 6:
            interface, high, low, captured = struct.unpack_from(order + "IIII", data, at + 8)
            yield ((high << 32) | low) * units[interface], data[at + 28:at + 28 + captured]
        at += size


def messages(path: str, is_to_gateway):
    """(time, into the gateway?, key) of each SIP message that begins in a packet; the key is (Call-ID, CSeq, method of CSeq, start line's word)."""
    for time, octets in packets(path):
        if octets[12:14] != b"\x08\x00":
            continue
        source = ".".join(str(o) for o in octets[26:30])
        for start in START.finditer(octets):
            head = octets[start.end() - 2:]
            head = head[:head.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in head else head
            call, number = CALL_ID.search(head), CSEQ.search(head)
            if call and number:
                what = (start[1] or start[2]).decode()
                yield time, is_to_gateway(source), (call[1].decode(errors="replace"), int(number[1]), number[2].decode(), what)


def crossings(gm: str, core: str, is_phone, is_core) -> list[Crossing]:
    """`is_phone`, `is_core`: whether an IPv4 source address is a phone's, the core's."""
    seen = collections.defaultdict(list)
    for wire, path, outside in (("gm", gm, is_phone), ("core", core, is_core)):
        for time, inward, key in messages(path, outside):
            seen[key, wire, inward].append(time)
    found = []
    for key in {key for key, _, _ in seen}:
        for to_core, way in ((True, ("gm", "core")), (False, ("core", "gm"))):
            entered, left = seen.get((key, way[0], True), []), seen.get((key, way[1], False), [])
            if len(entered) == 1 and len(left) == 1:
                found.append(Crossing(key[0], key[2], key[3], to_core, left[0] - entered[0], entered[0], left[0]))
    return found
