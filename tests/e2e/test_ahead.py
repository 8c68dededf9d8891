# SPDX-License-Identifier: Apache-2.0
"""Children that are forked before anyone wants them (src/zygote/ahead.c): who takes one waits for no fork,
and finds everything as if it had been forked for it."""
import os
import shutil
import signal
import time

import pytest

from conftest import Daemon, new_base, of_daemon

LOOK = """
import os, resource, sys
def handler(e):
    with open("/proc/self/status") as f:
        status = dict(line.split(":", 1) for line in f)
    with open("/proc/self/mountinfo") as f:
        mounts = sorted((w[4], w[5]) for w in (line.split() for line in f) if not w[4].startswith("/proc"))
    stat = os.statvfs("/tmp")
    return {"pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ), "argv": sys.argv, "path": sys.path,
            "prefix": sys.prefix, "files": sorted(os.listdir("/app")), "mounts": mounts, "umask": os.umask(0o22),
            "fds": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1], "tmp": stat.f_blocks * stat.f_frsize,
            "status": [status[k].strip() for k in ("Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads")],
            "limits": [resource.getrlimit(n) for n in range(16) if n != resource.RLIMIT_CPU],
            "sid": os.getsid(0) == os.getpid(), "loaded": sorted(sys.modules), "stdin": os.read(0, 1).decode()}
"""


def ahead(d):
    return sum(n["ahead"] for n in d.nodes())


def wait_ahead(d, count=1):
    d.becomes(lambda: ahead(d) >= count)


def made_ready(d, toml=""):
    """A first call of any function lets the next have one."""
    d.deployed("first", {"handler.py": "def handler(e): return e\n", "pipsqueak.toml": toml})
    assert d.call("first", 1).json == 1
    wait_ahead(d)


@pytest.fixture
def own():
    d = Daemon(new_base())
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)


def is_adopted(reply):
    return reply.status == 200 and reply.stage("fork") is None and reply.start in ("cold", "fork")


def test_the_next_function_waits_for_no_fork(own):
    made_ready(own)
    for n in range(5):
        own.deployed("f%d" % n, {"handler.py": "N = %d\ndef handler(e): return [N, e]\n" % n})
        wait_ahead(own)
        reply = own.call("f%d" % n, "x")
        assert is_adopted(reply) and reply.json == [n, "x"], reply.headers


@pytest.mark.parametrize("toml", ("", "network = 'loopback'\n", "tmp = '24M'\nprocesses = 7\nmemory = '77M'\ncpu = 0.5\n[env]\nA = 'b'\n"))
def test_it_is_as_one_that_was_forked_for_it(own, toml):
    """The same function in two daemons' words: forked by the first call, and adopted by that of its twin."""
    files = {"handler.py": LOOK, "data.txt": "x", "pipsqueak.toml": toml}
    own.deployed("look", files)
    forked = own.call("look")
    assert forked.status == 200 and forked.stage("fork") > 0, forked.body
    wait_ahead(own)
    own.deployed("twin", files)
    adopted = own.call("twin")
    assert is_adopted(adopted), adopted.headers
    a, b = forked.json, adopted.json
    assert {k: (a[k], b[k]) for k in a if a[k] != b[k]} == {}


def test_limits_are_its_functions(own):
    """One was forked ahead with the limits of who came before."""
    made_ready(own, "memory = '512M'\n")
    hungry = "def handler(e): return len(bytearray(e << 20))\n"
    own.deployed("hungry", {"handler.py": hungry, "pipsqueak.toml": "memory = '64M'\nprocesses = 4\n"})
    reply = own.call("hungry", 20)
    assert is_adopted(reply) and reply.json == 20 << 20
    reply = own.call("hungry", 200)
    assert reply.status == 502 and b"its limit is 64 MiB" in reply.body
    wait_ahead(own)
    forks = "import os\ndef handler(e):\n    n = 0\n    try:\n        while n < 50:\n            if os.fork() == 0: os.read(os.pipe()[0], 1)\n" \
            "            n += 1\n    except OSError: pass\n    return n\n"
    own.deployed("forks", {"handler.py": forks, "pipsqueak.toml": "processes = 6\n"})
    reply = own.call("forks")
    assert is_adopted(reply) and reply.json in (4, 5), reply.body
    wait_ahead(own)
    own.deployed("full", {"handler.py": "def handler(e):\n    try: open('/tmp/x', 'w').write('x' * (20 << 20))\n    except OSError as e: return e.errno\n",
                          "pipsqueak.toml": "tmp = '16M'\n"})
    reply = own.call("full")
    assert is_adopted(reply) and reply.json == 28


