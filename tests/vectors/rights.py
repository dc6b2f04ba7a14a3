#!/usr/bin/env python3
"""Test vectors of rights lists, by an implementation that shares nothing with the program.

Written from docs/PROTOCOL.md, sections 1, 6.1 and 6.5, alone. This file encodes the canonical CBOR
of the few items that occur. Python 3.11 made the committed rights.json:

    python3 tests/vectors/rights.py > tests/vectors/rights.json

Each vector is an object that holds a list. `replaces` null: the founding list. All bytes are hex.
"""

import hashlib
import json

RIGHTS = 65535


def head(major: int, number: int) -> bytes:
    """The shortest head of a CBOR item (RFC 8949, section 4.2.1)."""
    if number < 24:
        return bytes([major << 5 | number])
    for width, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | width]) + number.to_bytes(size, "big")
    raise ValueError(number)


def cbor(item) -> bytes:
    """Encodes null, natural numbers, byte strings, text, lists and maps."""
    if item is None:
        return b"\xf6"
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


def digest(context: str, *parts: bytes) -> bytes:
    """SHA-256 of input(context, part, ...)."""
    return hashlib.sha256(cbor(["postern/1/" + context, *parts])).digest()


def vector(
    app: str,
    owner: bytes,
    scope: bytes,
    at_ms: int,
    salt: bytes,
    version: int,
    entries: list,
    replaces: bytes | None,
    merges: list,
) -> dict:
    time = at_ms.to_bytes(6, "big")
    named = digest("oid", owner, app.encode(), RIGHTS.to_bytes(2, "big"), scope, time, salt)
    oid = time + named[:10]
    encoded = cbor(sorted([identity, bits] for identity, bits in entries))
    attrs = {1: version, 2: encoded}
    if merges:
        attrs[3] = cbor(sorted(merges))
    object_bytes = cbor([app, RIGHTS, oid, owner, 1, salt, scope, replaces, attrs])
    return {
        "app": app,
        "owner": owner.hex(),
        "scope": scope.hex(),
        "at_ms": at_ms,
        "salt": salt.hex(),
        "version": version,
        "entries": [[identity.hex(), bits] for identity, bits in entries],
        "replaces": replaces.hex() if replaces else None,
        "merges": [merged.hex() for merged in merges],
        "oid": oid.hex(),
        "object": object_bytes.hex(),
        "digest": digest("rights", scope, version.to_bytes(8, "big"), encoded).hex(),
    }


def filled(byte: int, length: int) -> bytes:
    return bytes([byte] * length)


def main() -> None:
    owner, scope, other = filled(0xA1, 16), filled(0x5C, 16), filled(0x0B, 16)
    many = [(number.to_bytes(2, "big") + filled(0, 14), 1 + number % 3) for number in range(30)]
    seven = [filled(0xF0 - number, 32) for number in range(7)]
    lists = [
        ("messages", 1_700_000_000_000, 1, [(owner, 3)], None, []),
        ("messages", 1_700_000_000_001, 24, [(owner, 3), (other, 1)], filled(0x22, 32), []),
        ("contacts", 2**48 - 1, 2**63 - 1, [(owner, 3), *many], filled(0x22, 32), []),
        ("messages", 0, 6, [(other, 2), (owner, 3)], filled(0x22, 32), [filled(0x33, 32)]),
        ("messages", 255, 256, [(owner, 3)], None, [filled(0x44, 32), filled(0x11, 32)]),
        ("a", 65536, 65536, [(owner, 3), *many], filled(0x22, 32), seven),
    ]
    vectors = [
        vector(app, owner, scope, at_ms, filled(0xE0 + number, 8), *rest)
        for number, (app, at_ms, *rest) in enumerate(lists)
    ]
    print(",\n".join(map(json.dumps, vectors)).join(["[\n", "\n]"]))


if __name__ == "__main__":
    main()
