"""What the rules of failures.py stand on: phones driven line by line (gmue --console), the gateway's and the home network's view, and
tshark as a witness of both sides of the gateway. Nothing here waits for a length of time: it polls, with generous limits.
"""
import collections
import json
import os
import queue
import re
import socket
import subprocess
import threading
import time

LIMIT = 60  # seconds a step may take on a machine that is busy with other things
PORTS = ("6100-6103", "6200-6207")
DECODE = [word for port in PORTS for word in ("-d", f"udp.port=={port},sip", "-d", f"tcp.port=={port},sip")]
# What this tshark can open and verify. (It knows nothing of AES-GMAC.)
SUITES = ["hmac-sha-1-96/aes-cbc", "null/aes-gcm", "hmac-md5-96/null", "hmac-sha-1-96/null", "hmac-md5-96/aes-cbc",
          "hmac-sha-1-96/des-ede3-cbc"]


class Failed(Exception):
    pass


def until(what, limit=LIMIT):
    """Polls until `what` is true; its last value."""
    end = time.monotonic() + limit
    while True:
        value = what()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.1)


class Lab:
    def __init__(self, args):
        self.bin, self.state, self.out, self.realm, self.seed = args.bin, args.state, args.out, args.realm, args.seed
        self.backend, self.patience = args.backend, args.patience
        self.ue, self.gw, self.home = args.prefix + "-ue", args.prefix + "-gw", args.prefix + "-home"
        self.probing = threading.Lock()  # one phone at a time sends what the packet layer counts
        self.phones = []

    def api(self, operation, **arguments):
        """The answers of the gateway's socket to one request. Asked many times a second: no program is started for it."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LIMIT)
            try:
                s.connect(f"{self.state}/gmgated.sock")
                s.sendall(json.dumps({"v": 1, "id": 1, "op": operation, "args": arguments}).encode() + b"\n")
                answers = []
                for line in s.makefile():
                    answers.append(json.loads(line))
                    if answers[-1].get("done", True):
                        break
            except OSError as e:
                raise Failed(f"the gateway's socket, {operation}: {e}") from None
        for a in answers:
            if "error" in a and a["error"].get("code") != "not_found":
                raise Failed(f"{operation} {arguments}: {a['error'].get('text')}")
        return answers

    def gmctl(self, *words):
        """What the operator's own tool says, an object a line; nothing where it refuses."""
        done = subprocess.run([f"{self.bin}/gmctl", "--socket", f"{self.state}/gmgated.sock", "-j", *words], capture_output=True,
                              text=True, timeout=LIMIT, check=False)
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def rows(self, operation, **arguments):
        return [row for answer in self.api(operation, **arguments) for row in answer.get("rows", [])]

    def trace(self, impi):
        return json.dumps(self.api("trace", impi=impi))

    def sets(self, impi):
        return self.rows("sa.list", impi=impi)

    def drops(self, reason):
        return sum(d["count"] for answer in self.api("drops") for d in answer["result"]["drops"] if d["reason"] == reason)

    def in_backend(self):
        """SA sets the packet layer holds: as the kernel says where it is the packet layer, else as the fast path's metric says."""
        if self.backend == "kernel":
            # Not the notes of packets that had no SA (SPI 0).
            text = subprocess.run(["ip", "-n", self.gw, "xfrm", "state"], capture_output=True, text=True, timeout=LIMIT, check=False).stdout
            return len(re.findall(r"proto esp spi 0x0*[1-9a-f]", text)) / 4
        for sample in self.api("stats")[0]["result"]["metrics"]:
            if sample["name"] == "gmgate_dataplane_sa_sets":
                return int(sample["value"])
        return -1

    def cx(self, phone, operation):
        """The Cx lines of one user: what came after the operation's name."""
        lines = []
        with open(f"{self.out}/gmhome.log", errors="replace") as log:
            for line in log:
                m = re.search(rf"Cx {operation} impi={phone.imsi}@\S+ impu=\S+ (.*)", line)
                if m:
                    lines.append(m.group(1).strip())
        return lines

    def ctl(self, *words):
        done = subprocess.run([f"{self.bin}/gmhome", "ctl", "--control", f"{self.state}/gmhome.sock", *words], capture_output=True,
                              text=True, timeout=LIMIT, check=False)
        return done.stdout.strip()


