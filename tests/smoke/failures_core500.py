#!/usr/bin/env python3
"""A core that answers every request with 500.

    failures_core500.py ADDRESS
"""
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 5060))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65535)
    lines = data.decode(errors="replace").split("\r\n")
    keep = [line for line in lines[1:] if line.split(":", 1)[0].lower() in ("via", "v", "from", "f", "to", "t", "call-id", "i", "cseq")]
    s.sendto(("\r\n".join(["SIP/2.0 500 Server Internal Error", *keep, "Content-Length: 0", "", ""])).encode(), peer)
