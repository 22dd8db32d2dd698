#!/usr/bin/env python3
"""tell.py SOCKET WORD…: says a command to hss.py, and its answer; exit status 0 if that is ok."""
import os
import socket
import sys

own = f"{sys.argv[1]}.{os.getpid()}"
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.settimeout(20)
    s.bind(own)
    try:
        s.sendto(" ".join(sys.argv[2:]).encode(), sys.argv[1])
        answer = s.recv(1024).decode()
    except OSError as e:
        answer = f"error: {e}"
    finally:
        os.unlink(own)
print(answer)
sys.exit(answer != "ok")
