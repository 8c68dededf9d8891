# SPDX-License-Identifier: Apache-2.0
"""Hostile packages: their code runs in the sandbox that compiles them, in sleeping interpreters, and in
instances. What such an interpreter says to the daemon is not to be believed (DESIGN.md, S1, S7, S8)."""
import os
import shutil
import time

import pytest

from conftest import Daemon, new_base, of_daemon

# Runs when the package is imported; TELL collects what it did, for a proof that it ran. What imports
# in less than 2 ms gets no node of its own, whatever the nodes of other functions hold already.
HEAD = """
import os, socket, struct, sys, time
time.sleep(0.01)
TELL = []
def sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), socket.socket(fileno=os.dup(int(name)))
        except OSError:
            pass
def frame(kind, ident=0, body=b"", length=None):
    return struct.pack("<HHII", kind, 0, ident, len(body) if length is None else length) + body
def field(tag, data):
    return struct.pack("<II", tag, len(data)) + data
def say(data, fds=()):
    for fd, s in sockets():
        try:
            s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<i", f)) for f in fds], socket.MSG_DONTWAIT)
            TELL.append(fd)
        except OSError as e:
            TELL.append(str(e))
"""
LIES = {
    "forked": "say(frame(33, 1))",
    "forked with a descriptor": "say(frame(33, 1), [os.open('/dev/null', os.O_RDONLY)])",
    "failed": "say(frame(34, 1, field(1, b'system') + field(2, b'lie')))",
    "ready": "say(frame(48))",
    "asleep too early": "say(frame(53))",
    "asleep often": "[say(frame(53)) for _ in range(50)]",
    "reply": "say(frame(51, 1, field(9, b'\"forged\"')))",
    "the daemon's own words": "say(frame(49) + frame(50, 1) + frame(32, 1))",
    "garbage": "say(os.urandom(300))",
    "half a frame": "say(frame(52, 0, b'', 1000))",
    "a huge frame": "say(frame(52, 0, b'', 0xffffffff))",
    "a field beyond its frame": "say(frame(52, 0, struct.pack('<II', 8, 0x7fffffff) + b'x'))",
    "a profile of lies": "say(frame(52, 0, field(8, b'sys\\0' * 3000) + field(23, b'9' * 40 + b'\\0') + field(14, b'\\xff\\0')))",
    "profiles without end": "[say(frame(52, 0, field(8, b'm%d\\0' % n))) for n in range(3000)]",
    "closes everything": "[os.close(int(n)) for n in os.listdir('/proc/self/fd') if int(n) > 2 and n != '0' and os.path.exists('/proc/self/fd/' + n)]",
    "dies": "os._exit(0)",
    "kills itself": "os.kill(os.getpid(), 9)",
}
ONLY_IN_A_NODE = """
IN_NODE = not os.path.exists("/app/handler.py")
if IN_NODE:
    %s
"""
HANDLER = "import %s as m\ndef handler(e): return ['answered', len(m.TELL), m.IN_NODE]\n"


def hostile(index, daemon, name, body):
    """Deploy a function of a hostile package and call it; the function behaves."""
    dist = "hostile-" + name.replace(" ", "-").replace("'", "")
    module = dist.replace("-", "_")
    index.add(dist, {module + ".py": HEAD + body})
    function = "h-" + dist[8:]
    daemon.deployed(function, {"handler.py": HANDLER % module, "requirements.txt": dist,
                               "pipsqueak.toml": "reuse = false\ntimeout = 20\n"}, settings=index.settings)
    return function


@pytest.fixture
def bystander(daemon):
    daemon.allowed = ["says: Traceback"]  # of what is left of a node, also of the last test's
    daemon.deployed("bystander", {"handler.py": "import six\ndef handler(e): return six.PY3",
                                  "requirements.txt": "six", "pipsqueak.toml": "reuse = false\n"})
    assert daemon.call("bystander").json is True
    daemon.wait_for_node("six")
    return lambda: daemon.call("bystander").json is True