def test_what_cannot_be_changed_later_is_forked(own):
    made_ready(own)
    own.deployed("many", {"handler.py": "import resource\ndef handler(e): return resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n",
                          "pipsqueak.toml": "open_files = 2000\n"})
    reply = own.call("many")
    assert reply.json == 2000 and reply.stage("fork") > 0
    own.deployed("counted", {"handler.py": "def handler(e):\n    while e: pass\n    return 1\n", "pipsqueak.toml": "cpu_seconds = 1\n"})
    reply = own.call("counted", 0)
    assert reply.json == 1 and reply.stage("fork") > 0
    assert own.call("counted", 1).status == 504


def test_packages_of_a_node(daemon):
    """numpy's node has one ahead, too; its environment comes with the function that takes it."""
    text = "import numpy, %s\ndef handler(e): return [numpy.__file__, %s.__file__, float(numpy.random.rand()), numpy.linalg.det([[2., 1], [1, 2]])]\n"
    for n, other in enumerate(("six", "idna", "six")):
        daemon.deployed("np%d" % n, {"handler.py": text % (other, other), "requirements.txt": "numpy\n" + other})
        assert daemon.call("np%d" % n).status == 200
        daemon.wait_for_node("numpy")
    replies, end = [], time.monotonic() + 60
    while len([r for r in replies if is_adopted(r)]) < 3:
        assert time.monotonic() < end, [r.headers for r in replies]
        name = "np-%d" % len(replies)
        daemon.deployed(name, {"handler.py": text % ("six", "six"), "requirements.txt": "numpy\nsix"})
        time.sleep(0.1)
        replies.append(daemon.call(name))
        assert replies[-1].status == 200, replies[-1].body
    rows = [r.json for r in replies]
    assert all("/pipsqueak/env/" in row[0] and "/pipsqueak/env/" in row[1] for row in rows)
    assert len({row[2] for row in rows}) == len(rows) and all(abs(row[3] - 3) < 1e-9 for row in rows)


def waiting_pids(d):
    """Second processes of cells that hold no function's code."""
    found = []
    for p in of_daemon(d.process.pid)[0]:
        try:
            with open("/proc/%d/status" % p.pid) as f:
                spaces = next(line.split()[1:] for line in f if line.startswith("NSpid:"))
            with open("/proc/%d/mountinfo" % p.pid) as f:
                mounts = [line.split()[4] for line in f]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if spaces[-1] == "2" and "/app" not in mounts:
            found.append(p.pid)
    return found


def test_one_that_dies_is_replaced(own):
    made_ready(own)
    for n in range(3):
        [pid] = waiting_pids(own)
        os.kill(pid, signal.SIGKILL)
        own.becomes(lambda: ahead(own) == 0)
        own.deployed("f%d" % n, {"handler.py": "def handler(e): return 1\n"})
        assert own.call("f%d" % n).json == 1
        wait_ahead(own)


def test_one_that_is_stopped_keeps_nobody_waiting_for_ever(own):
    """It is in nobody's power to stop it but the host's; the call fails in time, and the next one works."""
    made_ready(own)
    [pid] = waiting_pids(own)
    os.kill(pid, signal.SIGSTOP)
    own.deployed("patient", {"handler.py": "def handler(e): return 1\n", "pipsqueak.toml": "timeout = 2\n"})
    assert own.call("patient").status == 504
    assert own.call("patient").json == 1


def test_they_do_not_pile_up(own):
    """A child of its own per kind of cell; functions that come and go leave none."""
    made_ready(own)
    before = len(of_daemon(own.process.pid)[0])
    for n in range(30):
        own.deployed("x", {"handler.py": "def handler(e): return %d\n" % n, "pipsqueak.toml": "reuse = %s\n" % ("true" if n % 2 else "false")})
        assert own.call("x").json == n
    assert own.request("DELETE", "/functions/x").status == 200
    own.becomes(lambda: ahead(own) == 1 and len(of_daemon(own.process.pid)[0]) <= before + 4)
