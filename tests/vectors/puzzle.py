#!/usr/bin/env python3
"""Test vectors of the puzzle, by an implementation that shares nothing with the program.

Written from docs/PROTOCOL.md, section 3.3, alone. This file encodes the canonical CBOR of the few
items that occur. SHA-256 is hashlib's, and Argon2id is the reference C implementation in
argon2-cffi. Python 3.11 and argon2-cffi 25.1.0 made the committed puzzle.json:

    python3 -m venv venv && venv/bin/pip install argon2-cffi==25.1.0
    venv/bin/python tests/vectors/puzzle.py > tests/vectors/puzzle.json

A cookie requires `effort` and `inner_bits`. With `extra_doublings`, a solution must meet
effort * 2^extra_doublings and inner_bits + extra_doublings. `nonce` is the smallest solution,
counted from 0. `evaluations` is the number of nonces up to it that pass the inner condition. All
bytes are hex.
"""

import hashlib
import json

from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw


def head(major: int, number: int) -> bytes:
    """The shortest head of a CBOR item (RFC 8949, section 4.2.1)."""
    if number < 24:
        return bytes([major << 5 | number])
    for width, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | width]) + number.to_bytes(size, "big")
    raise ValueError(number)


def cbor(item) -> bytes:
    """Encodes natural numbers, byte strings, text, lists and maps with text keys."""
    if isinstance(item, int):
        return head(0, item)
    if isinstance(item, bytes):
        return head(2, len(item)) + item
    if isinstance(item, str):
        text = item.encode()
        return head(3, len(text)) + text
    if isinstance(item, list):
        return head(4, len(item)) + b"".join(map(cbor, item))
    pairs = sorted((cbor(key), cbor(value)) for key, value in item.items())
    return head(5, len(pairs)) + b"".join(key + value for key, value in pairs)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def work(nonce: bytes, salt: bytes) -> bytes:
    """The work function argon2id-1m."""
    assert ARGON2_VERSION == 0x13
    return hash_secret_raw(
        secret=nonce,
        salt=salt,
        time_cost=1,
        memory_cost=1024,
        parallelism=1,
        hash_len=32,
        type=Type.ID,
        version=0x13,
    )


def target(effort: int) -> int:
    return (2**256 - 1) // effort


def zero_bits(digest: bytes) -> int:
    return 256 - int.from_bytes(digest, "big").bit_length()


def solved(
    onion: bytes,
    peer: bytes,
    sealed: bytes,
    expiry: int,
    effort: int,
    inner_bits: int,
    extra_doublings: int,
) -> dict:
    cookie = cbor(
        {
            "onion": onion,
            "effort": effort,
            "expiry": expiry,
            "algorithm": "argon2id-1m",
            "inner_bits": inner_bits,
        }
    )
    salt = sha256(cbor(["postern/1/work", cookie, sealed, onion, peer]))
    limit, bits = target(effort << extra_doublings), inner_bits + extra_doublings
    number, evaluations = 0, 0
    while True:
        nonce = number.to_bytes(16, "big")
        inner = sha256(cbor(["postern/1/inner-work", cookie, sealed, nonce]))
        if zero_bits(inner) >= bits:
            evaluations += 1
            result = work(nonce, salt)
            if int.from_bytes(result, "big") <= limit:
                break
        number += 1
    return {
        "onion": onion.hex(),
        "peer": peer.hex(),
        "sealed": sealed.hex(),
        "expiry": expiry,
        "effort": effort,
        "inner_bits": inner_bits,
        "extra_doublings": extra_doublings,
        "cookie": cookie.hex(),
        "salt": salt.hex(),
        "target": limit.to_bytes(32, "big").hex(),
        "nonce": nonce.hex(),
        "evaluations": evaluations,
        "inner": inner.hex(),
        "work": result.hex(),
    }


def bytes_from(start: int, length: int) -> bytes:
    return bytes((start + place) % 256 for place in range(length))


PUZZLES = [
    # onion, peer, sealed, expiry, effort, inner_bits, extra_doublings
    (bytes_from(0x10, 32), bytes_from(0x80, 32), bytes_from(0, 44), 0, 1, 0, 0),
    (bytes([0xAA] * 32), bytes([0xBB] * 32), bytes([0xCC] * 44), 23, 3, 4, 0),
    (bytes([1] * 32), bytes([2] * 32), bytes([3] * 44), 1700000600, 16, 6, 0),
    (bytes([1] * 32), bytes([9] * 32), bytes([3] * 44), 1700000600, 16, 6, 0),
    (bytes([9] * 32), bytes([2] * 32), bytes([3] * 44), 1700000600, 16, 6, 0),
    (bytes_from(0xF0, 32), bytes_from(0x33, 32), bytes_from(0xC0, 44), 255, 10, 8, 1),
    (bytes_from(0x21, 32), bytes_from(0x42, 32), bytes([0] * 44), 65536, 7, 0, 2),
    (bytes_from(0x77, 32), bytes_from(0x01, 32), bytes([0xFF] * 44), 4294967296, 6, 4, 3),
    (bytes_from(0x5A, 32), bytes_from(0xA5, 32), bytes_from(0x99, 44), 1800000000, 100, 8, 0),
    (bytes_from(0x5A, 32), bytes_from(0xA5, 32), bytes_from(0x9A, 44), 1800000000, 25, 4, 2),
]

NONCES_AND_SALTS = [
    (bytes_from(0, 16), bytes_from(0, 32)),
    (bytes(16), bytes(32)),
    (bytes([0xFF] * 16), bytes([0xFF] * 32)),
    (bytes(15) + b"\x01", sha256(b"")),
]

EFFORTS = [1, 2, 3, 1000, 1024, 131072, 2**40, 2**63]


def main() -> None:
    vectors = {
        "puzzles": [solved(*puzzle) for puzzle in PUZZLES],
        "works": [
            {"nonce": nonce.hex(), "salt": salt.hex(), "work": work(nonce, salt).hex()}
            for nonce, salt in NONCES_AND_SALTS
        ],
        "targets": [
            {"effort": effort, "target": target(effort).to_bytes(32, "big").hex()}
            for effort in EFFORTS
        ],
    }
    print(json.dumps(vectors, indent=1))


if __name__ == "__main__":
    main()
