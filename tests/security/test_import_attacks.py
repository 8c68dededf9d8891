# SPDX-License-Identifier: Apache-2.0
"""Attacks as package code at import time, in a sleeping interpreter: what it can do to nodes, instances and files
beyond its own subtree (DESIGN.md, S6, S8). Each program is beside(): a process of its own in the node's sandbox, or,
if it reads what the daemon asks of the node, the node itself. It tells what it finds by printing, which the daemon's
log keeps."""
import os
import sys
import threading
import time

import pytest

from conftest import TOP
from hostile import TRIES, deploy, said
from test_zygote_lies import HANDLER, bystander, hostile  # noqa: F401

HEAD = TRIES + r"""
IN_NODE = not os.path.exists("/app/handler.py")
def tell(*words):
    while True:
        try:
            return os.write(2, (' '.join(str(w) for w in words) + '\n').encode())
        except BlockingIOError:
            time.sleep(0.01)
def corrupt():  # the interpreter's own: what it calls to sleep is beside(), for as long as that lasts
    frame = sys._getframe()
    while not hasattr(frame.f_locals.get('state'), 'c'):
        frame = frame.f_back
    c = frame.f_locals['state'].c
    sleep = c.sleep
    def instead(control, *kept):
        global CONTROL
        CONTROL, c.sleep = socket.socket(fileno=os.dup(control)), sleep
        try:
            beside()
        except BaseException as e:
            tell('DIED', repr(e))
        CONTROL.close()
        return sleep(control, *kept)
    c.sleep = instead
def forks():  # what the daemon asks: (the socket, id, descriptors by name)
    while True:
        data, control, _, _ = CONTROL.recvmsg(1 << 18, 1 << 12)
        if not data:
            os._exit(0)
        kind, _, ident, _ = struct.unpack('<HHII', data[:12])
        fds = struct.unpack('<%di' % (len(control[0][2]) // 4), control[0][2])
        at, names = 12, []
        while at + 8 <= len(data):
            tag, size = struct.unpack('<II', data[at:at + 8])
            if tag == 26:
                names = data[at + 8:at + 8 + size].decode().split('\0')
            at += 8 + size
        yield CONTROL, ident, dict(zip(names, fds))
def forked(s, ident, fds):
    s.sendmsg([frame(33, ident)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('<%di' % len(fds), *fds))])
def is_mine(p):  # in a user namespace of this node's, or of a cell made for it
    try:
        fd, own = os.open('/proc/%d/ns/user' % p, 0), os.stat('/proc/self/ns/user').st_ino
    except OSError:
        return False
    while fd >= 0 and os.fstat(fd).st_ino != own:
        parent = libc.ioctl(fd, 0xb702)  # NS_GET_PARENT
        os.close(fd)
        fd = parent
    if fd >= 0:
        os.close(fd)
    return fd >= 0
def others():  # also those that /proc does not show
    found = []
    for p in range(2, 25000):
        try:
            os.kill(p, 0)
        except PermissionError:
            pass
        except OSError:
            continue
        if p not in (os.getpid(), os.getppid()) and not is_mine(p):
            found.append(p)
    return found
"""
# A process that stays beside the sleeping node; or the node itself, which no longer does what it should.
CORRUPT = "if IN_NODE:\n    corrupt()\n"
RUN = """
if IN_NODE and os.fork() == 0:
    try:
        beside()
    except BaseException as e:
        tell('DIED', repr(e))
    os._exit(0)
"""


def grown(daemon, index, name, body):
    """A hostile package that a node has imported; (its function, where the log stood before)."""
    since = len(daemon.log())
    function = hostile(index, daemon, name, HEAD + body + (CORRUPT if "forks()" in body else RUN))
    first = daemon.call(function)
    assert first.status == 200, first.body
    daemon.becomes(lambda: "for function %s " % function in daemon.log()[since:])
    return function, since


def growing(daemon, index, name, body):
    """As grown(), but the import waits for the program: then nothing else is of this node, and nothing below it."""
    since = len(daemon.log())
    function = hostile(index, daemon, name, HEAD + body + RUN + "if IN_NODE:\n    os.wait()\n")
    first = daemon.call(function)
    assert first.status == 200, first.body
    return function, since


