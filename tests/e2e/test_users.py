# SPDX-License-Identifier: Apache-2.0
"""A daemon of a plain user, with subordinate ids and without: the same answers, the same walls.

Started by root, these tests become a user that exists only in mount namespaces of their own (/etc/passwd,
/etc/subuid and /etc/subgid are covered there), so nothing of the machine changes. Started by a plain
user, they are that user, in the one mode this machine gives.
"""
import os
import re
import shutil
import stat
import subprocess

import pytest

import wheels
from conftest import BUILD, SLOWER, Daemon, new_base

UID = 64007
ROOT = os.getuid() == 0
# /dev/net/tun is open to all where udev runs.
COVER = """for f in passwd subuid subgid; do touch /etc/$f; mount --bind "$0/$f" /etc/$f; done
[ ! -e /dev/net/tun ] || mount --bind "$0/tun" /dev/net/tun
exec setpriv --reuid %d --regid %d --clear-groups --inh-caps=-all "$@" """ % (UID, UID)


class UsersDaemon(Daemon):
    """base/bin holds the programs (the build directory may be where others cannot go), base/etc what
    covers /etc, base/home the user's home, base/home/d the daemon's directory."""

    def __init__(self, base, mode):
        self.top, self.mode = base, mode
        self.home = os.path.join(base, "home")
        self.bin = os.path.join(base, "bin")
        os.mkdir(self.home, 0o755)
        os.mkdir(os.path.join(self.home, "d"), 0o755)
        os.mkdir(self.bin)
        for name in ("pipsqueak", "pipsqueakd"):
            shutil.copy(os.path.join(BUILD, name), self.bin)
        shutil.copytree(os.path.join(BUILD, "lib"), os.path.join(self.bin, "lib"),
                        ignore=shutil.ignore_patterns("*.p", "__pycache__"))
        if ROOT:
            self.cover()
        super().__init__(os.path.join(self.home, "d"))

    def cover(self):
        etc = os.path.join(self.top, "etc")
        os.mkdir(etc)
        shutil.copy("/etc/passwd", etc)
        with open(os.path.join(etc, "passwd"), "a") as f:
            f.write("pqtest:x:%d:%d::%s:/bin/sh\n" % (UID, UID, self.home))
        for name in ("subuid", "subgid"):
            with open(os.path.join(etc, name), "w") as f:
                f.write("pqtest:%d:65536\n" % 0x60000000 if self.mode == "subids" else "")
        os.mknod(os.path.join(etc, "tun"), stat.S_IFCHR | 0o666, os.makedev(10, 200))
        os.chmod(os.path.join(etc, "tun"), 0o666)
        self.give(self.home)

    def give(self, path):
        """This tree is the user's."""
        for where, folders, files in os.walk(path):
            for name in (".", *folders, *files):
                os.chown(os.path.join(where, name), UID, UID, follow_symlinks=False)

    def environment(self):
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.home, "LANG": "C.UTF-8",
               "PIPSQUEAK_DIR": self.base}
        env.update((k, v) for k, v in os.environ.items() if k.startswith("PIP_"))
        return env

    def prefix(self):
        if not ROOT:
            return []
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", COVER,
                os.path.join(self.top, "etc")]

    def start(self):
        self.log_path = os.path.join(self.top, "log")
        self.process = subprocess.Popen(
            [*self.prefix(), os.path.join(self.bin, "pipsqueakd"), "--dir", self.base, "--lib",
             os.path.join(self.bin, "lib")],
            stdout=subprocess.PIPE, stderr=open(self.log_path, "a"), text=True,
            env=self.environment(), start_new_session=True, cwd=self.home)
        line = self.process.stdout.readline().split()
        assert line and line[0] == "ready", "the daemon did not start:\n" + self.log()

    def cli(self, *args, **kwargs):
        kwargs.setdefault("cwd", self.home)
        return subprocess.run(
            [*self.prefix(), os.path.join(self.bin, "pipsqueak"), *args], env=self.environment(),
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240 * SLOWER, **kwargs)

    def folder(self, name, files):
        """A directory of the user's with these files."""
        path = os.path.join(self.home, name)
        os.mkdir(path)
        for file, text in files.items():
            with open(os.path.join(path, file), "w") as f:
                f.write(text)
        if ROOT:
            self.give(path)
        return path


@pytest.fixture(scope="module", params=["subids", "one-id"] if ROOT else ["own"])
def users_daemon(request):
    base = new_base()
    d = UsersDaemon(base, request.param)
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(base)


@pytest.fixture
def user(users_daemon):
    yield users_daemon
    assert users_daemon.process.poll() is None, users_daemon.log()[-3000:]
    users_daemon.check_log()


def test_the_mode_is_told(user):
    out = user.cli("status")
    assert out.returncode == 0, out.stderr
    told = re.search(r"^mode: (subids|one-id)$", out.stdout, re.M)
    assert told and user.mode in (told[1], "own"), out.stdout
    with open("/proc/%d/status" % user.process.pid) as f:
        ids = next(line.split()[1:] for line in f if line.startswith("Uid:"))
    assert ids == [str(UID if ROOT else os.getuid())] * 4