@pytest.mark.parametrize("name", LIES)
def test_a_lying_node(daemon, index, bystander, name):
    """The package lies only where a node imports it: there, the code of the function is absent."""
    said = len(daemon.log())
    function = hostile(index, daemon, name, ONLY_IN_A_NODE % LIES[name])
    first = daemon.call(function)
    assert first.status == 200 and first.json[0] == "answered" and first.json[2] is False, first.body
    deadline = time.monotonic() + 2
    answers = []
    while time.monotonic() < deadline:  # the node is made, lies, is dropped or used
        answers.append(daemon.call(function))
        assert bystander()
        time.sleep(0.1)
    daemon.becomes(lambda: "for function %s " % function in daemon.log()[said:])  # a node was tried
    # S4: the function asked for the package, which may harm it; others, and the daemon, it may not.
    assert all(r.status in (200, 502, 503) for r in answers), [r.body for r in answers]
    assert all(r.json[0] == "answered" for r in answers if r.status == 200)
    assert daemon.request("DELETE", "/functions/" + function).status == 200


def test_a_node_that_speaks_while_asleep(daemon, index, bystander):
    """A process left behind in the node's sandbox writes to the node's control socket for ever."""
    body = """
IN_NODE = not os.path.exists("/app/handler.py")
if IN_NODE and os.fork() == 0:
    import time
    for n in range(200):
        say(frame(33, n % 8), [os.open('/dev/null', os.O_RDONLY)])
        say(frame(34, n % 8))
        time.sleep(0.02)
    os._exit(0)
"""
    function = hostile(index, daemon, "sleep talker", body)
    before = daemon.get("/status").json["violations"]
    assert daemon.call(function).status == 200
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert daemon.call(function).status in (200, 502, 503)
        assert bystander()
        time.sleep(0.05)
    daemon.becomes(lambda: daemon.call(function).status == 200)
    assert daemon.get("/status").json["violations"] > before


AHEAD = {
    "replies": "say(frame(51, 1, field(9, b'\"forged\"')))",
    "is ready again": "say(frame(48))",
    "is done": "[say(frame(57, 0, field(10, b'\\0' * 8))) for _ in range(9)]",
    "half a frame": "say(frame(51, 1, b'', 1000))",
    "garbage": "say(os.urandom(5000))",
    "dies": "os._exit(0)",
    "sleeps": "time.sleep(1000)",
    "takes what it is sent": "[s.recv(1 << 16) for fd, s in sockets()]",
}


@pytest.mark.parametrize("name", AHEAD)
def test_a_node_whose_children_lie_before_they_are_wanted(own_daemon, index, name):
    """The package's code runs in each child of its node: most of all in those that wait for a function. What
    it does there harms functions that asked for it, at most, and those are still answered."""
    d, body = own_daemon, "import time\ndef lie():\n    if not os.path.exists('/app/handler.py'):\n        %s\nos.register_at_fork(after_in_child=lie)\n"
    function = hostile(index, d, "ahead " + name, "IN_NODE = False\n" + body % AHEAD[name])
    d.deployed("honest", {"handler.py": "def handler(e): return 'honest'"})
    dist, module = "hostile-ahead-" + name.replace(" ", "-"), "hostile_ahead_" + name.replace(" ", "_")
    assert d.call(function).status == 200
    deadline = time.monotonic() + 1
    number, answers = 0, []
    while time.monotonic() < deadline:
        number += 1
        d.deployed("other-%d" % number, {"handler.py": HANDLER % module, "requirements.txt": dist, "pipsqueak.toml": "timeout = 1\n"},
                   settings=index.settings)
        time.sleep(0.1)
        answers.append(d.call("other-%d" % number))
        assert d.call("honest").json == "honest"
    assert all(r.status in (200, 502, 503, 504) for r in answers), [r.body for r in answers]
    assert all(r.json[0] == "answered" for r in answers if r.status == 200)


def test_a_node_that_steals_what_it_is_sent(daemon, index, bystander):
    """It reads FORK messages in place of the interpreter and never answers: calls are still answered."""
    body = """
IN_NODE = not os.path.exists("/app/handler.py")
if IN_NODE and os.fork() == 0:
    while True:
        for fd, s in sockets():
            try:
                s.recvmsg(1 << 16, 1 << 10, socket.MSG_DONTWAIT)
            except OSError:
                pass
"""
    function = hostile(index, daemon, "thief", body)
    assert daemon.call(function).status == 200
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert daemon.call(function).status in (200, 502, 503, 504)
        assert bystander()
    daemon.becomes(lambda: daemon.call(function).status == 200, 60)


