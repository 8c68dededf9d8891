# SPDX-License-Identifier: Apache-2.0
"""A corrupted zygote that speaks the protocol: it reads what the daemon asks of it, in place of the interpreter, and
answers as it likes (DESIGN.md, S7). See test_zygote_lies.py for what it says unasked."""
import os
import time

import pytest

from hostile import said
from test_import_attacks import gone, grown, steady
from test_zygote_lies import bystander  # noqa: F401

# Each runs for a request to fork: s is the control socket, ident its number, fds what came along by name.
ANSWERS = {
    "twice": "[forked(s, ident, [os.pidfd_open(os.getpid())]) for _ in range(2)]",
    "for another fork": "[forked(s, ident + n, [os.pidfd_open(os.getpid())]) for n in (1, -1, 1 << 30)]",
    "with many descriptors": "[s.sendmsg([frame(34, ident)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('<40i', *([0] * 40)))]) for _ in range(20)]",
    "with more descriptors than fit": "forked(s, ident, [0] * 200)",
    "with no descriptor": "s.send(frame(33, ident))",
    "with a directory": "forked(s, ident, [os.open('/', os.O_RDONLY)])",
    "with the cell's namespace": "forked(s, ident, [fds['ns-user']])",
    "with a dead process": "p = os.posix_spawn('/bin/true', ['true'], {}); fd = os.pidfd_open(p); os.waitpid(p, 0); forked(s, ident, [fd])",
    "with a process of its own": "p = os.fork() or time.sleep(60); forked(s, ident, [os.pidfd_open(p)])",
    "ready on the child's stream": "socket.socket(fileno=os.dup(fds['stream'])).sendall(frame(48, ident)); forked(s, ident, [os.pidfd_open(os.getpid())])",
    "a huge packet": "s.send(frame(33, ident, bytes(120000)))",
    "a broken length": "s.send(frame(34, ident, b'', 5000))",
    "an error that never ends": "s.send(frame(34, ident, field(1, b'system') + field(2, b'x' * 100000)))",
    "an error with control characters": "s.send(frame(34, ident, field(1, b'nosuch') + field(2, b'\\n2026 ALARM forged\\x1b[2J')))",
    "a reply to the call": "socket.socket(fileno=os.dup(fds['stream'])).sendall(frame(48, ident) + frame(51, 1, field(9, b'\"forged\"')))",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_to_a_fork(daemon, index, bystander, name):  # noqa: F811
    steady(daemon)
    held = daemon.descriptors()
    function, since = grown(daemon, index, "says " + name, """
def beside():
    for n, (s, ident, fds) in enumerate(forks()):
        tell('ASKED', ident, len(fds))
        try:
            %s
        except OSError as e:
            tell('COULD NOT', e)
        if n == 3: return
""" % ANSWERS[name])
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline or not said(daemon, since, "ASKED"):
        reply = daemon.call(function)
        # What the package does to those who asked for it is theirs to bear (S4), but an answer is one of theirs.
        assert reply.status in (200, 502, 503), reply.body
        assert reply.status != 200 or reply.json[0] == "answered", reply.body
        assert bystander()
        assert time.monotonic() < deadline + 20, daemon.log()[since:]
    gone(daemon, function)
    assert said(daemon, since, "COULD NOT") == []
    assert daemon.call("steady").json[0] == 2
    daemon.becomes(lambda: daemon.descriptors() <= held + 60)
    assert not any(line.startswith("2026 ALARM") for line in daemon.log()[since:].splitlines())


def test_a_node_that_floods_the_log(daemon, index, bystander):  # noqa: F811
    """What nodes print is in the daemon's own log, on the host's disk."""
    function, since = grown(daemon, index, "floods", """
def beside():
    end, lines = time.monotonic() + 1.2, b'\\n' * 65536
    tell('FLOODS')
    while time.monotonic() < end:
        try: os.write(2, lines)
        except BlockingIOError: pass
    os._exit(0)
""")
    slowest, deadline = 0, time.monotonic() + 1.5
    while time.monotonic() < deadline:
        began = time.monotonic()
        assert bystander()
        slowest = max(slowest, time.monotonic() - began)
    assert said(daemon, since, "FLOODS")
    assert slowest < 1
    assert os.stat(daemon.log_path).st_size - since < 4 << 20
    gone(daemon, function)


def test_a_node_that_floods_the_log_hides_no_other(daemon, index, bystander):  # noqa: F811
    first, since = grown(daemon, index, "floods for long", """
def beside():
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try: os.write(2, b'\\n' * 65536)
        except BlockingIOError: pass
""")
    second, _ = grown(daemon, index, "speaks", "def beside(): [(tell('SPEAKS', n), time.sleep(0.1)) for n in range(12)]\n")
    daemon.becomes(lambda: len(said(daemon, since, "SPEAKS")) == 12)
    assert "says more than is kept" in daemon.log()[since:]
    gone(daemon, first)
    gone(daemon, second)


def test_a_node_that_floods_its_control_socket(daemon, index, bystander):  # noqa: F811
    """Also what is allowed to be said while a fork is asked for is answered with the end of it."""
    function, since = grown(daemon, index, "floods control", """
def beside():
    for s, ident, fds in forks():
        tell('FLOODS')
        end = time.monotonic() + 1
        try:
            while time.monotonic() < end: s.send(frame(34, ident))
        except OSError as e:
            pass
        return
""")
    slowest, deadline = 0, time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert daemon.call(function).status in (200, 502, 503)
        began = time.monotonic()
        assert bystander()
        slowest = max(slowest, time.monotonic() - began)
    assert said(daemon, since, "FLOODS"), daemon.log()[since:]
    assert slowest < 1
    gone(daemon, function)
