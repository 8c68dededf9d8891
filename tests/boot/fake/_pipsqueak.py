# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F821  (the constants come in front)
"""A stand-in for the extension, in plain Python: os.fork() instead of a birth into a cell.

Same functions, same messages (src/wire/wire.h); the constants are put in front by harness.py, out
of src/wire/messages.h. A FORK packet here carries descriptors whose names are in FDS, and no
sandbox is entered. The child is forked twice, so that the test, a subreaper, is its parent.
"""
import os
import sys
import time

import _socket

_nothing_left = [_socket]
del sys.modules["_socket"]


def clock_us():
    return time.monotonic_ns() // 1000


def _number(n, size):
    return n.to_bytes(size, "little")


def encode(kind, ident, fields):
    body = b""
    for tag, value in fields.items():
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, int):
            value = _number(value, 8)
        elif isinstance(value, list):
            value = b"".join(v.encode("utf-8", "surrogateescape") + b"\0" for v in value)
        body += bytes([tag, 0, 0, 0]) + _number(len(value), 4) + value
    return _number(kind, 2) + b"\0\0" + _number(ident, 4) + _number(len(body), 4) + body


def decode(data):
    fields = {}
    pos = 12
    while pos < len(data):
        size = int.from_bytes(data[pos + 4:pos + 8], "little")
        fields.setdefault(data[pos], data[pos + 8:pos + 8 + size])
        pos += 8 + size
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[4:8], "little"), fields


def _write(fd, data):
    while data:
        data = data[os.write(fd, data):]


def send(fd, kind, ident, fields):
    _write(fd, encode(kind, ident, fields))


def send_packet(fd, kind, ident, fields):
    os.write(fd, encode(kind, ident, fields))


def _read(fd, size):
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError("end of link")
        data += more
    return data


def recv(fd):
    head = _read(fd, 12)
    return decode(head + _read(fd, int.from_bytes(head[8:12], "little")))


def _receive_packet(control):
    link = _nothing_left[0].socket(fileno=control)
    data, ancillary, _, _ = link.recvmsg(1 << 17, 256)
    link.detach()
    fds = []
    for _, _, numbers in ancillary:
        fds += [int.from_bytes(numbers[i:i + 4], "little") for i in range(0, len(numbers), 4)]
    return data, fds


def sleep(control, kept):
    while True:
        data, numbers = _receive_packet(control)
        if not data:
            os._exit(0)
        _, ident, fields = decode(data)
        words = fields[T_FDS].decode().split("\0")[:-1]
        fds = dict(zip(words, numbers))
        role = fields[T_ROLE].decode()
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            for fd in numbers:
                os.close(fd)
            continue
        pid = os.fork()
        if pid:
            send_packet(control, FORKED, ident, {T_PID: pid})
            os._exit(0)
        for fd, name in enumerate(("stdin", "stdout", "stderr")):
            if name in fds:
                os.dup2(fds[name], fd)
                os.close(fds[name])
        os.close(control)
        send(fds["stream"], READY, ident, {})
        return {"role": role, "stream": fds["stream"], "control": fds.get("control", -1),
                "env": b"env" in fields.get(T_FLAGS, b""), "app": b"app" in fields.get(T_FLAGS, b"")}


def getenv_names():
    return []


def atfork_cycle():
    return 0


def set_environment(inside, text):
    for name in inside:
        os.unsetenv(name)
    inside.clear()
    for pair in text.split(b"\0")[:-1]:
        name, _, value = pair.partition(b"=")
        if name:
            os.putenv(name, value)
            inside[name] = value


def immortalize(objects):
    pass


def collapse():
    pass


def done(stream, status):
    send(stream, DONE, 0, {T_STATUS: status})


def exit(code):
    os._exit(code)


def signal_exit(signo):
    import _signal

    _signal.signal(signo, _signal.SIG_DFL)
    os.kill(os.getpid(), signo)
    os._exit(128 + signo)
