"""Hostile input from a seed: messages, state records, artefacts and configurations, valid ones spoilt a little or much."""

import json
import random
import struct
import zlib

NOW_MS = 1_767_571_200_000
HOUR_MS = 3_600_000

# As JSON text, as most of them cannot be written by an encoder.
VALUES = [
    "null", "true", "false", "0", "-0", "-0.0", "1", "-1", "0.1", "1e5", "NaN", "Infinity", "-Infinity", "nan", "inf",
    "1e308", "1e309", "-1e999", "1e-999", "9007199254740993", "2147483648", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
    "18446744073709551616", "1" + "0" * 400, "-1" + "0" * 5000, "0." + "3" * 3000, "01", "1.", ".5", "+1", "0x10", "1_000",
    '""', '" "', '"0"', '"1"', '"-1"', '"1e400"', '"NaN"', '"inf"', '"1_000"', '"' + "9" * 5000 + '"', '"\\u0000"', '"a\\u001fb"',
    '"\\u001eother"', '"\\u001esource"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"' + "x" * 70_000 + '"',
    '"\u0660\u0661"', '"\u202e10.0.0.1"', '"::ffff:10.0.0.1"', '"fe80::1%eth0"', '"[::1]:53"', '"10.0.0.1:99999"', '"999.1.1.1"',
    '"../../etc/passwd"', '"${HOME}"', '"%s%n"', '"<script>"', '"\\\\x00"', "[]", "{}", "[[]]", '{"a": {"b": 1}}', "[1, 2]", "[null]",
    '"1970-01-01 00:00:00"', '"2100-01-01T00:00:00Z"', '"2099-12-31T23:59:59.999999999Z"', '"0000-00-00 00:00:00"',
    '"2026-02-30 00:00:00"', '"2026-01-05T25:61:61Z"', '"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"',
    '"2026-01-05T00:00:00+99:99"', '"1767571200"', '"1767571200000"', "1767571200", "1767571200.5", "1767571200000000",
    "1767571200000000000", "4102444800000", "4102444799999", "-62135596800000", "253402300800000",
]  # fmt: skip
_DEEP = [("[", "]"), ('{"a":', "1}"), ('[{"a":', "1}]")]
_BLOBS = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1f\x8b\x08\x00",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\x80\x04\x95",
    b"null",
]


def number_of(rng: random.Random) -> str:
    return rng.choice(VALUES)


def event(rng: random.Random, fields: dict[str, list[str]]) -> dict[str, str]:
    """An ordinary event of the fields, each as JSON text."""
    return {name: rng.choice(values) for name, values in fields.items()}


def written(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


def message(rng: random.Random, fields: dict[str, list[str]]) -> bytes | None:
    """One message: one in three is in order, the others are not, or not quite."""
    roll = rng.random()
    members = event(rng, fields)
    if roll < 0.34:
        return written(members).encode()
    if roll < 0.62:
        for _ in range(rng.choice((1, 1, 2, 5))):
            members[rng.choice([*members])] = rng.choice(VALUES)
        if rng.random() < 0.2:
            members.pop(rng.choice([*members]))
        text = written(members)
        if rng.random() < 0.1:  # a key twice: the last counts, or the first, but never both
            text = text[:-1] + f", {json.dumps(rng.choice([*members] or ['x']))}: {rng.choice(VALUES)}" + "}"
        return text.encode("utf-8", "surrogatepass")
    if roll < 0.76:
        return spoilt(rng, written(members).encode())
    if roll < 0.90:
        parts = [written(event(rng, fields)) for _ in range(rng.randrange(4))] + [
            rng.choice(VALUES) for _ in range(rng.randrange(2))
        ]
        rng.shuffle(parts)
        joined = rng.choice(("[%s]", "[%s", '{"metrics": [%s]}', '{"metrics": %s}')) % ", ".join(parts)
        lines = "\n".join(parts)
        return rng.choice((joined, lines)).encode("utf-8", "surrogatepass")
    if roll < 0.92:
        opening, closing = rng.choice(_DEEP)
        depth = rng.choice((50, 500, 1_200, 5_000, 100_000))
        body = opening * depth + (closing * depth if rng.random() < 0.5 else "")
        return (body if rng.random() < 0.5 else written({**members, rng.choice([*members]): body})).encode()
    if roll < 0.95:
        return None if rng.random() < 0.3 else rng.choice(_BLOBS)
    if roll < 0.9999:
        return rng.randbytes(rng.choice((1, 7, 64, 300)))
    return written({**members, "padding": '"' + "x" * rng.choice((1_048_000, 1_100_000, 10_000_000)) + '"'}).encode()


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few of them changed, cut, doubled, or filled with others."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            return rng.randbytes(3)
        at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 8))
        match rng.randrange(7):
            case 0:
                data = data[:at]
            case 1:
                data = data[at:]
            case 2:
                data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            case 3:
                data = data[:at] + rng.randbytes(size) + data[at + size :]
            case 4:
                data = data[:at] + data[at : at + 20] + data[at:]
            case 5:
                data = data[:at] + rng.choice(_BLOBS) + data[at:]
            case _:
                data = data[:at] + rng.choice((b"{", b"}", b"[", b"]", b",", b'"', b"\\", b":")) + data[at + 1 :]
    return data


def record_time(rng: random.Random, number: int) -> int:
    """When Kafka says that it came: nearly always a little after its event, and sometimes anything."""
    if rng.random() < 0.002:
        return rng.choice((0, -1, 4_102_444_800_000, 2**62))
    return NOW_MS + number * 50 + rng.randrange(2_000)


def value_like(rng: random.Random, value: object, depth: int = 0) -> object:
    """A structure with some part replaced by something of another type, sign or size."""
    odd = [
        None,
        True,
        -1,
        0,
        2**63 - 1,
        -(2**63),
        2**70,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\ud800",
        [],
        {},
        [[]],
        b"",
        b"\x00" * 9,
    ]
    if depth > 6 or rng.random() < 0.12:
        return rng.choice(odd)
    if isinstance(value, dict) and value:
        out = dict(value)
        key = rng.choice([*out])
        if rng.random() < 0.15:
            out.pop(key)
        elif rng.random() < 0.1:
            out[rng.choice(("", "x", "\x1eother", "0" * 300))] = rng.choice(odd)
        else:
            out[key] = value_like(rng, out[key], depth + 1)
        return out
    if isinstance(value, list | tuple) and value:
        items = list(value)
        at = rng.randrange(len(items))
        if rng.random() < 0.15:
            del items[at]
        elif rng.random() < 0.1:
            items *= 2
        else:
            items[at] = value_like(rng, items[at], depth + 1)
        return items
    return rng.choice(odd)


def framed(magic: bytes, body: bytes) -> bytes:
    """A record whose checksum is right, whatever is in it."""
    return struct.pack("<4sI", magic, zlib.crc32(body)) + body
