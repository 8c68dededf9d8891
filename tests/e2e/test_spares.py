# SPDX-License-Identifier: Apache-2.0
"""`reuse = false`: a process of its own for each call, in a cell where no call before has left anything.

Spares that fork use their cell again (python/again.c). Every handler here says which process it ran in: pid 2
is a child that has its cell to itself, a greater one is a child of a spare.
"""
import threading
import time

import pytest

FRESH = "reuse = false\n"
PIDS = "import os\ndef handler(e):\n%s\n    return [os.getpid(), os.getppid(), %s]\n"


def forking(d, name, body="    pass", what="None", toml="", calls=12):
    """Deploy a function and call it until spares fork for it; replies of the last calls."""
    d.deployed(name, {"handler.py": PIDS % (body, what), "pipsqueak.toml": FRESH + toml})
    replies = [d.call(name) for _ in range(calls)]
    assert [r.status for r in replies] == [200] * calls, [r.body for r in replies]
    return [r.json for r in replies]


def until_forked(call):
    """Calls are served by forks once there are spares, which on a busy machine may take more than a few calls."""
    end = time.monotonic() + 20
    while call() <= 2:
        assert time.monotonic() < end


def is_forked(row):
    return row[0] > 2 and row[1] == 2


def test_each_call_has_a_process_of_its_own(daemon):
    body = "    global n\n    n += 1"
    daemon.deployed("each", {"handler.py": "n = 0\n" + PIDS % (body, "[n, os.getsid(0) == os.getpid()]"),
                             "pipsqueak.toml": FRESH})
    rows = [daemon.call("each").json for _ in range(30)]
    assert all(row[2] == [1, True] for row in rows)
    assert sum(map(is_forked, rows)) >= 20, rows
    assert len({row[0] for row in rows if is_forked(row)}) >= 5  # one after another, in several cells


def test_calls_at_once_have_cells_of_their_own(daemon):
    daemon.deployed("atonce", {"handler.py": "import os, time\ndef handler(e):\n    open('/tmp/x', 'x').close()\n"
                               "    time.sleep(0.05)\n    os.unlink('/tmp/x')\n    return os.getpid()\n",
                               "pipsqueak.toml": FRESH})
    statuses = []

    def client():
        for _ in range(15):
            statuses.append(daemon.call("atonce").status)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert statuses == [200] * 60


LEAVES = {
    "a file": ("    open('/tmp/left', 'x').close()", "None"),
    "a file at home": ("    open('/home/user/left', 'x').close()", "None"),
    "shared memory": ("    open('/dev/shm/left', 'x').write('x' * 100000)", "None"),
    "a mode": ("    os.chmod('/tmp', 0o700)", "None"),
    "an open file without a name": ("    f = open('/tmp/left', 'x'); os.unlink('/tmp/left')\n"
                                    "    if os.fork() == 0:\n        import time; time.sleep(60)", "None"),
    "System V shared memory": ("    import ctypes; c = ctypes.CDLL(None)\n"
                               "    assert c.shmget(7, 4096, 0o3600) >= 0, 'it is there'", "None"),
    "System V semaphores": ("    import ctypes; c = ctypes.CDLL(None)\n"
                            "    assert c.semget(7, 1, 0o3600) >= 0, 'it is there'", "None"),
    "a System V queue": ("    import ctypes; c = ctypes.CDLL(None)\n    assert c.msgget(7, 0o3600) >= 0, 'it is there'", "None"),
}


@pytest.mark.parametrize("what", LEAVES)
def test_what_a_call_leaves_is_not_found_by_the_next(daemon, what):
    """Each line fails when it finds what the call before it made."""
    body, value = LEAVES[what]
    check = "    assert oct(os.stat('/tmp').st_mode) == '0o41777' and not os.listdir('/tmp') and not os.listdir('/dev/shm')\n"
    forking(daemon, "leaves-" + what.lower().replace(" ", "-"), check + body, value)


def test_processes_and_threads_end_with_their_call(daemon):
    body = ("    import signal, threading, time\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
            "    for _ in range(3):\n        if os.fork() == 0:\n            os.setsid()\n"
            "            for s in range(1, 32):\n                try: signal.signal(s, signal.SIG_IGN)\n"
            "                except OSError: pass\n            if os.fork() == 0: time.sleep(60)\n            time.sleep(60)\n")
    rows = forking(daemon, "hydra", body, "len([p for p in os.listdir('/proc') if p.isdigit()])")
    forked = [row for row in rows if is_forked(row)]
    assert forked
    # init, the spare, the call and what this call itself has started
    assert all(row[2] <= 3 + 6 for row in forked), rows