def gone(daemon, function):
    """Also the node: nothing of it disturbs the tests after this one."""
    assert daemon.request("DELETE", "/functions/" + function).status == 200


def steady(daemon):
    """An instance that counts its calls: had it been killed meanwhile, it would count anew."""
    deploy(daemon, "steady", "COUNT = [0]\ndef handler(e):\n    COUNT[0] += 1\n    return [COUNT[0], os.getpid()]\n")
    return daemon.call("steady").json


@pytest.mark.parametrize("whom", ["all others", "the daemon", "itself", "the cell's init"])
def test_naming_another_process_as_its_child(daemon, index, bystander, whom):  # noqa: F811
    """The daemon kills children that are not what was asked for: a node that names a process of someone else as its
    child would have it killed, moved to another cgroup, or no longer watched."""
    name = {"all others": "pidfd_of(todo.pop() if todo else 1)", "the daemon": "s.getsockopt(socket.SOL_SOCKET, 77)",
            "itself": "os.pidfd_open(os.getpid())", "the cell's init": "init_of(fds)"}[whom]
    steady(daemon)
    nodes = {n["pid"] for n in daemon.nodes()}
    function, since = grown(daemon, index, "names " + whom.replace("'", ""), """
def pidfd_of(pid):
    try: return os.pidfd_open(pid)
    except OSError: return os.pidfd_open(1)
def init_of(fds):  # the cell's pid namespace is a child of this one: its first process is seen from here
    for p in others():
        try:
            if os.stat('/proc/%%d/ns/pid' %% p).st_ino == os.fstat(fds['ns-pid']).st_ino: return os.pidfd_open(p)
        except OSError: pass
    return os.pidfd_open(max(others(), default=1))
def beside():
    end, todo = time.monotonic() + 20, []
    for s, ident, fds in forks():
        todo = todo or sorted(others())
        try:
            fd = %s
            forked(s, ident, [fd]); tell('NAMED', fd, len(todo))
        except OSError as e:
            tell('COULD NOT', e)
            forked(s, ident, [os.open('/dev/null', 0)])
        if time.monotonic() > end: return
""" % name)
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        reply = daemon.call(function)
        assert reply.status in (200, 502, 503), reply.body
        assert bystander()
    gone(daemon, function)
    named = said(daemon, since, "NAMED|COULD NOT")
    assert named, daemon.log()[since:]
    assert daemon.process.poll() is None
    assert daemon.call("steady").json[0] == 2
    now = {n["pid"] for n in daemon.nodes()}
    assert nodes <= now, "nodes %s are gone:\n%s" % (nodes - now, daemon.log()[since:])


def test_looking_at_other_processes(daemon, index, bystander):  # noqa: F811
    """Nodes of one root share its pid namespace, and those of instances lie below it."""
    function, since = growing(daemon, index, "looks", """
def beside():
    end, seen, looked = time.monotonic() + 2.5, set(), 0
    mine = {str(os.getpid()), str(os.getppid())}
    while time.monotonic() < end:
        listed = [p for p in os.listdir('/proc') if p.isdigit() and p not in mine]
        for p in listed + ['1'] + [str(p) for p in others()[-40:]]:
            for what in ('cmdline', 'environ', 'maps', 'mem', 'stack', 'auxv', 'fd', 'cwd', 'root', 'exe', 'task',
                    'stat', 'io'):
                path, looked = '/proc/%s/%s' % (p, what), looked + 1
                try:
                    got = os.listdir(path) if what in ('fd', 'task') else os.readlink(path) if what in ('cwd', 'root',
                            'exe') else open(path, 'rb').read(4096)
                    if b'argu' + b'ment-of-another' in got if isinstance(got, bytes) else False: tell('SAW', path, got)
                    elif what not in ('cmdline', 'stat', 'task') or p != '1': seen.add(what)
                except OSError:
                    pass
        time.sleep(0.01)
    tell('LOOKED', looked, 'FOUND', *sorted(seen))
    os._exit(0)
""")
    deploy(daemon, "argues", """
import subprocess
def handler(e):
    return subprocess.run([sys.executable, '-c', 'import sys, time; time.sleep(0.4); print(len(sys.argv))',
            'argument-of-another'],
                          env={'TOKEN': 'argument-of-another'}, capture_output=True, text=True).stdout
""")
    while not said(daemon, since, "LOOKED"):
        assert daemon.call("argues").json == "2\n"
        assert bystander()
        time.sleep(0.1)
    assert said(daemon, since, "SAW") == [], said(daemon, since, "SAW")[:3]
    looked, found = said(daemon, since, "LOOKED")[0].split(" FOUND")
    assert int(looked) > 100
    assert found.split() == [], found
    gone(daemon, function)


