#!/usr/bin/env python3
"""Every form in which the keys of a registration may lie in memory, from what the core sent: memory_keys.py CAPTURE > patterns.

CAPTURE holds the packets between core and gateway: the 401s there name CK and IK. A line each: name, octets in hex (memory_scan.cpp).
  memory_keys.py --cards SEED FIRST COUNT > patterns      the same for K and OPc of subscribers by rule, numbered from FIRST
  memory_keys.py --csv SEED FIRST COUNT > subscribers.csv  those subscribers as a file for gmhome and gmue
"""
import hashlib
import hmac
import re
import struct
import sys

# ---- what implementations make of a key before they use it ----


def rotate(v: int, n: int) -> int:
    return ((v << n) | (v >> (32 - n))) & 0xFFFFFFFF


def sha1_block(block: bytes) -> bytes:
    """The state of SHA-1 after one block: what HMAC keeps of its key."""
    w = list(struct.unpack(">16I", block))
    for i in range(16, 80):
        w.append(rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1))
    start = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
    a, b, c, d, e = start
    for i in range(80):
        if i < 20:
            f, k = (b & c) | (~b & d), 0x5A827999
        elif i < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif i < 60:
            f, k = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        a, b, c, d, e = (rotate(a, 5) + f + e + k + w[i]) & 0xFFFFFFFF, a, rotate(b, 30), c, d
    return struct.pack(">5I", *((x + y) & 0xFFFFFFFF for x, y in zip(start, (a, b, c, d, e))))


MD5_SHIFTS = [7, 12, 17, 22] * 4 + [5, 9, 14, 20] * 4 + [4, 11, 16, 23] * 4 + [6, 10, 15, 21] * 4
MD5_SINES = [int(abs(__import__("math").sin(i + 1)) * 2 ** 32) & 0xFFFFFFFF for i in range(64)]


def md5_block(block: bytes) -> bytes:
    m = struct.unpack("<16I", block)
    start = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
    a, b, c, d = start
    for i in range(64):
        if i < 16:
            f, g = (b & c) | (~b & d), i
        elif i < 32:
            f, g = (d & b) | (~d & c), (5 * i + 1) % 16
        elif i < 48:
            f, g = b ^ c ^ d, (3 * i + 5) % 16
        else:
            f, g = c ^ (b | ~d), (7 * i) % 16
        f = (f + a + MD5_SINES[i] + m[g]) & 0xFFFFFFFF
        a, d, c, b = d, c, b, (b + rotate(f, MD5_SHIFTS[i])) & 0xFFFFFFFF
    return struct.pack("<4I", *((x + y) & 0xFFFFFFFF for x, y in zip(start, (a, b, c, d))))


def xtime(v: int) -> int:
    return ((v << 1) ^ (0x1B if v & 0x80 else 0)) & 0xFF


def times(a: int, b: int) -> int:
    r = 0
    while b:
        r ^= a if b & 1 else 0
        a, b = xtime(a), b >> 1
    return r


def make_sbox() -> bytes:
    inverse = {a: b for a in range(1, 256) for b in range(1, 256) if times(a, b) == 1}
    box = bytearray()
    for v in range(256):
        x = inverse.get(v, 0)
        r = 0x63
        for n in range(5):
            r ^= ((x << n) | (x >> (8 - n))) & 0xFF
        box.append(r)
    return bytes(box)


SBOX = make_sbox()


def aes_round_keys(key: bytes) -> list[bytes]:
    w = [key[i:i + 4] for i in range(0, 16, 4)]
    rcon = 1
    for i in range(4, 44):
        t = w[-1]
        if i % 4 == 0:
            t = bytes(SBOX[b] for b in t[1:] + t[:1])
            t = bytes([t[0] ^ rcon]) + t[1:]
            rcon = xtime(rcon)
        w.append(bytes(a ^ b for a, b in zip(w[-4], t)))
    return [b"".join(w[i:i + 4]) for i in range(0, 44, 4)]


def inverse_mix(key: bytes) -> bytes:
    """A round key as decryption has it."""
    out = bytearray()
    for c in range(0, 16, 4):
        k = key[c:c + 4]
        for r in range(4):
            out.append(times(k[r], 14) ^ times(k[(r + 1) % 4], 11) ^ times(k[(r + 2) % 4], 13) ^ times(k[(r + 3) % 4], 9))
    return bytes(out)


def aes_encrypt(keys: list[bytes], block: bytes) -> bytes:
    s = bytes(a ^ b for a, b in zip(block, keys[0]))
    for n in range(1, 11):
        s = bytes(SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16))
        if n < 10:
            m = bytearray()
            for c in range(0, 16, 4):
                k = s[c:c + 4]
                for r in range(4):
                    m.append(times(k[r], 2) ^ times(k[(r + 1) % 4], 3) ^ k[(r + 2) % 4] ^ k[(r + 3) % 4])
            s = bytes(m)
        s = bytes(a ^ b for a, b in zip(s, keys[n]))
    return s


