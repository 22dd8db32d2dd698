#!/usr/bin/env python3
"""One test a rule of TS 33.203 6.1.2, 6.1.3, 7.3, 7.4, over the wire; failures_test starts the laboratory and calls this.

A rule is a generator: what it does with its phones, `yield`, and what the witness (tshark) must then have seen. All rules of a part run
beside each other, each with phones of its own; the captures are read once, when all are done. In flows, 'clear' or the number of the
set of SAs (the phone's first is 1) follows each message: '> REGISTER clear; < 401 clear; > REGISTER 1; < 200 1'.
"""
import argparse
import concurrent.futures
import os
import signal
import subprocess
import sys
import time
import traceback

from failures_lab import Failed, Lab, Phone, Witness, until

RULES = {"main": [], "small": [], "full": []}
GOOD = "> REGISTER clear; < 401 clear; > REGISTER 1; < 200 1"
GOOD_CORE = "> REGISTER no; < 401; > REGISTER yes; < 200"


def rule(name, proved, part="main"):
    def add(function):
        RULES[part].append((name, proved, function))
        return function
    return add


class Test:
    def __init__(self, lab, name, proved):
        self.lab, self.name, self.proved, self.checks, self.phones, self.w = lab, name, proved, 0, [], None
        self.failed = []

    def phone(self, **options):
        p = Phone(self.lab, self.name, **options)
        self.phones.append(p)
        return p

    def expect(self, condition, text):
        self.checks += 1
        if not condition:
            self.failed.append(text)
        return condition

    def equal(self, got, wanted, text):
        return self.expect(got == wanted, f"{text}: expected '{wanted}', got '{got}'")

    def outcome(self, reply, outcome, status=None, on=None):
        """on: serial of the set the answer came on, 0 for clear."""
        self.equal(reply["outcome"], outcome, f"'{reply['did']}' ({reply['text']})")
        if status is not None:
            self.equal(reply["status"], status, f"'{reply['did']}', status")
        if on is not None:
            self.equal(reply["set"], on, f"'{reply['did']}', set of the answer")
        return reply

    def registered(self, phone, line="register"):
        r = self.outcome(phone.do(line), "registered", 200)
        phone.status()
        return r

    def works(self, phone, serial=0):
        self.outcome(phone.do(f"request set={serial}" if serial else "request"), "answered", 200, serial or None)

    def gone(self, phone, serial, at_once=False):
        """No longer in the database, and ESP on it is dropped by the packet layer as of an unknown SPI, without a word."""
        if at_once:
            self.equal(phone.state(serial), None, f"set {serial} in the database")
        else:
            self.expect(until(lambda: phone.state(serial) is None), f"set {serial} is still in the database")
        self.dropped(phone, serial, "unknown_spi")

    def dropped(self, phone, serial, reason, forged=False):
        phone.set(serial)
        packets = 3
        with self.lab.probing:
            before = self.lab.drops(reason)
            at = time.time()
            phone.do(f"probe set={serial} count={packets}{' forged' if forged else ''}")
            counted = until(lambda: self.lab.drops(reason) >= before + packets, 20)
        self.expect(counted, f"packets on set {serial} are not counted as {reason}")
        self.probes = getattr(self, "probes", []) + [(phone, serial, at)]

    def trace_has(self, phone, *words):
        text = until(lambda: all(w in self.lab.trace(phone.impi) for w in words) and self.lab.trace(phone.impi), 10) \
            or self.lab.trace(phone.impi)
        for w in words:
            self.expect(w in text, f"trace lacks {w}")

    def put(self, phone, what, count):
        """Cx-Put of this kind, so often; the lines are written before the answer to the phone, but for time-outs."""
        def lines():
            return [line for line in self.lab.cx(phone, "Put") if what in line]
        if count:
            until(lambda: len(lines()) >= count)
        self.equal(len(lines()), count, f"Cx-Put {what}")
        return lines()

    def flow(self, phone, wanted):
        return self.equal(self.w.flow(phone), wanted, f"on Gm, {phone.addresses[0]}")

    def core(self, phone, wanted):
        return self.equal(self.w.core_flow(phone), wanted, f"on the core's side, {phone.imsi}")

    def sealed(self):
        """For every test: nothing came back on removed sets, no answer but to what was asked, and the phones saw no rule broken."""
        for phone, serial, at in getattr(self, "probes", []):
            if phone.sets[serial]["state"] == "gone":
                self.equal(self.w.silence_on(phone, serial, at), [], f"frames from the gateway on removed set {serial}")
        for phone in self.phones:
            self.equal(getattr(phone, "violations", []), [], f"rules phone {phone.number} saw broken")
            flow = self.w.flow(phone)
            self.expect("unknown" not in flow, f"SIP on SAs phone {phone.number} does not have: {flow}")
            for m in self.w.messages(phone):
                if m.set == "clear" and m.what not in ("REGISTER", "400", "401", "403", "421", "494", "500", "503", "504"):
                    self.expect(False, f"frame {m.frame}: {m.what} in clear")