def test_orphans_do_not_use_up_the_limit(daemon):
    body = ("    for _ in range(100):\n        p = os.fork()\n        if p == 0:\n            if os.fork() == 0: os._exit(0)\n"
            "            os._exit(0)\n        os.waitpid(p, 0)")
    rows = forking(daemon, "orphans", body, "0", "processes = 48\ntimeout = 60\n", calls=8)
    assert any(map(is_forked, rows))


def test_processes_never_reach_a_zygotes_pid(daemon):
    """A cell is thrown away in time: the pids that a function uses up start again at 2."""
    body = "    import threading\n    for _ in range(3000):\n        t = threading.Thread(target=int); t.start(); t.join()"
    rows = forking(daemon, "pids", body, "0", "timeout = 60\n", calls=18)
    pids = [row[0] for row in rows]
    assert max(pids) < 8500 and any(b < a for a, b in zip(pids[6:], pids[7:])), str(pids)


ENDS = {
    "exits with 0": ("os._exit(0)", "ended during the call (exit status 0)"),
    "exits with 3": ("os._exit(3)", "ended during the call (exit status 3)"),
    "is killed": ("os.kill(os.getpid(), 11)", "died during the call (signal 11"),
    "hungers": ("len([bytearray(1 << 20) for _ in range(4096)])", "ran out of memory: its limit is 96 MiB"),
}


@pytest.mark.parametrize("how", ENDS)
def test_how_a_forked_call_ends_is_told(daemon, how):
    body, text = ENDS[how]
    name = "ends-" + how.replace(" ", "-")
    daemon.deployed(name, {"handler.py": "import os\ndef handler(e):\n    if e == 'now':\n        %s\n    return os.getpid()\n" % body,
                           "pipsqueak.toml": FRESH + 'memory = "96M"\n'})
    for _ in range(3):
        until_forked(lambda: daemon.call(name).json)
        reply = daemon.call(name, "now")
        assert reply.status == 502 and text.encode() in reply.body, reply.body


def test_a_forked_call_that_takes_too_long(daemon):
    daemon.deployed("tarries", {"handler.py": "import os, time\ndef handler(e):\n    time.sleep(e)\n    return os.getpid()\n",
                                "pipsqueak.toml": FRESH + "timeout = 1\n"})
    for _ in range(2):
        until_forked(lambda: daemon.call("tarries", 0).json)
        assert daemon.call("tarries", 5).status == 504


@pytest.mark.parametrize("deed", ("os.kill(2, 19)", "os.kill(2, 9)", "os.kill(-1, 9)"))
def test_a_spare_that_its_call_attacks_is_no_ones_error(daemon, deed):
    """Stopped, it never says AGAIN and is given up; killed, it takes its cell along. Others serve."""
    daemon.deployed("attacks", {"handler.py": "import os\ndef handler(e):\n    if e and os.getppid() == 2: %s\n"
                                "    return os.getpid()\n" % deed, "pipsqueak.toml": FRESH})
    until_forked(lambda: daemon.call("attacks", 0).json)
    for _ in range(2):
        assert daemon.call("attacks", 1).status in (200, 502)
        for _ in range(3):
            assert daemon.call("attacks", 0).status == 200


def test_random_numbers_of_forked_calls_differ(daemon):
    code = ("import os, random, uuid\nimport numpy as np\nr = np.random.default_rng()\ndef handler(e):\n"
            "    return [os.getpid(), os.getppid(), random.random(), str(uuid.uuid4()), str(uuid.uuid1()), float(np.random.rand()),"
            " float(r.random()), os.urandom(8).hex()]\n")
    daemon.deployed("draws", {"handler.py": code, "requirements.txt": "numpy", "pipsqueak.toml": FRESH})
    daemon.call("draws")
    daemon.wait_for_node("numpy")
    rows = [daemon.call("draws").json for _ in range(30)]
    assert sum(map(is_forked, rows)) >= 15
    for column in range(2, 8):
        assert len({row[column] for row in rows}) == 30


def test_environment_and_redeploy(daemon):
    """Spares of the version before serve no more, and what the environment says holds in forked calls."""
    for version in ("one", "two"):
        daemon.deployed("versions", {"handler.py": "import os\ndef handler(e): return [os.getpid(), os.environ['WHICH']]\n",
                                     "pipsqueak.toml": FRESH + '[env]\nWHICH = "%s"\nPYTHONWARNINGS = "error"\n' % version})
        until_forked(lambda: daemon.call("versions").json[0])
        rows = [daemon.call("versions").json for _ in range(10)]
        assert {row[1] for row in rows} == {version}