HANDS = {
    "signals": """
    for p in [1] + others():
        for f in (lambda: os.kill(p, 9), lambda: sys_(234, p, p, 9), lambda: sys_(424, os.pidfd_open(p), 9, 0, 0),
                lambda: sys_(129, p, 9, 0)):
            out.append(tries(f))
""",
    "rights over others": """
    import resource
    for p in [1] + others():
        for f in (lambda: resource.prlimit(p, resource.RLIMIT_CPU, (1, 1)), lambda: os.sched_setaffinity(p, {0}),
                lambda: os.setpriority(0, p, 19),
                  lambda: sys_(251, 1, p, 0x6007), lambda: sys_(101, 16, p, 0, 0), lambda: sys_(438,
                          os.pidfd_open(p), 0, 0),
                  lambda: open('/proc/%d/oom_score_adj' % p, 'w').write('1000'), lambda: open('/proc/%d/mem' % p,
                          'r+b', 0),
                  lambda: sys_(308, os.pidfd_open(p), 0x20000), lambda: sys_(308,
                          os.open('/proc/%d/ns/user' % p, 0), 0)):
            out.append(tries(f))
""",
    "ids and capabilities": """
    out += [tries(f) for f in (lambda: os.setuid(1), lambda: os.setuid(0x40000000), lambda: os.setgid(1),
            lambda: os.setgroups([1]),
            lambda: os.chroot('/tmp'), lambda: sys_(165, b'x', b'/tmp', b'tmpfs', 0, 0), lambda: sys_(272, 0x20000),
                    lambda: socket.sethostname('x'),
            lambda: os.mknod('/tmp/d', 0o20666, os.makedev(1, 1)), lambda: os.chown('/tmp', 1, 1))]
""",
    "the kernel's doors": """
    buf = ctypes.create_string_buffer(128)
    out += [tries(lambda c=c: sys_(*c)) for c in ((321, 0, buf.raw, 128), (298, 0, 0, -1, -1, 0), (425, 8, 0),
            (323, 0), (248, b'user', b'x', b'y', 1, -3),
            (250, 0, 0, 0), (101, 0, 0, 0, 0), (310, 1, 0, 0, 0, 0, 0), (304, 0, 0, 0), (246, 0, 0, 0, 0), (175, 0, 0,
                    b''), (169, 0, 0, 0, 0), (300, 0, 0))]
""",
    "files that are shared": """
    site = [p for p in sys.path if p.startswith('/pipsqueak/env')][0]
    out += [tries(f) for f in (lambda: open(__file__, 'a'), lambda: os.chmod(__file__, 0o777),
            lambda: os.unlink(__file__), lambda: open(site + '/new.py', 'w'),
            lambda: open('/pipsqueak/lib/bootstrap.py', 'a'), lambda: open('/usr/x', 'w'),
                    lambda: open('/etc/ld.so.preload', 'w'),
            lambda: open('/proc/sys/kernel/core_pattern', 'w'), lambda: os.utime(__file__),
                    lambda: os.rename(site, site + '2'))]
""",
    "the network": """
    def connect(f, a, k=socket.SOCK_STREAM):
        s = socket.socket(f, k); s.settimeout(1); s.connect(a)
    out += [tries(f) for f in (lambda: connect(socket.AF_INET, ('127.0.0.1', PORT)), lambda: connect(socket.AF_INET,
            ('192.0.2.1', 80)),
            lambda: connect(socket.AF_UNIX, '\\0pq-attack'), lambda: connect(socket.AF_UNIX, API),
                    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            lambda: connect(40, (2, 1024)), lambda: open(SECRET).read(),
                    lambda: open('/proc/1/root' + SECRET).read())]
""",
}


