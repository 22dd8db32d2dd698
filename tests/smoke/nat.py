#!/usr/bin/env python3
"""A NAT for tests, in user space: many addresses inside, one outside, a port of its own for each address and port inside.

    nat.py --inside IF --outside IF --address PUBLIC --map FILE [--moved-to PUBLIC] [--thief ADDRESS:PORT]

Takes what comes on the inside interface, gives it its own address and a port, and sends it on; answers go back. UDP, TCP, fragments.
FILE always holds the mappings there are, one a line: udp 192.168.1.2:4500 10.20.1.1:40001. Signals:

    USR1  forgets every mapping: what comes from inside next gets other ports (and the address of --moved-to, once)
    USR2  sends the next ESP in UDP that passes whole a second time, from --thief, and once with its last octet and its sequence
          number changed: what somebody can do who listens on the way
"""
import argparse
import os
import select
import signal
import socket
import struct
import sys

ETH_P_IP, ETH_P_ALL, OUTGOING = 0x0800, 0x0003, 4


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def adjust(old: int, before: bytes, after: bytes) -> int:
    """RFC 1624."""
    total = ~old & 0xFFFF
    for a, b in zip(struct.unpack(f">{len(before) // 2}H", before), struct.unpack(f">{len(after) // 2}H", after)):
        total += (~a & 0xFFFF) + b
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Nat:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.public = socket.inet_aton(options.address)
        self.next_port = 40001
        self.out: dict[tuple, int] = {}  # (protocol, address, port) inside → port outside
        self.back: dict[tuple, tuple] = {}  # (protocol, port outside) → address, port inside
        self.fragments: dict[tuple, tuple] = {}  # of a datagram's first one: what to put in place
        self.stealing = False
        self.mac = {}
        self.inside = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self.inside.bind((options.inside, ETH_P_IP))
        self.outside = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.outside.bind((options.outside, ETH_P_IP))
        # The host finds the way; the address need not be its own.
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.write_map()

    def write_map(self) -> None:
        lines = [f"{'udp' if p == 17 else 'tcp'} {socket.inet_ntoa(a)}:{i} {socket.inet_ntoa(self.public)}:{o}\n"
                 for (p, a, i), o in sorted(self.out.items())]
        with open(self.options.map + ".new", "w", encoding="utf-8") as file:
            file.writelines(lines)
        os.rename(self.options.map + ".new", self.options.map)

    def rebind(self, *_: object) -> None:
        self.out.clear()
        self.back.clear()
        self.next_port += 100
        if self.options.moved_to:
            self.public, self.options.moved_to = socket.inet_aton(self.options.moved_to), None
        self.write_map()

    def steal_next(self, *_: object) -> None:
        self.stealing = True

    def steal(self, original: bytes) -> None:
        self.stealing = False
        address, port = self.options.thief.split(":")
        for forged in (False, True):
            packet = bytearray(original)
            packet[12:16] = socket.inet_aton(address)
            packet[20:22] = struct.pack(">H", int(port))
            packet[26:28] = b"\0\0"
            if forged:
                sequence = struct.unpack(">I", packet[32:36])[0]
                packet[32:36] = struct.pack(">I", sequence + 1000)
                packet[-1] ^= 1
            self.send(packet)

    def send(self, packet: bytearray) -> None:
        packet[10:12] = b"\0\0"
        packet[10:12] = struct.pack(">H", checksum(bytes(packet[:20])))
        self.raw.sendto(bytes(packet), (socket.inet_ntoa(bytes(packet[16:20])), 0))

    def translate(self, packet: bytearray, address_at: int, port_at: int, address: bytes, port: int | None) -> None:
        """port None: a later fragment, which has none."""
        before = bytes(packet[address_at:address_at + 4])
        packet[address_at:address_at + 4] = address
        if port is None:
            return
        at = 20 + port_at
        after = struct.pack(">H", port)
        before += bytes(packet[at:at + 2])
        packet[at:at + 2] = after
        field = 26 if packet[9] == 17 else 36
        old = struct.unpack(">H", packet[field:field + 2])[0]
        if packet[9] == 17 and old == 0:
            return
        packet[field:field + 2] = struct.pack(">H", adjust(old, before, address + after))

    def whole(self, packet: bytearray) -> bool:
        return len(packet) >= 28 and packet[0] == 0x45 and packet[9] in (6, 17)

    def from_inside(self) -> None:
        frame, name = self.inside.recvfrom(65536)
        if name[2] == OUTGOING:
            return
        packet = bytearray(frame[14:])
        if not self.whole(packet):
            return
        packet = packet[:struct.unpack(">H", packet[2:4])[0]]
        protocol, source = packet[9], bytes(packet[12:16])
        self.mac[source] = frame[6:12]
        offset = struct.unpack(">H", packet[6:8])[0] & 0x1FFF
        esp = False
        if offset:
            self.translate(packet, 12, 0, self.public, None)
        else:
            port = struct.unpack(">H", packet[20:22])[0]
            outside = self.out.get((protocol, source, port))
            if outside is None:
                outside = self.next_port
                self.next_port += 1
                self.out[(protocol, source, port)] = outside
                self.back[(protocol, outside)] = (source, port)
                self.write_map()
            self.translate(packet, 12, 0, self.public, outside)
            # A first fragment alone would reach nobody.
            more_fragments = packet[6] & 0x20
            esp = protocol == 17 and port == 4500 and len(packet) > 60 and not more_fragments
        self.send(packet)
        if esp and self.stealing:
            self.steal(bytes(packet))

    def from_outside(self) -> None:
        data, name = self.outside.recvfrom(65536)
        if name[2] == OUTGOING:
            return
        packet = bytearray(data)
        if not self.whole(packet) or bytes(packet[16:20]) != self.public:
            return
        packet = packet[:struct.unpack(">H", packet[2:4])[0]]
        protocol = packet[9]
        datagram = bytes(packet[4:6]) + bytes(packet[12:16])
        flags = struct.unpack(">H", packet[6:8])[0]
        if flags & 0x1FFF:
            to = self.fragments.get(datagram)
            if to is None:
                return
            self.translate(packet, 16, 2, to[0], None)
        else:
            to = self.back.get((protocol, struct.unpack(">H", packet[22:24])[0]))
            if to is None:
                return
            if flags & 0x2000:
                self.fragments = {datagram: to}
            self.translate(packet, 16, 2, to[0], to[1])
        packet[10:12] = b"\0\0"
        packet[10:12] = struct.pack(">H", checksum(bytes(packet[:20])))
        own = self.inside.getsockname()[4]
        self.inside.send(self.mac[to[0]] + own + struct.pack(">H", ETH_P_IP) + bytes(packet))

    def run(self) -> None:
        signal.signal(signal.SIGUSR1, self.rebind)
        signal.signal(signal.SIGUSR2, self.steal_next)
        while True:
            for s in select.select([self.inside, self.outside], [], [])[0]:
                try:
                    self.from_inside() if s is self.inside else self.from_outside()
                except OSError as error:
                    print(f"lost a packet: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("inside", "outside", "address", "map"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--moved-to")
    parser.add_argument("--thief", default="10.20.9.9:4500")
    Nat(parser.parse_args()).run()


if __name__ == "__main__":
    main()