class Phone:
    """One gmue --console. Replies are awaited; events are kept."""
    counter = 0
    guard = threading.Lock()

    def __init__(self, lab, tag, v6=False, tcp=False, style="plain", silence=1.5, timeout=4):
        with Phone.guard:
            Phone.counter += 1
            self.number = Phone.counter
            lab.phones.append(self)
        self.lab, self.tag = lab, tag
        self.imsi = f"{1010000000000 + self.number:015d}"
        self.impi = f"{self.imsi}@{lab.realm}"
        self.impu = "sip:" + self.impi
        self.addresses = [f"fd00:20::{self.number:x}" if v6 else f"10.20.{self.number >> 8}.{self.number & 255}"]
        self.keys = f"{lab.out}/keys.{self.number}"
        self.log = f"{lab.out}/phone-{self.number}-{tag}.log"
        self.replies, self.events, self.sets = queue.Queue(), [], {}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", lab.ue, f"{lab.bin}/gmue", "--console", "--pcscf", "10.21.0.1:5060", "--pcscf6",
                 "[fd00:21::1]:5060", "--realm", lab.realm, "--seed", lab.seed, "--ue-net", "10.20.0.0/16", "--ue-net6", "fd00:20::/64",
                 "--first-phone", str(self.number), "--clear-port", str(15000 + self.number), "--ipv6-share", str(int(v6)),
                 "--tcp-share", str(int(tcp)), "--suites", SUITES[self.number % len(SUITES)], "--style", style, "--keylog", self.keys,
                 "--silence", str(silence), "--timeout", str(timeout * lab.patience)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if "event" in message:
                self.events.append(message)
            else:
                self.replies.put(message)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def reply(self, line, limit=LIMIT):
        try:
            r = self.replies.get(timeout=limit)
        except queue.Empty:
            raise Failed(f"phone {self.number}: no end of '{line}' in {limit} s") from None
        if "error" in r:
            raise Failed(f"phone {self.number}: '{line}': {r['error']}")
        return r

    def do(self, line):
        self.tell(line)
        return self.reply(line)

    def status(self):
        s = self.do("status")
        for row in s["sets"]:
            self.sets[row["set"]] = row
        if s["address"] not in self.addresses:
            self.addresses.append(s["address"])
        self.violations = s["violations"]
        return s

    def set(self, serial):
        self.status()
        if serial not in self.sets:
            raise Failed(f"phone {self.number} never had set {serial}")
        return self.sets[serial]

    def ours(self):
        """The gateway's sets of this user: state by our spi_ps."""
        return {int(str(s["spi_ps"]), 0): s for s in self.lab.sets(self.impi)}

    def state(self, serial):
        """Of one set in the gateway's database; None: gone."""
        row = self.ours().get(self.set(serial)["spi_ps"])
        return row["state"] if row else None

    def event(self, kind):
        """Waits for the next event of this kind and takes it."""
        def find():
            for e in self.events:
                if e["event"] == kind:
                    self.events.remove(e)
                    return e
            return None
        e = until(find)
        if e is None:
            raise Failed(f"phone {self.number}: no {kind}")
        return e

    def close(self):
        if self.process.poll() is None:
            try:
                self.status()
                self.tell("quit")
                self.process.wait(timeout=20)
            except (Failed, OSError, subprocess.TimeoutExpired):
                self.process.kill()


Message = collections.namedtuple("Message", "frame time out what set headers call cseq")