def test_strict_refuses_what_is_weaker(user):
    """A user's daemon has no cgroups, or one id."""
    assert "weaker: none" not in user.cli("status").stdout
    where = user.folder("strict", {})
    argv = [*user.prefix(), os.path.join(user.bin, "pipsqueakd"), "--dir", where, "--lib", os.path.join(user.bin, "lib"),
            "--strict"]
    out = subprocess.run(argv, env=user.environment(), capture_output=True, text=True, timeout=60, cwd=user.home)
    assert out.returncode and "ready" not in out.stdout
    assert "pipsqueakd: --strict: this host does not give all protection: " in out.stderr, out.stderr


def test_scripts(user):
    where = user.folder("scripts", {"a.txt": "read me", "s.py": "import os, sys\n"
                        "print(open('a.txt').read(), sys.argv[1:], os.getcwd(), __file__)\n"
                        "sys.exit(7)\n"})
    out = user.cli("run", "s.py", "x", "y z", cwd=where)
    assert out.stdout == "read me ['x', 'y z'] %s %s/s.py\n" % (where, where), out.stderr
    assert out.returncode == 7
    out = user.cli("run", "-c", "import os; print(os.getuid(), os.getpid())", cwd=where)
    assert out.stdout == "%d 2\n" % (UID if ROOT else os.getuid()), out.stderr


def has_route():
    with open("/proc/net/route") as f:
        return any(line.split()[1] == "00000000" for line in f)


def test_the_network(user):
    """Interfaces and a route of its own, by the user's own pasta; nothing of it without the flag."""
    show = "import socket; print(len(socket.if_nameindex()), sum(1 for _ in open('/proc/net/route')) > 1)"
    assert user.cli("run", "-c", show).stdout == "1 False\n"
    out = user.cli("run", "--allow-net", "-c", show)
    if has_route() and os.path.exists("/dev/net/tun") and not os.statvfs(user.top).f_flag & os.ST_NODEV:
        assert out.stdout == "2 True\n", out.stderr
    else:
        assert out.returncode != 0 and "no network can be had here" in out.stderr


def test_what_a_script_may_write(user):
    where = user.folder("writes", {"s.py": "open('made', 'w').write('x')\n"})
    out = user.cli("run", "s.py", cwd=where)
    assert out.returncode == 1 and "--allow-write" in out.stderr
    assert not os.path.exists(os.path.join(where, "made"))
    out = user.cli("run", "--allow-write", "s.py", cwd=where)
    assert out.returncode == 0, out.stderr
    assert os.stat(os.path.join(where, "made")).st_uid == (UID if ROOT else os.getuid())
    secret = user.folder("secret", {"key": "hush"})
    code = "import sys; print(open(sys.argv[1]).read())"
    out = user.cli("run", "-c", code, os.path.join(secret, "key"), cwd=where)
    assert out.returncode == 1 and "hush" not in out.stdout
    out = user.cli("run", "--allow-read=" + secret, "-c", code, os.path.join(secret, "key"), cwd=where)
    assert out.stdout == "hush\n", out.stderr


def test_packages_and_a_second_run(user):
    where = user.folder("packs", {"s.py": "# /// script\n# dependencies = ['six']\n# ///\n"
                                          "import six\nprint(six.__name__, six.__file__)\n"})
    for _ in range(2):
        out = user.cli("run", "s.py", cwd=where)
        assert out.stdout.startswith("six /pipsqueak/env/"), out.stderr
    out = user.cli("run", "-c", "import six", cwd=where)
    assert out.returncode == 1 and "No module named 'six'" in out.stderr


ATTACK = """
import os, socket, sys
def tries(f):
    try:
        return ['done', repr(f())[:200]]
    except BaseException as e:
        return ['refused', type(e).__name__]
def connect(address, kind):
    socket.socket(socket.AF_UNIX, kind).connect(address)
def handler(e):
    six = next(p for p in sys.path if p.startswith('/pipsqueak/env')) + '/six.py'
    assert os.path.exists(six)
    return {'init': tries(lambda: os.kill(1, 9)), 'tries': [tries(f) for f in (
        lambda: open(six, 'a'), lambda: os.chmod(six, 0o666), lambda: os.unlink(six),
        lambda: open('/app/handler.py', 'a'), lambda: open('/pipsqueak/lib/bootstrap.py', 'a'), lambda: open('/x', 'w'),
        lambda: os.listdir(e['home']), lambda: os.listdir('/proc/%d/fd' % e['pid']), lambda: os.kill(e['pid'], 9),
        lambda: open('/proc/1/environ').read(1), lambda: os.listdir('/proc/1/root' + e['home']),
        lambda: connect(e['base'] + '/run/api.sock', socket.SOCK_STREAM),
        lambda: connect(e['base'] + '/run/run.sock', socket.SOCK_SEQPACKET),
        lambda: socket.create_connection(('192.0.2.1', 80), 2), lambda: os.setuid(1 if os.getuid() != 1 else 2),
        lambda: os.chmod('/tmp', 0o4777), lambda: os.unshare(0x10000000) if hasattr(os, 'unshare') else [][0])]}
"""


