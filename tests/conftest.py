# SPDX-License-Identifier: Apache-2.0
"""The harness of the end-to-end and security tests: real daemons, real interpreters, real wheels.

After every test the daemon must be alive (or stopped cleanly), its log free of errors, and when it is
stopped nothing of it may be left: no process, mount, cgroup or directory. PIPSQUEAK_BUILD names the
build directory. Downloaded wheels are kept below it, so that each is fetched once.
"""
import contextlib
import ctypes
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile

import pytest

import wheels

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("PIPSQUEAK_BUILD", os.path.join(TOP, "build")))
CLI = os.path.join(BUILD, "pipsqueak")
ALARMS = re.compile(r" ERROR |bug: |Sanitizer|runtime error|says: Traceback")
# Slow machines (sanitizers, emulation) may stretch every deadline.
SLOWER = float(os.environ.get("PIPSQUEAK_SLOWER", "1"))


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    @property
    def start(self):
        found = re.search(r'start;desc="(\w+)"', self.headers)
        return found.group(1) if found else None

    def stage(self, name):
        found = re.search(r"[ ,]%s;dur=([\d.]+)" % name, self.headers)
        return float(found.group(1)) if found else None


def read_all(sock):
    data = b""
    while True:
        try:
            block = sock.recv(1 << 16)
        except ConnectionResetError:
            return data
        if not block:
            return data
        data += block