def swapped(octets: bytes) -> bytes:
    return b"".join(octets[i:i + 4][::-1] for i in range(0, len(octets), 4))


def odd_parity(octets: bytes) -> bytes:
    return bytes((b & 0xFE) | (bin(b >> 1).count("1") % 2 ^ 1) for b in octets)


def forms(name: str, ck: bytes, ik: bytes):
    for which, key in (("ck", ck), ("ik", ik)):
        yield f"{name}-{which}", key
        yield f"{name}-{which}-hex", key.hex().encode()
        yield f"{name}-{which}-HEX", key.hex().upper().encode()
        rounds = aes_round_keys(key)
        for i in range(1, 11):
            yield f"{name}-{which}-aes-{i}", rounds[i]
            if i < 10:
                yield f"{name}-{which}-aes-inverse-{i}", inverse_mix(rounds[i])
        h = aes_encrypt(rounds, bytes(16))
        yield f"{name}-{which}-gcm-h", h
        yield f"{name}-{which}-gcm-h-reversed", h[::-1]
    yield f"{name}-des3", odd_parity(ck)
    for pad in (0x36, 0x5C):
        yield f"{name}-ik-pad-{pad:x}", bytes(b ^ pad for b in ik)
        for hash_name, block in (("sha1", sha1_block), ("md5", md5_block)):
            state = block((ik + bytes(48)).translate(bytes(b ^ pad for b in range(256))))
            yield f"{name}-{hash_name}-{pad:x}", state
            yield f"{name}-{hash_name}-{pad:x}-swapped", swapped(state)


def cards(seed: bytes, first: int, count: int):
    for n in range(first, first + count):
        imsi = f"{1010000000000 + n:015d}"
        k, opc = (hmac.new(seed, label + imsi.encode(), "sha256").digest()[:16] for label in (b"gmgate-K", b"gmgate-OPc"))
        yield n, imsi, k, opc


def card_forms(n: int, k: bytes, opc: bytes):
    for which, key in (("k", k), ("opc", opc)):
        yield f"{n}-{which}", key
        yield f"{n}-{which}-hex", key.hex().encode()
        yield f"{n}-{which}-HEX", key.hex().upper().encode()
    for i, key in enumerate(aes_round_keys(k)[1:], 1):
        yield f"{n}-k-aes-{i}", key
        if i < 10:
            yield f"{n}-k-aes-inverse-{i}", inverse_mix(key)


def self_test() -> None:
    key, text = bytes(range(16)), b"gmgate"
    inner = hashlib.sha1(bytes(b ^ 0x36 for b in key) + b"\x36" * 48 + text).digest()
    outer = hashlib.sha1(bytes(b ^ 0x5C for b in key) + b"\x5c" * 48 + inner).digest()
    assert hmac.new(key, text, "sha1").digest() == outer
    assert sha1_block(b"abc\x80" + bytes(52) + struct.pack(">Q", 24)) == hashlib.sha1(b"abc").digest()
    assert md5_block(b"abc\x80" + bytes(52) + struct.pack("<Q", 24)) == hashlib.md5(b"abc").digest()
    rounds = aes_round_keys(bytes(range(16)))  # FIPS 197 C.1
    assert aes_encrypt(rounds, bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def main() -> int:
    self_test()
    if sys.argv[1] in ("--cards", "--csv"):
        rows = cards(bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        if sys.argv[1] == "--csv":
            print("imsi,k,opc")
        for n, imsi, k, opc in rows:
            if sys.argv[1] == "--csv":
                print(f"{imsi},{k.hex()},{opc.hex()}")
            else:
                for name, octets in card_forms(n, k, opc):
                    print(name, octets.hex())
        return 0
    with open(sys.argv[1], "rb") as f:
        capture = f.read()
    pairs = set()
    for m in re.finditer(rb'[ci]k="([0-9a-fA-F]{32})",\s*[ci]k="([0-9a-fA-F]{32})"', capture):
        first, second = bytes.fromhex(m[1].decode()), bytes.fromhex(m[2].decode())
        pairs.add((first, second) if m[0].startswith(b"ck") else (second, first))
    for n, (ck, ik) in enumerate(sorted(pairs)):
        for name, octets in forms(f"{n}", ck, ik):
            print(name, octets.hex())
    print(f"{len(pairs)} key pairs", file=sys.stderr)
    return 0 if pairs else 1


if __name__ == "__main__":
    sys.exit(main())