# ---- C: failures

@rule("C1", "wrong IK: SM7 dropped in the packet layer, SIP never sees it; a forged packet does not end the procedure, the time-out does")
def c1(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    before = t.lab.drops("integrity")
    t.outcome(a.do("register wrong-ik"), "no answer")
    t.expect(until(lambda: t.lab.drops("integrity") > before), "the packet layer does not count the forged SM7")
    t.trace_has(a, "integrity_failure")
    t.outcome(b.do("register hold"), "challenged", 401, 0)
    t.dropped(b, 1, "integrity", forged=True)
    t.equal(b.state(1), "registration", "the set after forged packets")
    t.outcome(b.do("answer"), "registered", 200, 1)
    t.gone(a, 1)
    t.trace_has(a, "authentication_timeout")
    yield
    t.core(a, "> REGISTER no; < 401")
    t.flow(b, GOOD)


@rule("C2", "wrong RES, SM1 in clear: 403 on the new SAs; both sides delete them")
def c2(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    for p in (a, b):
        t.outcome(p.do("register wrong-res"), "refused", 403, 1)
        t.put(p, "AUTHENTICATION_FAILURE", 1)
        t.trace_has(p, "authentication_failed")
    for p in (a, b):
        t.gone(p, 1)
    yield
    for p in (a, b):
        t.flow(p, "> REGISTER clear; < 401 clear; > REGISTER 1; < 403 1")
        t.core(p, "> REGISTER no; < 401; > REGISTER yes; < 403")


@rule("C3", "MAC failure: new SAs deleted on receipt; 403 the way SM1 came, no security parameter in it")
def c3(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    t.outcome(a.do("register mac-failure"), "refused", 403, 0)
    t.equal(t.lab.sets(a.impi), [], "sets when the 403 is there")
    t.gone(a, 1, at_once=True)
    t.put(a, "AUTHENTICATION_FAILURE", 1)
    t.trace_has(a, "network_authentication_failed")
    t.registered(b)
    t.outcome(b.do("register mac-failure"), "refused", 403, 1)
    t.equal(len(t.lab.sets(b.impi)), 1, "sets when the 403 is there")
    t.gone(b, 2, at_once=True)
    t.works(b, 1)
    t.put(b, "AUTHENTICATION_FAILURE", 0)
    yield
    t.flow(a, "> REGISTER clear; < 401 clear; > REGISTER clear; < 403 clear")
    t.core(a, "> REGISTER no; < 401; > REGISTER no; < 403")
    t.flow(b, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 1; < 403 1; > OPTIONS 1; < 200 1")
    for p in (a, b):
        for m in t.w.messages(p):
            if m.what == "403":
                t.expect(not any(h in m.headers for h in ("Security-Server", "WWW-Authenticate", "nonce")),
                         f"frame {m.frame}: security parameters in the 403")


@rule("C4", "sync failure: new SAs deleted on receipt, fresh vectors (RAND, AUTS on Cx), the second round completes")
def c4(t):
    a, b = t.phone(v6=True), t.phone(tcp=True)
    t.registered(b)
    for p, sets in ((a, 2), (b, 3)):
        r = t.registered(p, "register sync-failure")
        t.equal(r["challenges"], 2, "challenges")
        t.equal(sum("with RAND, AUTS" in line for line in t.lab.cx(p, "Av-Req")), 1, "Cx-Av-Req with RAND and AUTS")
        t.trace_has(p, "synchronisation_failure")
        t.gone(p, sets - 1, at_once=True)
        t.works(p, sets)
    yield
    t.flow(a, "> REGISTER clear; < 401 clear; > REGISTER clear; < 401 clear; > REGISTER 2; < 200 2; > OPTIONS 2; < 200 2")
    t.flow(b, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 1; < 401 1; > REGISTER 3; < 200 3; > OPTIONS 3; < 200 3")


@rule("C5", "no SM7: everything goes at reg-await-auth, a late SM7 meets nothing; no reply to SM7: the phone starts again, on its old SAs")
def c5(t):
    a, b, c = t.phone(v6=True), t.phone(timeout=2), t.phone(tcp=True, timeout=2)
    t.outcome(a.do("register hold"), "challenged", 401, 0)
    t.equal(a.state(1), "registration", "the set that waits for SM7")
    # No reply to SM7: in clear the first time, under the earlier success the second.
    for p, on in ((b, 0), (c, 0)):
        t.outcome(p.do("register hold"), "challenged", 401, on)
        t.equal(t.outcome(p.do("answer lost"), "registered", 200)["restarts"], 1, "times it started again")
    t.outcome(b.do("register hold"), "challenged", 401, 2)
    t.equal(t.outcome(b.do("answer lost"), "registered", 200)["restarts"], 1, "times it started again")
    t.works(b)
    t.expect(until(lambda: a.state(1) is None), "the set of the silent phone is still there")
    t.trace_has(a, "authentication_timeout")
    t.put(a, "AUTHENTICATION_TIMEOUT", 1)
    t.equal(t.lab.sets(a.impi), [], "what is kept of it")
    t.gone(a, 1, at_once=True)
    t.equal(t.outcome(a.do("answer"), "registered")["restarts"], 1, "the late SM7: unanswered, begun again")
    yield
    t.flow(a, "> REGISTER clear; < 401 clear; > REGISTER 1; > REGISTER clear; < 401 clear; > REGISTER 2; < 200 2")
    t.core(a, "> REGISTER no; < 401; " + GOOD_CORE)
    t.expect(t.w.flow(b).startswith("> REGISTER clear; < 401 clear; > REGISTER 1; < 200 1; > REGISTER clear; < 401 clear; > REGISTER 2; "
                                    "< 200 2; > REGISTER 2; < 401 2; > REGISTER 3; < 200 3; > REGISTER 2; < 401 2; > REGISTER 4; < 200 4"),
             f"on Gm: {t.w.flow(b)}")


@rule("C6", "421, 494, 400 as SM1 came, in clear or on the old SAs; nothing forwarded, nothing allocated")
def c6(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    t.registered(b)
    for kind, status in (("no-security-client", 421), ("bad-proposal", 494), ("malformed-client", 400)):
        t.outcome(a.do("register " + kind), "refused", status, 0)
        t.outcome(b.do("register " + kind), "refused", status, 1)
        t.equal(t.lab.sets(a.impi), [], f"sets after {status}")
        t.equal(len(t.lab.sets(b.impi)), 1, f"sets of the registered phone after {status}")
    t.trace_has(a, "sec_agree_missing", "no_common_algorithm", "security_client_malformed")
    t.works(b, 1)
    yield
    t.core(a, "")
    t.flow(a, "> REGISTER clear; < 421 clear; > REGISTER clear; < 494 clear; > REGISTER clear; < 400 clear")
    t.core(b, GOOD_CORE + "; > OPTIONS; < 200")
    t.flow(b, GOOD + "; > REGISTER 1; < 421 1; > REGISTER 1; < 494 1; > REGISTER 1; < 400 1; > OPTIONS 1; < 200 1")
    for m in t.w.messages(a):
        if m.what == "421":
            t.expect("Require: sec-agree" in m.headers, "421 without Require: sec-agree")
        if m.what == "494":
            t.expect("Security-Server:" in m.headers, "494 without Security-Server")


@rule("C7", "the phone abandons at SM6: our side is C5")
def c7(t):
    a = t.phone(tcp=True)
    t.outcome(a.do("register refuse-proposal"), "abandoned")
    t.expect([s["state"] for s in t.lab.sets(a.impi)] == ["registration"], "no set waits for reg-await-auth")
    t.expect(until(lambda: not t.lab.sets(a.impi)), "the set is still there")
    t.trace_has(a, "authentication_timeout")
    t.put(a, "AUTHENTICATION_TIMEOUT", 1)
    yield
    t.flow(a, "> REGISTER clear; < 401 clear")
    t.core(a, "> REGISTER no; < 401")


@rule("C8", "altered Security-Verify or -Client: nothing forwarded, 403, new SAs deleted, old ones untouched")
def c8(t):
    a, b, c = t.phone(), t.phone(v6=True), t.phone(tcp=True)
    t.outcome(a.do("register altered-verify"), "refused", 403, 1)
    t.outcome(b.do("register altered-client"), "refused", 403, 1)
    t.registered(c)
    t.outcome(c.do("register altered-verify"), "refused", 403, 1)
    t.outcome(c.do("register altered-client"), "refused", 403, 1)
    t.works(c, 1)
    t.trace_has(a, "verify_mismatch")
    t.trace_has(b, "client_mismatch")
    for p, s in ((a, 1), (b, 1), (c, 2), (c, 3)):
        t.gone(p, s)
    t.equal(c.state(1), "established", "the old set")
    yield
    for p in (a, b):
        t.flow(p, "> REGISTER clear; < 401 clear; > REGISTER 1; < 403 1")
        t.core(p, "> REGISTER no; < 401")
    t.flow(c, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 2; < 403 1; > REGISTER 1; < 401 1; > REGISTER 3; < 403 1; > OPTIONS 1; < 200 1")
    t.core(c, GOOD_CORE + "; > REGISTER yes; < 401; > REGISTER yes; < 401; > OPTIONS; < 200")


@rule("C9", "Cx-Put clears the S-CSCF name where nothing was registered; registered users stay so, whatever fails")
def c9(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    t.outcome(a.do("register wrong-res"), "refused", 403)
    t.put(a, "AUTHENTICATION_FAILURE", 1)
    t.outcome(a.do("register mac-failure"), "refused", 403)
    t.put(a, "AUTHENTICATION_FAILURE", 2)
    t.outcome(a.do("register silent-after-sm6"), "abandoned")
    t.registered(b)
    for kind in ("wrong-res", "mac-failure", "silent-after-sm6"):
        b.do("register " + kind)
    puts = t.put(a, "AUTHENTICATION_TIMEOUT", 1)
    t.expect(until(lambda: len(t.lab.sets(b.impi)) == 1), "the failed sets of the registered phone are still there")
    t.trace_has(b, "authentication_timeout")
    # Its S-CSCF's timer has run as well: the phone that was challenged before it is through.
    for what in ("AUTHENTICATION_FAILURE", "AUTHENTICATION_TIMEOUT"):
        t.put(b, what, 0)
    t.expect(t.lab.ctl("show", b.impu).startswith("ok"), "the registered user is no longer registered")
    t.expect(t.lab.ctl("show", a.impu).startswith("error"), "the other one is registered")
    t.equal(t.lab.ctl("options", b.impu), "200 OK", "a request of the network reaches it")
    t.works(b, 1)
    # The trace says what the HSS held before and after: no longer registered, nor pending.
    for line in puts:
        if "; flag " in line:
            after = line.split("; flag ", 1)[1].split(" → ")[-1]
            t.expect(not after.startswith("registered") and "pending" not in after, f"the flag afterwards: '{line}'")
    yield
    t.core(a, "> REGISTER no; < 401; > REGISTER yes; < 403; > REGISTER no; < 401; > REGISTER no; < 403; > REGISTER no; < 401")


@rule("C10", "a new challenge voids the earlier one at the S-CSCF: its answer is refused; the next attempt succeeds")
def c10(t):
    a = t.phone()
    t.outcome(a.do("register stale-answer"), "refused", on=2)
    t.trace_has(a, "challenged_again")
    t.gone(a, 1)
    t.gone(a, 2)
    t.registered(a)
    yield
    flow = t.w.flow(a)
    t.expect(flow.startswith("> REGISTER clear; < 401 clear; > REGISTER clear; < 401 clear; > REGISTER 2; < 504 2; "), f"on Gm: {flow}")
    # The answer to a challenge this set was not made by is not vouched for (A11).
    t.core(a, "> REGISTER no; < 401; > REGISTER no; < 401; > REGISTER no; < 401; " + GOOD_CORE)


# ---- D: renewals and ends

@rule("D1", "SM1 in clear while sets exist: all old sets go at SM12")
def d1(t):
    a = t.phone(tcp=True)
    t.registered(a)
    t.registered(a)
    t.equal(sorted(s["state"] for s in t.lab.sets(a.impi)), ["established"] * 2, "sets before")
    t.outcome(a.do("register clear hold"), "challenged", 401, 0)
    t.equal(a.state(1), "established", "an old set before SM12")
    t.outcome(a.do("answer"), "registered", 200, 3)
    t.gone(a, 1, at_once=True)
    t.gone(a, 2, at_once=True)
    t.works(a, 3)
    yield
    t.flow(a, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 2; < 200 2; > REGISTER clear; < 401 clear; > REGISTER 3; < 200 3; "
           "> OPTIONS 3; < 200 3")


@rule("D2", "X stays until the new set is used; what began on X ends on X; then X goes; sets older than X go at SM12")
def d2(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    t.registered(b)
    t.registered(a)
    b.do("hold-answers on")
    a.do(f"request MESSAGE to={b.impu} park")
    t.expect(b.event("request")["held"], "the peer does not hold its answer")
    t.registered(a)
    t.equal((a.state(1), a.state(2)), ("established", "established"), "X and the new set")
    t.equal(t.lab.ctl("options", a.impu), "200 OK", "a request of the network before the switch")
    t.equal(a.event("request")["set"], 1, "it came on X")
    t.works(a, 2)
    t.equal((a.state(1), a.state(2)), ("draining", "established"), "after the switch")
    t.works(a, 1)
    t.equal(t.lab.ctl("options", a.impu), "200 OK", "a request of the network after the switch")
    t.equal(a.event("request")["set"], 2, "it came on the new set")
    b.do("answer-held")
    answer = a.event("parked-answer")
    t.equal((answer["status"], answer["set"]), (200, 1), "the answer to what began on X")
    t.gone(a, 1)
    t.equal(a.state(2), "established", "the new set")
    # 2 becomes X for 3, 3 for 4: at SM12 of 4 the set 2 goes.
    t.registered(a)
    t.registered(a)
    t.gone(a, 2, at_once=True)
    t.equal((a.state(3), a.state(4)), ("established", "established"), "X and the new set")
    yield
    flow = t.w.flow(a)
    t.expect("> MESSAGE 1; > REGISTER 1; < 401 1; > REGISTER 2; < 200 2; < OPTIONS 1; > 200 1; > OPTIONS 2; < 200 2; > OPTIONS 1; < 200 1; "
             "< OPTIONS 2; > 200 2; < 200 1; > REGISTER 2" in flow, f"on Gm: {flow}")


@rule("D3", "200 without a challenge: the lifetime of the set in use grows, never shrinks; no new SAs")
def d3(t):
    a = t.phone(v6=True)
    t.registered(a, "register expires=600")
    t.equal(t.lab.ctl("rechallenge", a.impu, "never"), "ok", "gmhome: no more challenges for this one")
    life = lambda: t.lab.sets(a.impi)[0]["expires_in_seconds"]  # noqa: E731
    t.expect(life() <= 630, "the first lifetime is more than the granted time and 30 s")
    for expires, at_least in ((7200, 3600), (600, 3600)):
        r = t.outcome(a.do(f"register expires={expires}"), "registered", 200, 1)
        t.equal(r["challenges"], 0, "challenges")
        t.equal(len(t.lab.sets(a.impi)), 1, "sets")
        t.expect(life() > at_least, f"lifetime after {expires} s were granted: {life()}")
    t.works(a, 1)
    yield
    t.flow(a, GOOD + "; > REGISTER 1; < 200 1; > REGISTER 1; < 200 1; > OPTIONS 1; < 200 1")
    t.core(a, GOOD_CORE + "; > REGISTER yes; < 200; > REGISTER yes; < 200; > OPTIONS; < 200")


@rule("D4", "deregistered by the phone, by expiry or by the operator: all its SAs go, after what is said last has been delivered on them")
def d4(t):
    a, b, c = t.phone(tcp=True), t.phone(v6=True), t.phone()
    t.registered(b, "register expires=4")
    t.registered(a)
    t.registered(a)
    t.outcome(a.do("deregister"), "deregistered", 200, 2)
    for serial in (1, 2):
        t.gone(a, serial)
    t.trace_has(a, "deregistered_by_ue")
    t.gone(b, 1)
    t.trace_has(b, "expired")
    t.registered(c)
    t.equal(t.lab.gmctl("reg", "deregister", c.impi, "--reason", "smoke"), [{"impi": c.impi, "state": "leaving"}], "gmctl says")
    t.equal(t.lab.gmctl("reg", "deregister", c.impi), [], "once: nobody is registered any more")
    t.equal(c.state(1), "draining", "its set at once")
    t.equal(c.do("request")["status"], 403, "what it asks still passes, and is refused")
    t.gone(c, 1)
    t.trace_has(c, "deregistered_by_network")
    t.registered(c, "register clear")
    t.works(c, 2)
    yield
    t.flow(a, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 2; < 200 2; > REGISTER 2; < 200 2")


@rule("D5", "another address: registers in clear from it; the sets of the old one go at SM12")
def d5(t):
    a = t.phone()
    t.registered(a)
    a.do(f"move 10.20.200.{a.number & 255}")
    t.outcome(a.do("register hold"), "challenged", 401, 0)
    t.equal(a.state(1), "established", "the old address's set before SM12")
    t.outcome(a.do("answer"), "registered", 200, 2)
    t.gone(a, 1, at_once=True)
    t.works(a, 2)
    t.equal(t.lab.ctl("options", a.impu), "200 OK", "a request of the network finds it there")
    t.equal(a.event("request")["set"], 2, "on the new set")
    yield
    t.flow(a, GOOD + "; > REGISTER clear; < 401 clear; > REGISTER 2; < 200 2; > OPTIONS 2; < 200 2; < OPTIONS 2; > 200 2")


@rule("D6", "failures of a protected renewal travel on the old set; the new set goes, the old one does not")
def d6(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    for p in (a, b):
        t.registered(p)
        t.outcome(p.do("register wrong-res"), "refused", 403, 1)
        t.gone(p, 2, at_once=True)
        t.outcome(p.do("register silent-after-sm6"), "abandoned")
        t.gone(p, 3)
        t.equal(p.state(1), "established", "the old set")
        t.works(p, 1)
    yield
    for p in (a, b):
        t.flow(p, GOOD + "; > REGISTER 1; < 401 1; > REGISTER 2; < 403 1; > REGISTER 1; < 401 1; > OPTIONS 1; < 200 1")


@rule("D7", "sequence numbers near 2^32: the set is retired, never wrapped; a renewal in time keeps the phone registered")
def d7(t):
    a = t.phone()
    t.registered(a, "register near-sequence-end")
    for _ in range(10):
        if a.state(1) != "established":
            break
        t.works(a, 1)
    # Backend kernel looks at the numbers once a second.
    t.expect(until(lambda: a.state(1) == "draining"), f"the set that came near the end is {a.state(1)}")
    t.registered(a)
    t.gone(a, 1)
    t.works(a, 2)
    t.trace_has(a, "sequence_near_end")
    yield
    t.expect("> REGISTER 1; < 401 1; > REGISTER 2; < 200 2" in t.w.flow(a), f"on Gm: {t.w.flow(a)}")


# ---- the rest

@rule("B3", "a new challenge removes the registration SAs of the earlier, incomplete procedure")
def b3(t):
    a = t.phone(v6=True)
    t.outcome(a.do("register hold"), "challenged", 401, 0)
    t.equal(a.state(1), "registration", "the first set")
    t.outcome(a.do("register hold"), "challenged", 401, 0)
    t.gone(a, 1, at_once=True)
    t.equal(a.state(2), "registration", "the second set")
    t.trace_has(a, "superseded")
    t.outcome(a.do("answer"), "registered", 200, 2)
    yield
    t.flow(a, "> REGISTER clear; < 401 clear; > REGISTER clear; < 401 clear; > REGISTER 2; < 200 2")


@rule("B6", "Via that is not the source, a port_uc in use: 403, existing SAs untouched; at most three sets (six SAs a direction)")
def b6(t):
    a, b = t.phone(), t.phone(v6=True, tcp=True)
    t.registered(a)
    t.outcome(a.do("register same-port-uc"), "refused", 403, 1)
    t.outcome(a.do("register wrong-via"), "refused", 403, 1)
    t.trace_has(a, "port_in_use", "via_mismatch")
    t.works(a, 1)
    t.outcome(b.do("register wrong-via"), "refused", 403, 1)
    t.gone(b, 1)
    for _ in range(4):
        t.registered(a)
        t.outcome(a.do("register hold"), "challenged", 401)
        t.expect(len(t.lab.sets(a.impi)) <= 3, "more than six SAs a direction")
    t.outcome(a.do("answer"), "registered", 200)
    yield
    t.core(b, "> REGISTER no; < 401")
    t.expect(t.w.flow(a).startswith(GOOD + "; > REGISTER 1; < 403 1; > REGISTER 1; < 401 1; > REGISTER 2; < 403 1; > OPTIONS 1"),
             f"on Gm: {t.w.flow(a)}")


@rule("A5", "port_ps stays, port_pc changes at each renewal, neither is 5060 or 5061; the phone's port_us stays, its port_uc changes")
def a5(t):
    a = t.phone(v6=True, tcp=True)
    for _ in range(5):
        t.registered(a)
    rows = [a.sets[n] for n in range(1, 6)]
    t.equal(len({r["port_ps"] for r in rows}), 1, "different port_ps")
    t.equal(len({r["port_us"] for r in rows}), 1, "different port_us")
    for before, after in zip(rows, rows[1:]):
        t.expect(before["port_pc"] != after["port_pc"], "port_pc did not change")
        t.expect(before["port_uc"] != after["port_uc"], "port_uc did not change")
    yield
    seen = []
    for m in t.w.messages(a):
        if m.what == "401":
            seen.append(m.headers)
    t.equal(len(seen), 5, "challenges tshark read")
    for row, headers in zip(rows, seen):
        t.expect(f"port-s={row['port_ps']}" in headers and f"port-c={row['port_pc']}" in headers, "ports in Security-Server")


@rule("A11", "integrity-protected: yes only for an answer on its own set, or none on the latest one; what the phone wrote is gone")
def a11(t):
    a = t.phone(v6=True)
    t.registered(a, "register claim-integrity")
    t.registered(a)
    t.registered(a, "register on=1 claim-integrity")
    yield
    t.core(a, "> REGISTER no; < 401; > REGISTER yes; < 200; > REGISTER yes; < 401; > REGISTER yes; < 200; > REGISTER no; < 401; "
           "> REGISTER yes; < 200")
    claims = [r for r in t.w.gm if t.w.side(a, r) and "integrity-protected" in r["sip.msg_hdr"]]
    t.expect(len(claims) >= 2, "the phone's own claims are not on the wire")


@rule("S3", "a flood of SM1 from one address holds a few sets for a while; nobody registered is evicted, strangers cannot void a renewal")
def s3(t):
    a = t.phone()
    t.registered(a)
    flood = f"10.20.210.{a.number & 255}"
    sender = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failures_flood.py")
    process = subprocess.Popen(["ip", "netns", "exec", t.lab.ue, "python3", sender, flood, "10.21.0.1", t.lab.realm, a.impi],
                               stdout=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        most = max(most, len(t.lab.rows("sa.list", ip=flood)))
        t.registered(a)
        time.sleep(0.3)
    answers = process.stdout.read().split()
    t.expect(0 < most <= 8, f"sets of the flooding address: {most}")
    t.expect("503" in answers, f"the flood is not turned away: {sorted(set(answers))}")
    t.works(a)
    t.expect(until(lambda: not t.lab.rows("sa.list", ip=flood)), "sets of the flood outlive the time-out")
    t.works(a)
    yield
    t.expect("clear" not in t.w.flow(a)[len(GOOD):], "the registered phone had to fall back to clear")


# ---- a small gateway with short SIP timers: C11, C12

@rule("C11", "S-CSCF silent, unreachable, answering 500: 504 or 500 to the phone as SM1 came, SAs obey C5, nothing leaks", "small")
def c11(t):
    home = int(open(f"{t.lab.state}/gmhome.pid").read())
    a, b = t.phone(timeout=30), t.phone(v6=True, tcp=True, timeout=30)
    t.registered(b)
    t.outcome(a.do("register hold"), "challenged", 401, 0)
    os.kill(home, signal.SIGSTOP)
    try:
        for p in (a, b):
            p.tell("answer" if p is a else "register")
        t.outcome(a.reply("answer"), "refused", 504, 1)
        t.outcome(b.reply("register"), "refused", 504, 1)
        t.trace_has(a, "core_timeout")
    finally:
        os.kill(home, signal.SIGCONT)
    t.expect(until(lambda: not t.lab.sets(a.impi)), "the set outlives reg-await-auth")
    t.gone(a, 1, at_once=True)
    t.works(b, 1)
    # Unreachable, then one that answers 500.
    os.kill(home, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{home}"))
    t.outcome(a.do("register"), "refused", 504, 0)
    trouble = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failures_core500.py")
    stub = subprocess.Popen(["ip", "netns", "exec", t.lab.home, "python3", trouble, "10.30.0.2"], stdout=subprocess.PIPE)
    stub.stdout.readline()
    try:
        t.outcome(a.do("register"), "refused", 500, 0)
        t.outcome(b.do("register"), "refused", 500, 1)
        t.trace_has(a, "core_error")
    finally:
        stub.kill()
        stub.wait()
    t.equal(t.lab.sets(a.impi), [], "sets of the phone that never registered")
    t.equal(b.state(1), "established", "the registered phone's set")
    yield
    t.expect("> REGISTER 1; < 504 1; > REGISTER clear; < 504 clear; > REGISTER clear; < 500 clear" in t.w.flow(a), f"on Gm: {t.w.flow(a)}")
    t.expect("> REGISTER 1; < 504 1; > OPTIONS 1; < 200 1; > REGISTER 1; < 500 1" in t.w.flow(b), f"on Gm: {t.w.flow(b)}")


@rule("C12", "tables full: no SM6, 500 as SM1 came, nothing half installed; with room again it works", "full")
def c12(t):
    phones = [t.phone(v6=n % 2 == 1) for n in range(16)]
    for p in phones:
        p.tell("register")
    for p in phones:
        t.outcome(p.reply("register"), "registered", 200)
        p.status()
    t.equal(t.lab.in_backend(), 16, "sets in the packet layer, whose table holds 16")
    t.outcome(phones[0].do("register"), "refused", 500, 1)
    t.expect(any(w in t.lab.trace(phones[0].impi) for w in ("install_failed", "no_spi_or_port")), "the trace does not say why")
    t.expect(any(w in open(f"{t.lab.out}/gmgated.log").read() for w in ("no_spi_or_port", "install_failed")), "the log does not say why")
    t.equal(t.lab.in_backend(), 16, "sets in the packet layer afterwards")
    t.works(phones[0], 1)
    t.outcome(phones[15].do("deregister"), "deregistered", 200)
    t.gone(phones[15], 1)
    t.outcome(phones[0].do("register"), "registered", 200, 2)
    yield
    t.flow(phones[0], GOOD + "; > REGISTER 1; < 500 1; > OPTIONS 1; < 200 1; > REGISTER 1; < 401 1; > REGISTER 2; < 200 2")


# ---- running

def drive(test, function):
    steps = function(test)
    try:
        next(steps)
    except StopIteration:
        test.failed.append("the test has no witness")
    except Failed as e:
        test.failed.append(str(e))
    except Exception:  # noqa: BLE001: one rule's fault must not hide the others
        test.failed.append(traceback.format_exc().strip().splitlines()[-1])
        traceback.print_exc()
    return steps


def report(tests, how):
    for test in tests:
        print(f"{'ok' if not test.failed else 'FAILED':<7} {test.name:<5} {test.proved} ({test.checks} checks)")
        for text in test.failed:
            print(f"        {test.name}: {text}")
    print(f"        {sum(t.checks for t in tests)} checks; {how}")
    return 1 if any(t.failed for t in tests) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "state", "out", "realm", "seed", "prefix", "part"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--backend", default="dpdk")
    parser.add_argument("--patience", type=int, default=1, help="phones wait so many times longer for an answer")
    parser.add_argument("--no-witness", action="store_true", help="what the phones, the gateway and the home network say is all there is")
    parser.add_argument("--first-phone", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--stop-captures", required=True, help="bash command, run before the captures are read")
    args = parser.parse_args()
    Phone.counter = args.first_phone - 1
    lab = Lab(args)
    rules = [r for r in RULES[args.part] if not args.only or r[0] in args.only]
    tests = [Test(lab, name, proved) for name, proved, _ in rules]
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        steps = list(pool.map(drive, tests, [r[2] for r in rules]))
    # What is left in the gateway's database is what the packet layer holds: nothing has leaked into either.
    gate = Test(lab, "leaks", "what the database and the packet layer hold at the end is the same, and of nobody but registered phones")
    live = lab.rows("sa.list")
    same = until(lambda: lab.in_backend() == len(lab.rows("sa.list")), 20)
    live = lab.rows("sa.list")
    gate.expect(same, f"database {len(live)} sets, packet layer {lab.in_backend()}")
    gate.expect(until(lambda: all(s["state"] in ("established", "draining") for s in lab.rows("sa.list"))), "registration sets remain")
    for p in lab.phones:
        p.close()
    drove = time.monotonic() - began
    if args.no_witness:
        for test in tests:
            for phone in test.phones:
                test.equal(getattr(phone, "violations", []), [], f"rules phone {phone.number} saw broken")
        return report([*tests, gate], f"phones {drove:.0f} s, no witness")
    subprocess.run(["bash", "-c", args.stop_captures], check=False)
    witness = Witness(lab)
    bad = [r["frame.number"] for r in witness.esp if r["esp.icv_bad"] in ("1", "True")
           and (r["ip.src"] or r["ipv6.src"]) in ("10.21.0.1", "fd00:21::1")]
    gate.expect(not bad, f"tshark finds bad ICVs in the gateway's frames {bad[:5]}")
    keys = [r["frame.number"] for r in witness.gm if ' ck="' in r["sip.msg_hdr"] or ',ck="' in r["sip.msg_hdr"]]
    gate.expect(not keys, f"ck on Gm in frames {keys[:5]}")
    for test, step in zip(tests, steps):
        test.w = witness
        if test.failed:
            for p in test.phones[:3]:
                print(f"        {test.name}: {p.addresses[0]} on Gm: {witness.flow(p)}")
                print(f"        {test.name}: {p.imsi} towards the core: {witness.core_flow(p)}")
            continue
        try:
            next(step, None)
            test.sealed()
        except Exception:  # noqa: BLE001
            test.failed.append(traceback.format_exc().strip().splitlines()[-1])
            traceback.print_exc()
    return report([*tests, gate], f"{len(witness.gm)} SIP messages on Gm and {len(witness.core)} on the core's side read by tshark; "
                  f"phones {drove:.0f} s, witness {time.monotonic() - began - drove:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
