"""What tests/smoke/dataplane.sh checks. Its ESP is its own: hmac of the standard library, AES by the openssl program.

Runs outside the namespaces; sockets are made inside them by entering with setns in threads-free helpers ("ip netns exec").
"""
import argparse
import ctypes
import hashlib
import hmac
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

GW4, GW6 = "10.99.0.1", "fd00:99::1"
CK, IK = bytes(range(16)), bytes(range(100, 116))
PORT_PS, PORT_PC = 6100, 6200
WAIT = 5.0  # for what must come
QUIET = 0.5  # for what must not come
failures = []
checks = 0
begin = time.monotonic()


def check(ok, what, detail=""):
    global checks
    checks += 1
    print(f"{time.monotonic() - begin:7.1f} " + ("ok    " if ok else "FAIL  ") + what + ("" if ok or detail == "" else f": {detail}"), flush=True)
    if not ok:
        failures.append(what)


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{namespace}") as f:
        if libc.setns(f.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def until(condition, seconds=WAIT):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.02)


class Probe:
    def __init__(self, args, *extra):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", args.gw, args.probe, "--gm", "gmnic0", "--tap", "gmtap0", "--address", GW4 + "/24",
             "--address", GW6 + "/64", *extra],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = json.loads(self.process.stdout.readline() or '{"error": "died"}')

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def drops(self, reason):
        return self.ask("drops")[reason]

    def quit(self):
        if self.process.poll() is None:
            self.ask("quit")
        return self.process.wait(10)


# -- ESP of our own

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(src, dst, sport, dport, payload):
    length = 8 + len(payload)
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    a, b = socket.inet_pton(family, src), socket.inet_pton(family, dst)
    pseudo = a + b + (struct.pack("!IxxxB", length, 17) if ":" in src else struct.pack("!BBH", 0, 17, length))
    head = struct.pack("!HHHH", sport, dport, length, 0)
    value = checksum(pseudo + head + payload) or 0xFFFF
    return struct.pack("!HHHH", sport, dport, length, value) + payload


def aes_cbc(data, iv, decrypt):
    run = subprocess.run(["openssl", "enc", "-aes-128-cbc", "-d" if decrypt else "-e", "-K", CK.hex(), "-iv", iv.hex(), "-nopad"],
                         input=data, stdout=subprocess.PIPE, check=True)
    return run.stdout


def icv(suite, data):
    if suite.startswith("hmac-sha-1"):
        return hmac.new(IK + bytes(4), data, hashlib.sha1).digest()[:12]
    return hmac.new(IK, data, hashlib.md5).digest()[:12]


def seal(suite, spi, sequence, inner, next_header=17):
    block = 16 if suite.endswith("aes-cbc") else 4
    pad = -(len(inner) + 2) % block
    clear = inner + bytes(range(1, pad + 1)) + bytes([pad, next_header])
    if suite.endswith("aes-cbc"):
        iv = os.urandom(16)
        clear = iv + aes_cbc(clear, iv, False)
    packet = struct.pack("!II", spi, sequence) + clear
    return packet + icv(suite, packet)


def unseal(suite, packet):
    body, tag = packet[:-12], packet[-12:]
    if icv(suite, body) != tag:
        return None
    spi, sequence = struct.unpack("!II", body[:8])
    clear = body[8:]
    if suite.endswith("aes-cbc"):
        clear = aes_cbc(clear[16:], clear[:16], True)
    pad, next_header = clear[-2], clear[-1]
    if next_header != 17 or clear[-2 - pad:-2] != bytes(range(1, pad + 1)):
        return None
    inner = clear[:-2 - pad]
    sport, dport, length, _ = struct.unpack("!HHHH", inner[:8])
    if length != len(inner):
        return None
    return {"spi": spi, "sequence": sequence, "sport": sport, "dport": dport, "payload": inner[8:], "inner": inner}


