# SPDX-License-Identifier: Apache-2.0
"""Whatever happens, and however often: the daemon gives back what it took."""
import json
import os
import socket
import threading
import time

from conftest import SLOWER, groups_of, of_daemon, pip_settings, read_all, zip_of

FUNCTIONS = {
    "fine": ("def handler(e): return e", ""),
    "fresh": ("def handler(e): return e", "reuse = false\n"),
    "raises": ("def handler(e): raise ValueError('x')", ""),
    "dies": ("import os\ndef handler(e): os._exit(1)", ""),
    "slow": ("import time\ndef handler(e): time.sleep(60)", "timeout = 1\n"),
    "hungry": ("def handler(e): return len([bytearray(1 << 20) for _ in range(4096)])", 'memory = "64M"\n'),
    "forks": ("import os, time\ndef handler(e):\n    for _ in range(5):\n        if os.fork() == 0:\n"
              "            time.sleep(600)\n    return 5\n", "reuse = false\n"),
    "writes": ("def handler(e):\n    open('/tmp/x', 'wb').write(bytes(1 << 20))\n"
               "    open('/home/user/y', 'w').write('y')\n    return 1\n", "reuse = false\n"),
    "broken": ("import nosuch\ndef handler(e): pass", ""),
}


def half_a_request(d, data):
    """A client that goes away in the middle."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.path.join(d.base, "run", "api.sock"))
    s.sendall(data)
    time.sleep(0.1)
    s.close()


def a_round(d):
    for name, (code, settings) in FUNCTIONS.items():
        d.deployed(name, {"handler.py": code, "pipsqueak.toml": settings})
    for name in FUNCTIONS:
        threads = [threading.Thread(target=d.call, args=(name, 1)) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    half_a_request(d, b"POST /run/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
    half_a_request(d, b"POST /run/fine HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    half_a_request(d, b"PUT /functions/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nPK")
    d.deploy("failing", {"handler.py": "", "requirements.txt": "nosuch-package-of-pipsqueak-tests"})
    d.request("PUT", "/functions/failing", b"no zip")
    for name in FUNCTIONS:
        assert d.request("DELETE", "/functions/" + name).status == 200
    d.becomes(lambda: not any(d.get("/status").json[what] for what in ("instances", "spares", "calls_now")))


def census(d):
    """Descriptors, processes and cgroups in use; sleeping nodes are not a leak."""
    nodes = d.get("/status").json["nodes"]
    groups = sum(len(folders) for where, folders, _ in os.walk("/sys/fs/cgroup")
                 if where.endswith(groups_of(d.process.pid)))
    return {"descriptors": d.descriptors(), "processes": len(of_daemon(d.process.pid)[0]) - nodes,
            "cgroups": groups, "nodes": nodes}


def test_nothing_accumulates(own_daemon):
    d = own_daemon
    a_round(d)
    time.sleep(1)
    first = census(d)
    for _ in range(3):
        a_round(d)
    # Pools of prepared cells fill and drain; a leak of one thing a call would be dozens by now.
    d.becomes(lambda: census(d)["descriptors"] <= first["descriptors"] + 8 * (1 + census(d)["nodes"] - first["nodes"]))
    d.becomes(lambda: census(d)["processes"] <= first["processes"] + 4)
    d.becomes(lambda: census(d)["cgroups"] <= first["cgroups"] + 24)


def interpreters(d):
    return sum(b"bootstrap" in p.words for p in of_daemon(d.process.pid)[0])


def test_an_instances_processes_end_with_it(own_daemon):
    """A handler leaves processes behind, in sessions of their own, deaf to signals."""
    d = own_daemon
    code = ("import os, signal, time\ndef handler(e):\n    for _ in range(4):\n        if os.fork() == 0:\n"
            "            os.setsid()\n            for s in range(1, 32):\n                try: signal.signal(s, signal.SIG_IGN)\n"
            "                except OSError: pass\n            if os.fork() == 0:\n                time.sleep(600)\n"
            "            time.sleep(600)\n    return len([p for p in os.listdir('/proc') if p.isdigit()])\n")
    d.deployed("leaves", {"handler.py": code, "pipsqueak.toml": "reuse = false\n"})
    assert d.call("leaves").json >= 6
    d.becomes(lambda: d.get("/status").json["instances"] == 0)

    def only_what_sleeps():
        status = d.get("/status").json
        return interpreters(d) <= status["nodes"] + status["spares"] + 1
    d.becomes(only_what_sleeps)


def test_temporary_files_go(own_daemon, index):
    """After failures of every kind of deploy nothing half-made is on disk."""
    d = own_daemon
    index.add("fine-wheel", {"fine_wheel.py": "X = 1\n"})
    index.add("bad-record", {"bad_record.py": "X = 1\n"}, record=["bad_record.py,sha256=AAAA,6"])
    for dist in ("bad-record", "absent-wheel"):
        assert d.deploy("f", {"handler.py": "", "requirements.txt": dist}, settings=index.settings).status >= 400
    store = os.path.join(os.environ.get("PIPSQUEAK_BUILD", "build"), "test-cache", "cache", "store", "tmp")
    mine = [n for n in os.listdir(store) if n.startswith("%d-" % d.process.pid)]
    left = [os.path.join(n, name) for n in mine for name in os.listdir(os.path.join(store, n))
            if name != "uses"]  # the daemon's marks
    assert left == [], left
    assert [f for _, _, files in os.walk(os.path.join(d.base, "state", "apps")) for f in files] == []
    d.deployed("f", {"handler.py": "import fine_wheel\ndef handler(e): return fine_wheel.X",
                     "requirements.txt": "fine-wheel"}, settings=index.settings)
    assert d.call("f").json == 1


def test_many_at_once(own_daemon):
    """Deploys, calls, redeploys, removals and reads at the same time; every request is answered."""
    d = own_daemon
    statuses, stop = [], time.monotonic() + 4 * SLOWER

    def worker(n):
        name = "m%d" % (n % 3)
        while time.monotonic() < stop:
            if n % 4 == 0:
                body = zip_of({"handler.py": "def handler(e): return %d" % n})
                r = d.request("PUT", "/functions/" + name, body, [("X-Pip-Settings", pip_settings())])
            elif n == 5:
                r = d.request("DELETE", "/functions/" + name)
            elif n == 7:
                r = d.get("/tree")
                json.loads(r.body)
            else:
                r = d.call(name, n)
            statuses.append(r.status)

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60 * SLOWER)
    assert not any(t.is_alive() for t in threads)
    assert set(statuses) <= {200, 404, 409, 429}, sorted(set(statuses))
    assert statuses.count(200) > 100


def client(d, data, timeout=10):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(os.path.join(d.base, "run", "api.sock"))
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return s


def test_clients_that_talk_nonsense(daemon):
    for data in (b"", b"GET / HTTP/9.9\r\n\r\n", b"POST /run/x HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                 b"POST /run/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                 b"GET /" + b"A" * 400000,
                 b"GET /%00%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                 b"GET /functions/../../etc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
        s = client(daemon, data)
        assert not read_all(s).startswith(b"HTTP/1.1 2")
        s.close()
    r = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    r.connect(os.path.join(daemon.base, "run", "run.sock"))
    r.recv(1 << 16)
    r.send(os.urandom(100))
    r.settimeout(10)
    try:
        while r.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    r.close()


def test_clients_that_stop_in_the_middle(daemon):
    """Each keeps its connection for a while and no longer."""
    clients = [client(daemon, data, 45) for data in (b"\0" * 1000, b"\0\r\n\r\n", b"GET", b"A" * 100000)]
    for s in clients:
        assert not read_all(s).startswith(b"HTTP/1.1 2")
        s.close()