def zip_of(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
    return out.getvalue()


class Process:
    """One line of /proc: who it is, whose child, and in which pid namespace."""

    def __init__(self, pid):
        self.pid = pid
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        self.state, self.parent, self.started = fields[0], int(fields[1]), fields[19]
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            self.words = f.read()
        try:
            self.space = os.readlink("/proc/%d/ns/pid" % pid)
        except PermissionError:
            self.space = None

    @property
    def key(self):
        return self.pid, self.started

    def __repr__(self):
        return "process %d (%s) %r" % (self.pid, self.state, self.words[:80])


def processes():
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found[int(name)] = Process(int(name))
            except (FileNotFoundError, ProcessLookupError, ValueError):
                pass
    return found


def of_daemon(pid):
    """The daemon, its children, and all that lives in their pid namespaces."""
    now = processes()
    ours = os.readlink("/proc/self/ns/pid")
    first = [p for p in now.values() if pid in (p.pid, p.parent)]
    spaces = {p.space for p in first} - {ours, None}
    return first + [p for p in now.values() if p.space in spaces and p not in first], spaces


def reap_orphans(keys, spaces):
    """Orphans come to this process, which reaps them at once (some containers' pid 1 takes seconds)."""
    for p in processes().values():
        ours = p.key in keys or p.space in spaces or of_high_id(p.pid) or is_nested(p.pid)
        if p.parent == os.getpid() and p.state == "Z" and ours:
            os.waitpid(p.pid, os.WNOHANG)


def is_nested(pid):
    """Is it in a pid namespace below this one? Those are daemons' sandboxes, whoever runs them."""
    try:
        with open("/proc/%d/status" % pid) as f:
            return any(len(line.split()) > 2 for line in f if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def of_high_id(pid):
    """Does it run as an id that only a daemon of root hands out?"""
    try:
        return os.stat("/proc/%d" % pid).st_uid >= 0x60000000
    except FileNotFoundError:
        return False


def groups_of(pid):
    """The names of a daemon's cgroup: the keeper's on v1, the scope that systemd made on v2."""
    return "pipsqueak-%d" % pid, "pipsqueak-%d.scope" % pid


PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Daemon:
    def __init__(self, base, options=()):
        self.base, self.options = base, list(options)
        self.process = None
        self.allowed = []  # patterns of log lines that the running test expects
        self.log_path = os.path.join(base, "log")
        self.read_to = 0
        self.start()

    def environment(self):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env.update(PIPSQUEAK_DIR=self.base, XDG_CACHE_HOME=os.path.join(BUILD, "test-cache", "user"))
        return env

    def command(self):
        return [os.path.join(BUILD, "pipsqueakd"), "--dir", self.base, "--lib",
                os.path.join(BUILD, "lib"), "--cache", os.path.join(BUILD, "test-cache", "cache"),
                "--listen", "127.0.0.1:0", *self.options]

    def start(self):
        self.process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE, stderr=open(self.log_path, "a"), text=True,
            env=self.environment(), start_new_session=True)
        line = self.process.stdout.readline().split()
        assert line and line[0] == "ready", "the daemon did not start:\n" + self.log()
        self.port = int(line[2])

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def check_log(self):
        text = self.log()
        new, self.read_to = text[self.read_to:], len(text)
        bad = [line for line in new.splitlines() if ALARMS.search(line)
               and not any(re.search(p, line) for p in self.allowed)]
        assert not bad, "the daemon's log:\n" + "\n".join(bad)

    def stop(self, kill=False):
        if self.process is None:
            return
        had = of_daemon(self.process.pid)
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            code = self.process.wait(30 * SLOWER)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "a hang: it did not stop in time"
        pid, self.process = self.process.pid, None
        self.nothing_left(pid, had)
        if not kill:
            assert code == 0, "the daemon ended with %s:\n%s" % (code, self.log()[-2000:])

    def nothing_left(self, pid, had=((), ())):
        """Everything the daemon had ends with it; the last of it within moments."""
        deadline = time.monotonic() + 15 * SLOWER
        while True:
            left = self.leftovers(pid, had)
            if not left:
                return
            assert time.monotonic() < deadline, "left behind: %s" % left
            time.sleep(0.05)

    def leftovers(self, pid, had):
        keys, spaces = {p.key for p in had[0]}, had[1]
        reap_orphans(keys, spaces)
        left = [str(p) for p in processes().values()
                if p.key in keys or p.space in spaces or p.parent == pid
                or (b"pipsqueakd" in p.words and self.base.encode() in p.words)]
        with open("/proc/self/mountinfo") as f:
            left += ["mount " + line for line in f if self.base in line]
        for where, folders, _ in os.walk("/sys/fs/cgroup"):
            left += [os.path.join(where, d) for d in folders if d in groups_of(pid)]
            if where.count("/") > 7:
                folders.clear()
        return left

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def becomes(self, what, seconds=20):
        """Wait until what() is true; its last value is shown when it does not come to that."""
        deadline = time.monotonic() + seconds * SLOWER
        while not what():
            assert time.monotonic() < deadline, "it did not happen:\n" + self.log()[-2000:]
            time.sleep(0.05)

    # HTTP

    def request(self, method, path, body=b"", headers=(), timeout=120):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout * SLOWER)
        sock.connect(os.path.join(self.base, "run", "api.sock"))
        head = "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n"
        lines = "".join("%s: %s\r\n" % h for h in headers)
        try:
            sock.sendall((head % (method, path, len(body), lines)).encode() + body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused early: the answer is there
        head, _, rest = read_all(sock).partition(b"\r\n\r\n")
        sock.close()
        assert head, "no answer; the daemon's log ends:\n" + self.log()[-3000:]
        return Reply(int(head.split()[1]), head.decode(), rest)

    def deploy(self, name, files, query="", settings=None):
        headers = [("Content-Type", "application/zip"),
                   ("X-Pip-Settings", settings or pip_settings())]
        return self.request("PUT", "/functions/%s%s" % (name, query), zip_of(files), headers, 300)

    def deployed(self, name, files, query="", settings=None):
        reply = self.deploy(name, files, query, settings)
        assert reply.status == 200, reply.body
        return reply.json

    def call(self, name, event=None, raw=None):
        body = raw if raw is not None else json.dumps(event).encode()
        return self.request("POST", "/run/" + name, body)

    def get(self, path):
        return self.request("GET", path)

    def nodes(self):
        def below(node):
            yield node
            for child in node["children"]:
                yield from below(child)

        return [n for root in self.get("/tree").json["roots"] for n in below(root)]

    def wait_for_node(self, dist, seconds=30):
        deadline = time.monotonic() + seconds * SLOWER
        while time.monotonic() < deadline:
            if any(a.split()[0] == dist for n in self.nodes() for a in n["adds"]):
                return
            time.sleep(0.05)
        raise AssertionError("no node holds %s:\n%s" % (dist, self.log()[-2000:]))

    def cli(self, *args, **kwargs):
        kwargs.setdefault("env", self.environment())
        kwargs.setdefault("timeout", 240 * SLOWER)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([CLI, *args], capture_output=True, text=True, **kwargs)


_settings = []


def pip_settings():
    if not _settings:
        out = subprocess.run(["/usr/bin/python3", os.path.join(BUILD, "lib", "pipconf.py")],
                             capture_output=True, text=True, check=True).stdout
        _settings.append(" ".join(out.split("\n")))
    return _settings[0]


def new_base():
    base = tempfile.mkdtemp(prefix="pqt-", dir="/tmp")
    os.chmod(base, 0o755)
    return base


@pytest.fixture(scope="session")
def shared_daemon():
    d = Daemon(new_base())
    yield d
    d.stop()
    shutil.rmtree(d.base)


@pytest.fixture
def daemon(shared_daemon):
    """The session's daemon; the test may not disturb it."""
    shared_daemon.allowed = []
    yield shared_daemon
    assert shared_daemon.process.poll() is None, shared_daemon.log()[-3000:]
    assert shared_daemon.get("/healthz").status == 200
    shared_daemon.check_log()


@pytest.fixture
def own_daemon():
    """A daemon of the test's own, which it may stop and kill. Wheels are shared."""
    d = Daemon(new_base())
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)


@contextlib.contextmanager
def apart():
    """A daemon of which the cache, too, is its own."""
    base = new_base()
    d = Daemon(base, ["--cache", os.path.join(base, "cache")])
    d.store = os.path.join(base, "cache", "store")
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(base)


@pytest.fixture
def own_cache():
    with apart() as d:
        yield d


@pytest.fixture
def index():
    """An index of the test's own, on loopback."""
    served = wheels.Index()
    yield served
    served.close()


@pytest.fixture
def workdir(tmp_path_factory):
    path = tempfile.mkdtemp(prefix="pqw-", dir="/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


# Root alone makes network namespaces and, on cgroup v1, cgroups: what other users cannot be shown.
NEEDS_ROOT = ("test_network.py", "test_p99_beside_the_worst")


def pytest_collection_modifyitems(config, items):
    if os.geteuid() != 0:
        without = [i for i in items if i.nodeid.partition("[")[0].endswith(NEEDS_ROOT) or i.path.name in NEEDS_ROOT]
        config.hook.pytest_deselected(items=without)
        items[:] = [i for i in items if i not in without]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where everything must run, a test that skips itself is a failure."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("PIPSQUEAK_MUST_RUN") == "1":
        report.outcome = "failed"
        report.longrepr = "skipped, but PIPSQUEAK_MUST_RUN=1: %s" % (report.longrepr,)
