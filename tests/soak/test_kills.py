# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments. What must hold afterwards: nothing of the dead is left, the next start
cleans up, and the same deploy and the same call work."""
import os
import signal
import subprocess
import time

from soaking import MINUTES, bare, joined, luck, same, temporary, together, versions

from conftest import CLI, SLOWER, of_daemon, processes

KILLS = max(3, int(120 * MINUTES / 30))


def package(index, n):
    """Distribution number n: enough modules for an unpacking of some length, an import worth a node."""
    files = {"pkg%d/m%d.py" % (n, i): "X = %d\n" % i * 50 for i in range(40)}
    files["pkg%d/__init__.py" % n] = "import time\ntime.sleep(0.03)\nN = %d\n" % n
    index.add("pkg%d" % n, files)
    return {"handler.py": "import pkg%d\ndef handler(e): return [pkg%d.N, e]\n" % (n, n),
            "requirements.txt": "pkg%d\n" % n, "pipsqueak.toml": "reuse = false\n"}


def swallow(f, *args):
    """The daemon dies under this request: no answer, half of one, or a whole one."""
    try:
        f(*args)
    except (AssertionError, OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        pass


def many_calls(d, name):
    for i in range(1000):
        d.call(name, i)


def after_a_start(d, names):
    """Only what is of use is there."""
    own = [p for p in temporary(d.base) if "/%d-" % d.process.pid not in p]
    assert not own, "left by the dead: %s" % own
    known = {f["name"]: str(f["version"]) for f in d.get("/functions").json["functions"]}
    assert set(known) <= names
    assert versions(d.base) == {name: [v] for name, v in known.items()}
    return known


def test_the_daemon_is_killed(own_cache, index):
    d, chance = own_cache, luck("kills")
    d.deployed("steady", {"handler.py": "def handler(e): return e"})
    names, moments = {"steady"}, []
    for n in range(KILLS):
        name = "f%d" % (n % 7)
        files = package(index, n)
        names.add(name)
        began = time.monotonic()
        threads = together((swallow, d.deploy, name, files, "", index.settings),
                           (swallow, many_calls, d, "steady"),
                           (swallow, many_calls, d, name),
                           (swallow, lambda: d.cli("run", "-c", "import time; time.sleep(30)", timeout=60)))
        time.sleep(chance.uniform(0, 1.2) * SLOWER)
        moments.append(time.monotonic() - began)
        d.stop(kill=True)  # and nothing of it is left: no process, mount or cgroup
        joined(threads, 60)
        d.start()
        known = after_a_start(d, names)
        assert "steady" in known, "killed after %.3f s" % moments[-1]
        assert d.call("steady", n).json == n
        d.deployed(name, files, settings=index.settings)
        assert d.call(name, "again").json == [n, "again"]


def scripts(d):
    status = d.get("/status").json
    return status["runs_now"] + status["instances"]


def helpers():
    """Processes of dead clients come to us: this process adopts orphans."""
    return [p for p in processes().values()
            if p.parent == os.getpid() and p.state != "Z" and p.words.split(b"\0")[0] == CLI.encode()]


def test_clients_are_killed(own_cache, index):
    """The terminal is closed, the client is killed: its script ends too, whatever it was at."""
    d, chance = own_cache, luck("clients")
    package(index, 0)
    begin = None
    for n in range(max(3, KILLS // 2)):
        client = subprocess.Popen([CLI, "run", "--index-url", index.url, "--with", "pkg0", "-c",
                                   "import time; print(1, flush=True); time.sleep(600)"], env=d.environment(),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if n % 3:
            time.sleep(chance.uniform(0, 0.3) * SLOWER)
        else:
            assert client.stdout.readline() == b"1\n"
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        d.becomes(lambda: scripts(d) == 0)
        d.becomes(lambda: not helpers())
        begin = bare(d) if n == 2 else begin
    same(begin, bare(d))


def test_the_start_is_killed(own_cache):
    """Also a daemon that is only just starting leaves nothing behind."""
    d, chance = own_cache, luck("starts")
    d.deployed("steady", {"handler.py": "def handler(e): return e"})
    for n in range(max(3, KILLS // 3)):
        d.stop(kill=n % 2 == 0)
        p = subprocess.Popen([*d.command(), "--idle", "600"], stdout=subprocess.DEVNULL,
                             stderr=open(d.log_path, "a"), env=d.environment(), start_new_session=True)
        time.sleep(chance.uniform(0, 0.25) * SLOWER)
        had = of_daemon(p.pid)
        p.kill()
        p.wait()
        d.nothing_left(p.pid, had)
        d.start()
        assert d.call("steady", n).json == n