class Witness:
    """Both captures, opened by tshark: every SIP message, and on which SAs."""

    def __init__(self, lab):
        self.lab = lab
        config = f"{lab.out}/wireshark"
        os.makedirs(config, exist_ok=True)
        with open(f"{config}/esp_sa", "w") as table:
            for phone in lab.phones:
                if os.path.exists(phone.keys):
                    table.write(open(phone.keys).read())
        with open(f"{config}/preferences", "w") as f:
            f.write("esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n")
        self.environment = dict(os.environ, WIRESHARK_CONFIG_DIR=os.path.abspath(config))
        fields = ["frame.number", "frame.time_epoch", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "esp.spi", "sip.Method",
                  "sip.Status-Code", "sip.Call-ID", "sip.CSeq", "sip.msg_hdr"]
        self.gm = self.tshark(f"{lab.out}/gm.pcapng", "sip and not icmp and not icmpv6", fields)
        self.core = self.tshark(f"{lab.out}/core.pcapng", "sip and not icmp", fields)
        self.esp = self.tshark(f"{lab.out}/gm.pcapng", "esp and not icmp and not icmpv6",
                               ["frame.number", "frame.time_epoch", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "esp.spi", "esp.icv_bad"])

    def tshark(self, capture, display_filter, fields):
        command = ["tshark", "-n", "-r", capture, *DECODE, "-Y", display_filter, "-T", "fields", "-E", "separator=/t", "-E",
                   "occurrence=f"]
        for f in fields:
            command += ["-e", f]
        done = subprocess.run(command, capture_output=True, env=self.environment, check=False)
        if done.returncode != 0:
            raise Failed("tshark: " + done.stderr.decode(errors="replace").strip().splitlines()[-1])
        rows = []
        for line in done.stdout.decode(errors="replace").split("\n"):
            row = line.split("\t")
            if row[0].isdigit():
                row = (row + [""] * len(fields))[:len(fields)]
                rows.append(dict(zip(fields, row)))
        return rows

    def side(self, phone, row):
        """out: from the phone; False: to it; None: another's."""
        source, destination = row["ip.src"] or row["ipv6.src"], row["ip.dst"] or row["ipv6.dst"]
        if source in phone.addresses:
            return True
        return False if destination in phone.addresses else None

    def messages(self, phone):
        """This phone's SIP on Gm in order, each once: what was sent again is left out, as are provisional answers and probes."""
        seen, out = set(), []
        for row in self.gm:
            outbound = self.side(phone, row)
            if outbound is None or row["sip.Status-Code"].startswith("1"):
                continue
            where = "clear"
            if row["esp.spi"]:
                spi = int(row["esp.spi"], 0)
                names = ("spi_ps", "spi_pc") if outbound else ("spi_uc", "spi_us")
                where = next((str(s["set"]) for s in phone.sets.values() if spi in (s[names[0]], s[names[1]])), "unknown")
            what = row["sip.Method"] or row["sip.Status-Code"]
            key = (outbound, what, row["sip.Call-ID"], row["sip.CSeq"], where)
            if key in seen or row["sip.Call-ID"].startswith("probe"):
                continue
            seen.add(key)
            out.append(Message(int(row["frame.number"]), float(row["frame.time_epoch"]), outbound, what, where, row["sip.msg_hdr"],
                               row["sip.Call-ID"], row["sip.CSeq"]))
        return out

    def flow(self, phone):
        """The same as one line: '> REGISTER clear; < 401 clear; > REGISTER 1; < 200 1' (the numbers: sets of SAs)."""
        return "; ".join(f"{'>' if m.out else '<'} {m.what} {m.set}" for m in self.messages(phone))

    def core_messages(self, phone):
        """Without the gateway's own subscription to the user's registration state, which is nobody's answer."""
        seen, out = set(), []
        for row in self.core:
            if f"{phone.imsi}@" not in row["sip.msg_hdr"] or row["sip.Status-Code"].startswith("1"):
                continue
            if row["sip.CSeq"].split()[-1:] in (["SUBSCRIBE"], ["NOTIFY"]):
                continue
            outbound = (row["ip.dst"] or "") == "10.30.0.2"
            what = row["sip.Method"] or row["sip.Status-Code"]
            key = (outbound, what, row["sip.Call-ID"], row["sip.CSeq"])
            if key in seen:
                continue
            seen.add(key)
            flag = re.findall(r'integrity-protected="?(\w+)', row["sip.msg_hdr"])
            out.append(Message(int(row["frame.number"]), float(row["frame.time_epoch"]), outbound, what, ",".join(flag),
                               row["sip.msg_hdr"], row["sip.Call-ID"], row["sip.CSeq"]))
        return out

    def core_flow(self, phone):
        """What passed between gateway and home network, with the integrity indicator: '> REGISTER no; < 401; > REGISTER yes; < 200'."""
        return "; ".join(f"{'>' if m.out else '<'} {m.what} {m.set}".strip() for m in self.core_messages(phone))

    def silence_on(self, phone, serial, after):
        """Nothing came from the gateway on this set since `after`."""
        s = phone.sets[serial]
        return [r["frame.number"] for r in self.esp if r["esp.spi"] and int(r["esp.spi"], 0) in (s["spi_uc"], s["spi_us"]) and
                self.side(phone, r) is False and float(r["frame.time_epoch"]) > after]