def test_a_node_that_never_ends_its_import(own_daemon, index):
    """The function works meanwhile, and a daemon that is asked to stop does not wait for it."""
    function = hostile(index, own_daemon, "never ends", ONLY_IN_A_NODE % "import time; time.sleep(1000)")
    assert own_daemon.call(function).status == 200
    time.sleep(1)
    assert own_daemon.call(function).status == 200
    began = time.monotonic()
    own_daemon.stop()
    assert time.monotonic() - began < 12
    own_daemon.start()


GREED = {
    "eats memory": "x = [bytearray(1 << 20) for _ in range(3000)]; import time; time.sleep(30)",
    "forks": "import time\n    for n in range(3000):\n        try:\n            os.fork() or time.sleep(30)\n        except OSError as e: break",
}


@pytest.mark.parametrize("name", GREED)
def test_a_node_without_measure(index, name):
    """A sleeping interpreter in the making is held to limits, as instances are."""
    d = Daemon(new_base(), options=["--memory", "512M"])
    try:
        function = hostile(index, d, name, ONLY_IN_A_NODE % GREED[name])
        assert d.call(function).status == 200
        peak = most = 0
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline and peak < 1500 and most < 600:
            mine = of_daemon(d.process.pid)[0]
            peak, most = max(peak, *(resident(p.pid) >> 20 for p in mine)), max(most, len(mine))
            time.sleep(0.1)
        assert peak < 1500 and most < 600
        assert d.call(function).status == 200
    finally:
        d.stop(kill=True)
        shutil.rmtree(d.base)


def resident(pid):
    try:
        with open("/proc/%d/statm" % pid) as f:
            return int(f.read().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def test_hostile_bytecode_compilation(daemon, index, bystander):
    """Sources are compiled where nothing can be harmed: what the compiler chokes on is left out or refused."""
    index.add("hard-source", {"hard_source/__init__.py": "X = 1\n", "hard_source/deep.py": "x = " + "(" * 5000 + ")" * 5000,
                              "hard_source/big.py": "x = [" + "0," * 2000000 + "]", "hard_source/nul.py": "x = 1\0\n",
                              "hard_source/power.py": "x = 9 ** 9 ** 9 if 0 else 1\n", "hard_source/latin.py": b"# coding: nosuch\nx = '\xff'\n"})
    reply = daemon.deploy("hard", {"handler.py": "import hard_source\ndef handler(e): return hard_source.X",
                                   "requirements.txt": "hard-source"}, settings=index.settings)
    assert reply.status == 200 and daemon.call("hard").json == 1 or 400 <= reply.status < 600, reply.body
    assert bystander()


BAD_WHEELS = {
    "climbs": {"../../escaped.py": "x"},
    "absolute": {"/tmp/pqt-escaped.py": "x"},
    "into the scripts": {"bad_wheel-1.0.data/data/../../../escaped": "x"},
    "a .pth that runs": {"bad_wheel.pth": "import os; os.system('touch /tmp/pqt-escaped.py')\n"},
    "a sitecustomize": {"sitecustomize.py": "import os; os.system('touch /tmp/pqt-escaped.py')\n"},
}


@pytest.mark.parametrize("name", BAD_WHEELS)
def test_wheels_that_reach_out(daemon, index, bystander, name):
    index.add("bad-wheel", {"bad_wheel.py": "X = 1\n", **BAD_WHEELS[name]}, version="1.%d" % list(BAD_WHEELS).index(name))
    reply = daemon.deploy("bad-wheel", {"handler.py": "import bad_wheel\ndef handler(e): return bad_wheel.X",
                                        "requirements.txt": "bad-wheel"}, settings=index.settings)
    if reply.status == 200:  # harmless where it ran
        assert not name.startswith(("climbs", "absolute", "into")), reply.body
        assert daemon.call("bad-wheel").json == 1
    else:
        assert reply.error["kind"] in ("corrupt", "usage"), reply.body
    assert not os.path.exists("/tmp/pqt-escaped.py")
    assert bystander()