@pytest.mark.parametrize("what", HANDS)
def test_what_a_node_may_do(daemon, index, bystander, what):  # noqa: F811
    secret = os.path.join(daemon.base, "secret-of-the-host")
    with open(secret, "w") as f:
        f.write("secret")
    os.chmod(secret, 0o644)
    body = "def beside():\n    out = []\n%s\n    for r in out:\n        if r[0] != 'refused': tell('TRIED', r[0], r[1])\n" \
           "    tell('TRIED all', len(out))\n" \
           "    os._exit(0)\n" % HANDS[what]
    body = body.replace("PORT", str(daemon.port)).replace("API", repr(os.path.join(daemon.base, "run",
            "api.sock"))).replace("SECRET", repr(secret))
    steady(daemon)
    function, since = growing(daemon, index, what, body)
    daemon.becomes(lambda: said(daemon, since, "TRIED all"))
    tried = said(daemon, since, "TRIED")
    assert len(tried) == 1 and int(tried[0].split()[1]) >= 8, tried
    assert bystander() and daemon.call("steady").json[0] == 2
    gone(daemon, function)


REMOUNTS = """
def own_mounts(f):
    uid, gid = os.getuid(), os.getgid()
    sys_(272, 0x10000000 | 0x20000)
    for name, text in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid), ('gid_map', '0 %d 1' % gid)):
        try: open('/proc/self/' + name, 'w').write(text)
        except OSError: pass
    return f()
def writes(top):
    site = [p for p in sys.path if p.startswith('/pipsqueak/env')][0]
    victim = site.replace('/pipsqueak/env', top) + '/MODULE.py'
    assert os.path.exists(victim), victim
    out = [tries(lambda: os.utime(victim)), tries(lambda: os.chmod(victim, 0o666)), tries(lambda: open(victim,
            'a').write('X = 2'))]
    if all(r[0] == 'refused' for r in out):
        raise PermissionError(out[-1][1])
    return out
def remount(top, flags=4096 | 32):
    sys_(165, b'', top.encode(), b'', flags, 0)
def attr(top):
    buf = ctypes.create_string_buffer(struct.pack('QQQQ', 0, 1, 0, 0))
    sys_(442, -100, top.encode(), 0, ctypes.addressof(buf), 32)
def in_place(how):
    how('/pipsqueak/env'); return writes('/pipsqueak/env')
def bound(how):
    sys_(165, b'/pipsqueak/env', b'/tmp', b'', 4096, 0); how('/tmp'); return writes('/tmp')
def moved(how, tree):
    sys_(429, tree, b'', -100, b'/tmp', 4); how('/tmp'); return writes('/tmp')
def in_the_cell(fds):
    sys_(308, fds['ns-user'], 0); sys_(308, fds['ns-mnt'], 0)
    sys_(429, fds['mount:/pipsqueak/env'], b'', -100, b'/pipsqueak/env', 4)
    out = [tries(lambda: how('/pipsqueak/env')) for how in (remount, attr, lambda top: remount(top, 32))]
    tell('ENTERED', *out)
    return writes('/pipsqueak/env')
def apart(f):
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, repr(tries(f)).encode()); os._exit(0)
    os.close(w)
    got = os.read(r, 1 << 16).decode(); os.close(r)
    return eval(got) if got else ['refused', 'it died']
def beside():
    hows = (remount, attr, lambda top: remount(top, 32))
    out = [apart(lambda: own_mounts(lambda: f(how))) for how in hows for f in (in_place, bound)]
    used, asked = [], forks()
    for way in (lambda: in_the_cell(fds), lambda: own_mounts(lambda: moved(remount, fds['mount:/pipsqueak/env']))):
        s, ident, fds = next(asked)
        used.append(fds['mount:/pipsqueak/env'])
        out.append(apart(way))
        if len(used) == 2:  # a second refusal is this node's end
            for r in out: tell('TRIED', r[0], r[1])
            tell('TRIED all', len(out), len(used))
        s.send(frame(34, ident, field(1, b'system') + field(2, b'no')))
"""


