# SPDX-License-Identifier: Apache-2.0
"""Redeploying, removing, restarting, and being killed."""
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from conftest import BUILD, SLOWER, Daemon, new_base, of_daemon, processes


def test_redeploy_and_remove(daemon):
    first = daemon.deployed("twice", {"handler.py": "def handler(e): return 1"})
    assert daemon.call("twice").json == 1
    second = daemon.deployed("twice", {"handler.py": "def handler(e): return 2"})
    assert second["version"] > first["version"]
    assert daemon.call("twice").json == 2
    failed = daemon.deploy("twice", {"handler.py": "", "requirements.txt": "nosuch-package-of-pipsqueak-tests"})
    assert failed.status == 404
    assert daemon.call("twice").json == 2  # a failed deploy leaves the old version serving
    assert daemon.request("DELETE", "/functions/twice").status in (200, 204)
    assert daemon.call("twice").status == 404


def test_a_running_call_outlives_a_redeploy(daemon):
    daemon.deployed("long", {"handler.py": "import time\ndef handler(e):\n    time.sleep(1)\n    return 'old'\n"})
    replies = []
    t = threading.Thread(target=lambda: replies.append(daemon.call("long")))
    t.start()
    time.sleep(0.4)
    daemon.deployed("long", {"handler.py": "def handler(e): return 'new'"})
    assert daemon.call("long").json == "new"
    t.join(30)
    assert replies[0].status == 200 and replies[0].json == "old"


def named_groups(pid):
    return [os.path.join(where, d) for where, folders, _ in os.walk("/sys/fs/cgroup") for d in folders
            if d == "pipsqueak-%d" % pid]


def test_groups_of_a_daemon_that_was_killed_with_its_keeper(own_daemon):
    """Nobody was left to remove them: the next daemon does, and none that belongs to a living one."""
    d = own_daemon
    d.deployed("sits", {"handler.py": "def handler(e): return 1"})
    assert d.call("sits").json == 1
    beside = Daemon(new_base())
    try:
        beside.deployed("sits", {"handler.py": "def handler(e): return 2", "pipsqueak.toml": "reuse = false\n"})
        assert beside.call("sits").json == 2
        pid, had = d.process.pid, of_daemon(d.process.pid)
        groups = named_groups(pid)
        if d.get("/status").json["host"]["cgroups"] and os.path.isdir("/sys/fs/cgroup/memory"):
            assert len(groups) >= 3  # version 1: v2's directory goes with its scope
        keepers = [p.pid for p in processes().values() if p.parent == pid and comm(p.pid) == "pipsqueak-keep"]
        d.allowed = ["the keeper is gone"]  # it may see that one end first
        for victim in [*keepers, pid]:
            os.kill(victim, signal.SIGKILL)
        d.process.wait()
        d.becomes(lambda: not [left for left in d.leftovers(pid, had) if left not in groups])
        assert named_groups(pid) == groups
        d.start()
        assert named_groups(pid) == []
        assert d.call("sits").json == 1
        assert bool(named_groups(beside.process.pid)) == bool(groups)
        assert beside.call("sits").json == 2
    finally:
        beside.stop()
        beside.check_log()
        shutil.rmtree(beside.base)


def comm(pid):
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def test_logs(daemon):
    daemon.deployed("talks", {"handler.py": "import sys\ndef handler(e):\n    print('to stdout')\n"
                                            "    print('to stderr', file=sys.stderr)\n"})
    daemon.call("talks")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        text = daemon.get("/functions/talks/logs").body.decode()
        if "to stdout" in text and "to stderr" in text:
            break
    assert "to stdout" in text and "to stderr" in text
    names = [f["name"] for f in daemon.get("/functions").json["functions"]]
    assert "talks" in names


@pytest.mark.parametrize("kill", [False, True])
def test_state_survives(own_daemon, kill):
    d = own_daemon
    d.deployed("stays", {"handler.py": "import numpy\ndef handler(e): return numpy.arange(3).tolist()",
                         "requirements.txt": "numpy", "pipsqueak.toml": "reuse = false\n"})
    assert d.call("stays").json == [0, 1, 2]
    d.wait_for_node("numpy")
    d.stop(kill=kill)
    d.start()
    assert d.call("stays").json == [0, 1, 2]
    assert d.get("/status").status == 200


def test_killed_in_the_middle_of_a_call_and_of_a_deploy(own_daemon):
    d = own_daemon
    d.deployed("sleeps", {"handler.py": "import time\ndef handler(e): time.sleep(30)"})
    threads = [threading.Thread(target=swallow, args=(d.call, "sleeps")),
               threading.Thread(target=swallow, args=(d.deploy, "late", {
                   "handler.py": "def handler(e): return 1", "requirements.txt": "flask"}))]
    for t in threads:
        t.start()
    time.sleep(0.5)
    d.stop(kill=True)
    for t in threads:
        t.join(30)
    d.start()
    d.deployed("late", {"handler.py": "import flask\ndef handler(e): return flask.__name__",
                        "requirements.txt": "flask"})
    assert d.call("late").json == "flask"


def swallow(f, *args):
    try:
        f(*args)
    except (AssertionError, OSError):
        pass


def test_one_daemon_a_directory(own_daemon):
    out = subprocess.run([os.path.join(BUILD, "pipsqueakd"), "--dir", own_daemon.base, "--lib",
                          os.path.join(BUILD, "lib")], capture_output=True, text=True, timeout=20)
    assert out.returncode != 0 and "runs already" in out.stderr
    assert own_daemon.get("/healthz").status == 200


def test_it_leaves_when_idle():
    import shutil

    from conftest import Daemon, new_base

    d = Daemon(new_base(), options=["--idle", "1"])
    assert d.process.wait(20) == 0
    pid, d.process = d.process.pid, None
    d.nothing_left(pid)
    shutil.rmtree(d.base)


def test_a_stop_right_after_a_call():
    """What the call still had under way (its process's end, its cgroup's figures) meets a closing daemon."""
    import shutil

    from conftest import Daemon, new_base

    for _ in range(8):
        d = Daemon(new_base())
        d.deployed("once", {"handler.py": "def handler(e): return 1", "pipsqueak.toml": "reuse = false\n"})
        assert [d.call("once").json for _ in range(2)] == [1, 1]
        d.stop()
        d.check_log()
        shutil.rmtree(d.base)


def test_a_stop_at_any_moment_of_the_start(own_daemon):
    """Also while it asks the interpreter what it is, and while it makes the root."""
    for n in range(30):
        own_daemon.stop()
        own_daemon.start()
        time.sleep(0.002 * n)


def test_a_stop_while_a_profile_and_spares_are_on_the_way(own_daemon):
    """Nothing of that keeps the daemon. It comes after the call, within some milliseconds."""
    d = own_daemon
    for n in range(14):
        name = "hasty%d" % n  # of each function the first calls are recorded
        d.deployed(name, {"handler.py": "import numpy\ndef handler(e): return e", "requirements.txt": "numpy",
                          "pipsqueak.toml": "reuse = false\n"})
        assert d.cli("invoke", name, str(n)).stdout.strip() == str(n)
        time.sleep(n % 3 * 0.001)
        d.process.send_signal(signal.SIGTERM)  # now; stop() looks around first
        assert d.process.wait(20 * SLOWER) == 0
        d.stop()
        d.start()