class Phone:
    """One address with one SA set."""
    number = 0

    def __init__(self, probe, address, suite, owner=0):
        Phone.number += 1
        self.id = Phone.number
        self.probe, self.address, self.suite = probe, address, suite
        self.ours = GW6 if ":" in address else GW4
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.raw = socket.socket(family, socket.SOCK_RAW, 50)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if family == socket.AF_INET:
            self.raw.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: do not set DF, fragment
        self.raw.bind((address, 0))
        self.sequence = 0
        self.port_uc, self.port_us = 40000 + 2 * self.id, 40001 + 2 * self.id
        generation = 1 + self.id % 60
        slot = 2 * self.id
        self.spi_pc = generation << 26 | owner << 22 | slot
        self.spi_ps = generation << 26 | owner << 22 | (slot + 1)
        self.spi_uc, self.spi_us = 5000 + 2 * self.id, 5001 + 2 * self.id

    def install(self):
        return self.probe.ask(f"install {self.id} {self.address} {self.ours} {self.suite} {CK.hex()} {IK.hex()} {self.spi_uc} "
                              f"{self.spi_us} {self.spi_pc} {self.spi_ps} {self.port_uc} {self.port_us} {PORT_PC} {PORT_PS}")

    def packet(self, payload, spi=None, sequence=None):
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        inner = udp(self.address, self.ours, self.port_uc, PORT_PS, payload)
        return seal(self.suite, spi or self.spi_ps, sequence, inner)

    def send(self, packet):
        self.raw.sendto(packet, (self.ours, 0))

    def receive(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.raw.settimeout(left)
            try:
                data = self.raw.recv(65536)
            except (TimeoutError, socket.timeout):
                return None
            if ":" not in self.address:
                data = data[(data[0] & 15) * 4:]
            # A raw socket gets what comes for all sets of its address.
            if int.from_bytes(data[:4], "big") in (self.spi_uc, self.spi_us):
                return unseal(self.suite, data)
        return None

    def echo(self, payload, seconds=WAIT):
        """Sends under ESP; the answer if it is authentic and right in every field."""
        self.send(self.packet(payload))
        r = self.receive(seconds)
        if r is None:
            return None
        good = (r["spi"] == self.spi_uc and r["sport"] == PORT_PS and r["dport"] == self.port_uc and
                r["inner"] == udp(self.ours, self.address, PORT_PS, self.port_uc, r["payload"]))
        return r if good and r["payload"] == b"echo:" + payload else None


# -- the host behind the TAP: sockets on all addresses, so that whatever gets past the fast path is seen

class Host:
    def __init__(self, namespace):
        self.seen = []
        self.sockets = {}  # UDP, by port
        ready = threading.Event()
        threading.Thread(target=self.run, args=(namespace, ready), daemon=True).start()
        ready.wait()

    def run(self, namespace, ready):
        enter(namespace)  # this thread's alone
        import selectors
        poll = selectors.DefaultSelector()
        for port in (5060, PORT_PS, PORT_PC):
            u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            u.bind(("::", port))
            self.sockets[port] = u
            t = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            t.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            t.bind(("::", port))
            t.listen(16)
            poll.register(u, selectors.EVENT_READ, ("udp", port))
            poll.register(t, selectors.EVENT_READ, ("tcp", port))
        ready.set()
        while True:
            for key, _ in poll.select():
                kind, port = key.data
                if kind == "udp":
                    data, source = key.fileobj.recvfrom(65536)
                    self.seen.append((kind, port, data))
                    try:
                        key.fileobj.sendto(b"echo:" + data, source)
                    except OSError:
                        pass
                else:
                    connection, _ = key.fileobj.accept()
                    self.seen.append((kind, port, b""))
                    connection.close()

    def saw(self, payload):
        return any(payload in data for _, _, data in list(self.seen))


def clear_udp(family, port, payload, seconds):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(seconds)
    s.sendto(payload, (GW6 if family == socket.AF_INET6 else GW4, port))
    try:
        return s.recv(65536)
    except (TimeoutError, socket.timeout, ConnectionError):
        return None


def clear_tcp(family, port, seconds):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(seconds)
    try:
        s.connect((GW6 if family == socket.AF_INET6 else GW4, port))
        return "connected"
    except (TimeoutError, socket.timeout):
        return "silence"
    except OSError as e:
        return str(e)


def ping(address):
    return subprocess.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", address], stdout=subprocess.DEVNULL).returncode == 0


def gw(args, *command):
    return subprocess.run(["ip", "netns", "exec", args.gw, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def mac(namespace, interface):
    run = subprocess.run(["ip", "-n", namespace, "-j", "link", "show", "dev", interface], stdout=subprocess.PIPE, check=True)
    return bytes.fromhex(json.loads(run.stdout)[0]["address"].replace(":", ""))


def interface_state(args):
    keys = ["ipv6/conf/gmnic0/disable_ipv6", "ipv4/conf/gmnic0/rp_filter", "ipv4/conf/gmnic0/arp_ignore"]
    values = [gw(args, "cat", "/proc/sys/net/" + k).strip() for k in keys]
    flags = gw(args, "cat", "/sys/class/net/gmnic0/flags").strip()
    features = [line for line in gw(args, "ethtool", "-k", "gmnic0").splitlines() if line.startswith("generic-receive")]
    return values + [flags] + features


def run_traffic(args, host, workers, extra=()):
    print(f"{workers} worker(s) {' '.join(extra)}", flush=True)
    before = interface_state(args)
    probe = Probe(args, "--workers", str(workers), *extra)
    check(probe.first.get("ready"), "starts", probe.first)
    if not probe.first.get("ready"):
        return
    check(mac(args.gw, "gmtap0") == mac(args.gw, "gmnic0"), "TAP bears the NIC's MAC address")
    check(ping(GW4) and ping(GW6), "ARP, ND and ping, IPv4 and IPv6")
    for family, name in ((socket.AF_INET, "IPv4"), (socket.AF_INET6, "IPv6")):
        text = f"open {name} {workers}".encode()
        check(clear_udp(family, 5060, text, WAIT) == b"echo:" + text, f"{name}: unprotected UDP passes both ways")
        long = os.urandom(4000)
        check(clear_udp(family, 5060, long, WAIT) == b"echo:" + long, f"{name}: unprotected UDP of 4000 octets passes both ways")
        check(clear_tcp(family, 5060, WAIT) == "connected", f"{name}: unprotected TCP passes")
        for port in (PORT_PS, PORT_PC):
            was = probe.drops("cleartext_protected_port")
            text = f"forbidden {name} {port} {workers}".encode()
            answer = clear_udp(family, port, text, QUIET)
            check(answer is None and not host.saw(text), f"{name}: cleartext UDP to {port} never reaches a socket")
            seen = len([s for s in host.seen if s[0] == "tcp" and s[1] == port])
            got = clear_tcp(family, port, QUIET)
            check(got == "silence" and seen == len([s for s in host.seen if s[0] == "tcp" and s[1] == port]),
                  f"{name}: cleartext TCP to {port} gets no answer", got)
            check(probe.drops("cleartext_protected_port") >= was + 2, f"{name}: both counted")
        was = probe.drops("cleartext_protected_port")
        text = os.urandom(3000)
        check(clear_udp(family, PORT_PS, text, QUIET) is None and not host.saw(text),
              f"{name}: cleartext in fragments does not reach it either")
        check(probe.drops("cleartext_protected_port") > was, f"{name}: and is counted")

    phones = []
    for suite in ("hmac-sha-1-96/null", "hmac-md5-96/null", "hmac-sha-1-96/aes-cbc"):
        for address in ("10.99.0.2", "fd00:99::2"):
            ours = GW6 if ":" in address else GW4
            owner = probe.ask(f"owner {address} {ours}")["owner"]
            p = Phone(probe, address, suite, owner)
            done = p.install()
            check("ok" in done, f"install {suite} {address}", done)
            text = f"hello {suite} {address}".encode()
            r = p.echo(text)
            check(r is not None and r["sequence"] == 1, f"{suite} {address}: ESP in, ESP out, sequence 1")
            long = os.urandom(4000)
            check(p.echo(long) is not None, f"{suite} {address}: 4000 octets, fragments both ways")
            s = probe.ask(f"stats {p.id}")
            check(s["in_packets"] == 2 and s["out_packets"] == 2 and s["highest_out_sequence"] == 2, "its counters", s)
            phones.append(p)
    p = phones[0]
    probe.ask("events")

    packet = p.packet(b"only once")
    p.send(packet)
    check(p.receive(WAIT) is not None, "a packet passes")
    was = probe.drops("replay")
    p.send(packet)
    check(until(lambda: probe.drops("replay") == was + 1), "its copy is dropped as a replay")
    check(p.receive(QUIET) is None, "and not answered")
    was = probe.drops("unknown_spi")
    p.send(p.packet(b"whose", spi=(63 << 26) | 4095))
    check(until(lambda: probe.drops("unknown_spi") == was + 1), "unknown SPI is dropped")
    was = probe.drops("integrity")
    forged = bytearray(p.packet(b"forged"))
    forged[20] ^= 1
    for i in range(50):
        p.send(bytes(forged))
    check(until(lambda: probe.drops("integrity") == was + 50), "forged ESP is dropped")
    events = probe.ask("events")
    kinds = [e["kind"] for e in events["events"] if e["set"] == p.id]
    check(events["readable"] and "integrity_failure" in kinds and kinds.count("integrity_failure") <= 2,
          "integrity failures are reported, at most one a second", events)
    was = probe.drops("wrong_address")
    thief = Phone(probe, "10.99.0.17", p.suite)
    thief.send(thief.packet(b"stolen", spi=p.spi_ps, sequence=p.sequence + 9))
    check(until(lambda: probe.drops("wrong_address") == was + 1), "another address on this SA is dropped")

    # Fragments that never become whole, more than the table holds.
    was = {k: v for k, v in probe.ask("drops").items() if k.startswith("fragment") or k == "hand_over_full"}
    missed = "gmgate_dataplane_port_errors_total,port=gm,direction=received"
    was_missed = probe.ask("metrics")[missed]
    ether = mac(args.gw, "gmtap0") + mac(args.ue, "gmue0")
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("gmue0", 0))
    for i in range(3000):
        v6 = struct.pack("!IHBB", 6 << 28, 8 + 64, 44, 64) + socket.inet_pton(socket.AF_INET6, "fd00:99::2") + \
            socket.inet_pton(socket.AF_INET6, GW6) + struct.pack("!BBHI", 50, 0, 1, i) + bytes(64)
        wire.send(ether + b"\x86\xdd" + v6)
    def lost():  # in the table, or in a ring on the way to it if this machine is busy
        given_up = sum(v - was[k] for k, v in probe.ask("drops").items() if k in was)
        return given_up + probe.ask("metrics")[missed] - was_missed

    check(until(lambda: lost() == 3000), "a flood of 3000 first fragments: all given up in time, all counted", lost())
    check(probe.ask("metrics")["gmgate_dataplane_buffers_used,pool=large"] == 0, "and no buffer is kept")
    p6 = phones[1]
    check(p6.echo(os.urandom(4000)) is not None, "fragments pass afterwards")

    if workers > 1:
        # Several address pairs: the kernel spreads packets over the queues by a hash of its own.
        for i in range(10, 18):
            for address in (f"10.99.0.{i}", f"fd00:99::{i}"):
                owner = probe.ask(f"owner {address} {GW6 if ':' in address else GW4}")["owner"]
                q = Phone(probe, address, "hmac-sha-1-96/null", owner)
                q.install()
                phones.append(q)
        owners = {q.spi_ps >> 22 & 15 for q in phones}
        check(len(owners) == workers, "every worker owns some of the address pairs", owners)
        overflows = probe.drops("hand_over_full")
        good = all(q.echo(f"round {n} of {q.id}".encode()) is not None for n in range(5) for q in phones)
        check(good, f"{5 * len(phones)} exchanges on {len(phones)} sets, every answer right")
        # From our client port: no packet of that flow came in before, so the TAP's queue is any.
        good = True
        for q in phones:
            text = f"request to {q.id}".encode()
            host.sockets[PORT_PC].sendto(text, (("" if ":" in q.address else "::ffff:") + q.address, q.port_us))
            r = q.receive(WAIT)
            good = good and r is not None and (r["spi"], r["sport"], r["dport"], r["payload"], r["sequence"]) == \
                (q.spi_us, PORT_PC, q.port_us, text, 1)
        check(good, "requests to every phone from our client port, each under its spi_us")
        m = probe.ask("metrics")
        check(m["gmgate_dataplane_handed_over_total,direction=inbound"] > 0 and
              m["gmgate_dataplane_handed_over_total,direction=outbound"] > 0, "packets were handed over in both directions",
              {k: v for k, v in m.items() if "handed" in k})
        check(probe.drops("hand_over_full") == overflows, "no ring overflowed")

    # Removal while packets of the set keep coming.
    stop = threading.Event()
    victim = phones[1]
    mine = socket.socket(victim.raw.family, socket.SOCK_RAW, 50)
    mine.bind((victim.address, 0))
    prepared = [victim.packet(b"x" * 600) for _ in range(2000)]

    def flood():
        while not stop.is_set():
            for packet in prepared:
                if stop.is_set():
                    break
                try:
                    mine.sendto(packet, (victim.ours, 0))
                except OSError:
                    pass

    sender = threading.Thread(target=flood)
    sender.start()
    good = True
    for _ in range(200):
        good = good and probe.ask(f"remove {victim.id}").get("ok", False)
        # In the very place it left: refused while a worker that has lost its core may still read it.
        end = time.monotonic() + 10
        while good and "ok" not in victim.install():
            good = time.monotonic() < end
            time.sleep(0.005)
    stop.set()
    sender.join()
    check(good, "200 removals and installations under traffic")
    probe.ask(f"remove {victim.id}")
    fresh = Phone(probe, victim.address, "hmac-sha-1-96/null", victim.spi_ps >> 22 & 15)
    fresh.install()
    while fresh.receive(0.2) is not None:
        pass
    check(until(lambda: fresh.echo(b"after the storm", 1) is not None, 10), "and a new set works")

    # The cable.
    subprocess.run(["ip", "link", "set", "gmue0", "down"], check=True)
    check(until(lambda: not probe.ask("health")["gm_link_up"]), "link down is seen", probe.ask("health"))
    clear = probe.ask("health")
    check("no link" in clear["text"], "and said", clear)
    subprocess.run(["ip", "link", "set", "gmue0", "up"], check=True)
    for i in (2, 10, 11, 12, 13, 14, 15, 16, 17):
        subprocess.run(["ip", "addr", "replace", f"fd00:99::{i}/64", "dev", "gmue0", "nodad"], check=True)
    check(until(lambda: probe.ask("health")["ok"]), "and its return")
    check(until(lambda: phones[0].echo(b"again", 1) is not None, 10), "traffic flows again, the SA has lived on")
    gw(args, "ip", "link", "set", "gmnic0", "down")
    check(until(lambda: not probe.ask("health")["gm_link_up"]), "our side down is seen")
    gw(args, "ip", "link", "set", "gmnic0", "up")
    check(until(lambda: phones[0].echo(b"once more", 1) is not None, 10), "and heals")

    second = Probe(args, "--workers", "1")
    check("another copy" in second.first.get("error", ""), "a second copy is refused with a clear line", second.first)
    second.process.wait()

    check(probe.quit() == 0, "ends cleanly")
    check("gmtap0" not in gw(args, "ip", "link"), "no TAP is left")
    check(interface_state(args) == before, "the interface is as it was", (before, interface_state(args)))
    check(ping_fails(), "and nobody answers any more")


def ping_fails():
    return subprocess.run(["ping", "-c", "1", "-W", "1", GW4], stdout=subprocess.DEVNULL).returncode != 0


def run_errors(args):
    print("mistakes and accidents", flush=True)
    wrong = subprocess.run(["ip", "netns", "exec", args.gw, args.probe, "--gm", "nosuch0", "--tap", "gmtap0", "--address", GW4 + "/24"],
                           stdout=subprocess.PIPE, text=True, input="")
    text = json.loads(wrong.stdout)["error"]
    check(wrong.returncode == 1 and "nosuch0" in text and "gmnic0" in text, "absent interface: named, with those there are", text)
    gw(args, "ip", "addr", "add", "192.0.2.1/24", "dev", "gmnic0")
    text = Probe(args).first.get("error", "")
    check("192.0.2.1" in text and "flush" in text, "an address left on the interface: refused with the remedy", text)
    gw(args, "ip", "addr", "flush", "dev", "gmnic0")
    gw(args, "ip", "link", "add", "gmtap0", "type", "veth", "peer", "name", "gmtap1")
    text = Probe(args).first.get("error", "")
    check("gmtap0 exists" in text and "ip link del" in text, "a TAP name in use: refused with the remedy", text)
    gw(args, "ip", "link", "del", "gmtap0")
    unprivileged = subprocess.run(
        ["ip", "netns", "exec", args.gw, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
         args.probe, "--gm", "gmnic0", "--tap", "gmtap0", "--address", GW4 + "/24"], stdout=subprocess.PIPE, text=True, input="")
    text = json.loads(unprivileged.stdout or "{}").get("error", "")
    check("CAP_NET_ADMIN" in text, "no permission: which capability", text or unprivileged)

    killed = Probe(args)
    check(killed.first.get("ready"), "starts")
    pids = gw(args, "ip", "netns", "pids", args.gw).split()
    for pid in pids:
        try:
            program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        except FileNotFoundError:  # a helper that has ended since
            continue
        if program == "dataplane_probe":
            os.kill(int(pid), 9)
            runtime = f"/var/run/dpdk/gmgate-{pid}"
    killed.process.wait()
    check("gmtap0" not in gw(args, "ip", "link"), "after kill -9 no TAP is left")
    again = Probe(args)
    check(again.first.get("ready"), "after kill -9 it starts again", again.first)
    check(not os.path.exists(runtime), "and has removed the dead one's runtime files")
    check(ping(GW4), "and works")
    gw(args, "ip", "link", "del", "gmtap0")
    check(until(lambda: not again.ask("health")["ok"]) is True, "TAP deleted under it: seen", again.ask("health"))
    subprocess.run(["ip", "link", "del", "gmue0"], check=True)  # takes gmnic0 along
    health = until(lambda: (lambda h: h if not h["gm_present"] else None)(again.ask("health")))
    check(health and "deleted" in health["text"], "NIC deleted under it: seen, said, no crash", health)
    check(again.quit() == 0, "and it still ends cleanly")


def main():
    parser = argparse.ArgumentParser()
    for name in ("probe", "ue", "gw"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    args.probe = os.path.abspath(args.probe)
    host = Host(args.gw)
    enter(args.ue)
    run_traffic(args, host, 1)
    run_traffic(args, host, 2)
    run_traffic(args, host, 1, ("--poll", "--crypto", "openssl"))
    run_errors(args)
    print(f"{checks} checks, {len(failures)} failed")
    for f in failures:
        print("  failed: " + f)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