def test_functions_and_their_walls(user):
    where = user.folder("walls", {"handler.py": ATTACK, "requirements.txt": "six\n",
                                  "pipsqueak.toml": "reuse = false\n"})
    out = user.cli("deploy", where)
    assert out.returncode == 0, out.stderr
    event = {"home": user.home, "base": user.base, "pid": user.process.pid}
    for start in ("first", "again"):
        reply = user.call("walls", event)
        assert reply.status == 200, reply.body
        tries = reply.json["tries"]
        assert len(tries) == 17 and all(r[0] == "refused" for r in tries), (start, tries)
        # Without Landlock's scopes init has the same id as the function, and the kernel takes the signal, but a
        # namespace's init does not hear SIGKILL from inside (pid_namespaces(7)): else there were no answer.
        assert reply.json["init"][0] == "refused" or user.get("/status").json["host"]["landlock_abi"] < 6
    assert user.process.poll() is None


def test_nodes_grow_and_functions_fail_typed(user):
    code = "import decimal, sqlite3, xml.dom.minidom, http.client, email.mime.text\n" \
           "def handler(e):\n    if e: raise ValueError('no')\n    return 'fine'\n"
    where = user.folder("grows", {"handler.py": code, "pipsqueak.toml": "reuse = false\ntimeout = 20\n"})
    assert user.cli("deploy", where).returncode == 0
    assert user.call("grows").json == "fine"
    before = len(user.nodes())
    for _ in range(3):
        assert user.call("grows").json == "fine"
    assert len(user.nodes()) >= before
    failed = user.call("grows", 1)
    assert failed.status == 500 and failed.error["message"] == "ValueError: no"


def test_limits(user):
    """Without cgroups what is limited is address space: memory and four gigabytes."""
    hog = user.folder("hog", {"handler.py": "def handler(e):\n    return len(bytearray(6 << 30))\n",
                              "pipsqueak.toml": 'memory = "64M"\n'})
    assert user.cli("deploy", hog).returncode == 0
    reply = user.call("hog")
    assert reply.status in (500, 502) and "emory" in reply.error["message"], reply.body
    slow = user.folder("slow", {"handler.py": "import time\ndef handler(e): time.sleep(60)\n",
                                "pipsqueak.toml": "timeout = 1\n"})
    assert user.cli("deploy", slow).returncode == 0
    assert user.call("slow").status == 504
    burns = user.folder("burns", {"handler.py": "def handler(e):\n    while e: pass\n", "pipsqueak.toml": "cpu_seconds = 1\n"})
    assert user.cli("deploy", burns).returncode == 0
    for event in (0, 1, 0):
        reply = user.call("burns", event)
        assert reply.status == (504 if event else 200), reply.body
        assert not event or "1 s of CPU time" in reply.error["message"]


if ROOT:
    def test_another_user_cannot_reach_the_sockets(user):
        code = "import os, sys\nfor n in ('api.sock', 'run.sock'):\n    try: os.stat(sys.argv[1] + '/run/' + n)\n" \
               "    except PermissionError: print('denied')\n"
        out = subprocess.run(["setpriv", "--reuid", str(UID + 1), "--regid", str(UID + 1), "--clear-groups",
                              "--inh-caps=-all", "/usr/bin/python3", "-c", code, user.base],
                             capture_output=True, text=True, timeout=60)
        assert out.stdout == "denied\ndenied\n", out.stderr


def test_sdists(user, index):
    """Limits hold with cgroups and without; the walls are those of root's daemon."""
    body = "import socket\nfound = []\nfor f in (lambda: open('/pipsqueak/env/x', 'w'), lambda: open('%s/log').read()," \
           " lambda: socket.create_connection(('127.0.0.1', %s), 2)):\n    try: found.append(f())\n" \
           "    except OSError: pass\nfiles['built.py'] = 'X = %%r' %% found"
    port = re.search(r":(\d+)/", index.url)[1]
    index.add_sdist("built", wheels.in_tree("built", body % (user.top, port)))
    out = user.cli("run", "--allow-sdist", "--index-url", index.url, "--with", "built", "-c", "import built; print(built.X)")
    assert out.stdout == "[]\n", out.stderr
    eats = "x = []\nwhile True: x.append(b'x' * (1 << 20))"
    index.add_sdist("eats", wheels.in_tree("eats", eats))
    out = user.cli("run", "--allow-sdist", "--index-url", index.url, "--with", "eats", "-c", "1")
    assert out.returncode in (6, 8) and ("memory" in out.stderr or "MemoryError" in out.stderr), out.stderr
    forks = "n = 0\ntry:\n    while n < 5000:\n        if os.fork() == 0: time.sleep(100)\n        n += 1\n" \
            "except OSError: pass\nfiles['forks.py'] = 'X = %d' % n"
    index.add_sdist("forks", wheels.in_tree("forks", forks))
    out = user.cli("run", "--allow-sdist", "--index-url", index.url, "--with", "forks", "-c", "import forks; print(forks.X)")
    assert 0 < int(out.stdout) < 300, out.stderr