def remounts(daemon, index):
    """A moved-in tree is not locked: a node that may make namespaces, and owns its children's cells, makes it writable.
    Then what holds is whose the files are or, where there is one id, that no node may make a mount writable."""
    function, since = grown(daemon, index, "remounts", REMOUNTS.replace("MODULE", "hostile_remounts"))
    rounds = 0
    while not said(daemon, since, "TRIED all"):
        rounds += 1
        assert rounds < 30, daemon.log()[since:]
        assert daemon.call(function).status in (200, 502, 503)
    tried = said(daemon, since, "TRIED")
    assert len(tried) == 9 and tried[-1] == "all 8 2", tried
    assert said(daemon, since, "ENTERED")
    assert all(t.startswith("refused ") for t in tried[:-1]), "\n".join(tried)
    gone(daemon, function)


def test_making_the_store_writable(daemon, index, bystander):  # noqa: F811
    remounts(daemon, index)


if os.getuid() == 0:
    sys.path.append(os.path.join(TOP, "tests", "e2e"))
    from test_users import UsersDaemon

    def test_making_the_store_writable_where_there_is_one_id(index):
        import shutil

        from conftest import new_base
        base = new_base()
        d = UsersDaemon(base, "one-id")
        try:
            remounts(d, index)
        finally:
            d.stop()
            shutil.rmtree(base)


ENDS = {
    "while it is imported": "os._exit(0)",
    "asleep": "pass",
    "by a lie": "stream().send(frame(33, 7))",
}


def named(word):
    """Processes of this machine that call themselves so."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/comm" % pid) as f:
                found += [int(pid)] if f.read().strip() == word else []
        except OSError:
            pass
    return found


@pytest.mark.parametrize("how", ENDS)
def test_outliving_its_node(daemon, index, bystander, how):  # noqa: F811
    """Forked twice, in a session and a user namespace of its own if it can, deaf to signals: it ends with the node."""
    since = len(daemon.log())
    function = hostile(index, daemon, "outlives " + how, HEAD + """
if IN_NODE:
    for n in range(3):
        if os.fork() == 0:
            run_off()
            tries(lambda: sys_(272, 0x10000000))
            sys_(157, 15, b'OUTLIVER', 0, 0, 0)
            tell('OUTLIVES')
            time.sleep(600)
        os.wait()
    time.sleep(0.2)
    %s
""" % ENDS[how])
    assert daemon.call(function).status == 200
    daemon.becomes(lambda: said(daemon, since, "OUTLIVES"))
    if how == "asleep":
        daemon.becomes(lambda: "for function %s " % function in daemon.log()[since:])
        assert len(named("OUTLIVER")) == 3
        node = [n for n in daemon.nodes() if any("outlives-asleep" in a for a in n["adds"])][0]
        os.kill(node["pid"], 9)
    assert daemon.request("DELETE", "/functions/" + function).status == 200
    daemon.becomes(lambda: named("OUTLIVER") == [])
    assert bystander()


# --- what siblings inherit ------------------------------------------------------------------------

KEEPS = {
    "a file": ("""
DATA = open(os.path.join(os.path.dirname(__file__), 'keeps_data.txt'), 'rb', 0)
""", "os.lseek(m.DATA.fileno(), 0, 2)", "m.DATA.read(5).decode()", "first"),
    "a file through a copy": ("""
DATA = os.dup(os.open(os.path.join(os.path.dirname(__file__), 'keeps_data.txt'), 0))
os.read(DATA, 1)
""", "os.lseek(m.DATA, 3, 0)", "os.read(m.DATA, 4).decode()", "irst"),
    "shared memory": ("""
import mmap
DATA = mmap.mmap(-1, 4096); DATA[:4] = b'calm'
""", "m.DATA.__setitem__(slice(0, 4), b'evil')", "m.DATA[:4].decode()", "calm"),
    "shared memory that looks read-only": ("""
import ctypes, mmap
DATA = mmap.mmap(-1, 4096); DATA[:4] = b'calm'
AT = ctypes.addressof(ctypes.c_char.from_buffer(DATA))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(AT), 4096, 1) == 0
""", "(libc.mprotect(ctypes.c_void_p(m.AT), 4096, 3), ctypes.memmove(m.AT, b'evil', 4))",
                                           "m.DATA[:4].decode()", "calm"),
    "System V memory": ("""
