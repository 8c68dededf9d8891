# SPDX-License-Identifier: Apache-2.0
"""The frames of src/wire/wire.h in plain Python, for tests that run the resolver by itself.

Numbers come from src/wire/messages.h, so they cannot drift apart.
"""

import os
import re
import struct
from pathlib import Path

HEADER = struct.Struct("<HHII")
FIELD = struct.Struct("<BxxxI")
MESSAGES_H = Path(__file__).resolve().parents[3] / "src/wire/messages.h"


def _numbers():
    text = MESSAGES_H.read_text()
    start = text.index("#define WIRE_MESSAGES")
    middle = text.index("#define WIRE_TAGS")
    end = text.index("enum wire_type")
    for part, prefix in ((text[start:middle], ""), (text[middle:end], "T_")):
        for name, number in re.findall(r"\bX\((\w+), (\d+)\)", part):
            globals()[prefix + name] = int(number)


_numbers()


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def recv(fd: int):
    kind, _, number, size = HEADER.unpack(_read(fd, HEADER.size))
    body = _read(fd, size)
    fields = {}
    at = 0
    while at < size:
        tag, length = FIELD.unpack_from(body, at)
        at += FIELD.size
        fields.setdefault(tag, body[at : at + length])
        at += length
    return kind, number, fields


def _encode(value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return struct.pack("<Q", value)
    return b"".join(item.encode() + b"\0" for item in value)


def send(fd: int, kind: int, number: int, fields: dict):
    body = b"".join(
        FIELD.pack(tag, len(data)) + data
        for tag, data in ((tag, _encode(value)) for tag, value in fields.items())
    )
    data = HEADER.pack(kind, 0, number, len(body)) + body
    while data:
        data = data[os.write(fd, data) :]