import ctypes
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
AT = libc.shmat(libc.shmget(0, 4096, 0o1666), None, 0)
ctypes.memmove(AT, b'calm', 4)
""", "ctypes.memmove(m.AT, b'evil', 4)", "ctypes.string_at(m.AT, 4).decode()", "calm"),
    "a pipe": ("""
DATA = os.pipe()
os.write(DATA[1], b'calm')
""", "os.read(m.DATA[0], 4)", "os.read(m.DATA[0], 4).decode()", "calm"),
    "a directory": ("""
DATA = os.open(os.path.dirname(__file__), os.O_RDONLY)
""", "None", "repr([os.path.samestat(os.stat('../' * 12, dir_fd=m.DATA), os.stat('/')), os.listdir('/app')])",
                    "[True, ['pipsqueak.toml', 'handler.py', 'requirements.txt', '__pycache__']]"),
    "a memory file": ("""
DATA = os.memfd_create('x'); os.write(DATA, b'calm')
""", "os.pwrite(m.DATA, b'evil', 0)", "os.pread(m.DATA, 4, 0).decode()", "calm"),
}


@pytest.mark.parametrize("name", KEEPS)
def test_what_siblings_inherit(daemon, index, name):
    """A harmless package keeps something; a malicious function changes it; another sees nothing of that."""
    body, change, look, want = KEEPS[name]
    index.add("keeps", {"keeps.py": "import os, time\ntime.sleep(0.02)\n" + body,
            "keeps_data.txt": "first line\nsecond line\n"})
    toml, since = "reuse = false\n", len(daemon.log())
    look = "import keeps as m\ndef handler(e):\n    return %s\n" % look
    times = 1 if name == "a pipe" else 3
    change = "import keeps as m\ndef handler(e):\n    for _ in range(%d):\n        done = tries(lambda: %s)\n" \
             "    return done\n" % (times, change)
    deploy(daemon, "changes", change, index.settings, toml, "keeps")
    deploy(daemon, "sees", look, index.settings, toml, "keeps")
    first = daemon.call("sees")
    daemon.becomes(lambda: "for function " in daemon.log()[since:])
    for n in range(4):
        changed = daemon.call("changes")
        assert changed.status == 200 and changed.json[0] == "done", changed.body
        seen = daemon.call("sees")
        if name == "a directory":
            assert seen.json.startswith("[True,"), (n, seen.start, seen.body)
        else:
            assert seen.json == want == first.json, (n, seen.start, seen.body)
    threads = [threading.Thread(target=daemon.call, args=("changes",)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert daemon.call("sees").status == 200
    for function in ("changes", "sees"):
        gone(daemon, function)


def test_poison_for_later_forks(daemon, index):
    """What a function does to a module, and a package to its node, is not in another's node or process."""
    index.add("poisons", {"poisons.py": "import time; time.sleep(0.02)\nimport json, os, builtins, sys\njson.dumps = lambda *a: 'poisoned'\n"
                                        "os.getcwd = lambda: 'poisoned'\nbuiltins.sorted = lambda *a: 'poisoned'\nsys.path.insert(0, '/tmp')\n"})
    index.add("plain-one", {"plain_one.py": "import time; time.sleep(0.02)\nVALUE = [1]\n"})
    code = "import %s\nimport json\ndef handler(e):\n    return [json.dumps([1]), os.getcwd(), sorted([2, 1]), '/tmp' in sys.path]\n"
    deploy(daemon, "poisoned", code % "poisons", index.settings, "reuse = false\n", "poisons")
    deploy(daemon, "clean", code % "plain_one", index.settings, "reuse = false\n", "plain-one")
    deploy(daemon, "bends",
            "import plain_one, json\ndef handler(e):\n    json.dumps = os.getcwd = lambda *a: 'bent'\n    plain_one.VALUE[0] = 'bent'\n"
           "    return plain_one.VALUE\n", index.settings, "reuse = false\n", "plain-one")
    for _ in range(3):
        assert daemon.call("poisoned").json == ["poisoned", "poisoned", "poisoned", True]
        assert daemon.call("bends").json == ["bent"]
        assert daemon.call("clean").json == ["[1]", "/app", [1, 2], False]
        daemon.wait_for_node("poisons")
        daemon.wait_for_node("plain-one")
    for function in ("poisoned", "clean", "bends"):
        gone(daemon, function)
