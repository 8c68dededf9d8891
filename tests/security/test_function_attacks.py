# SPDX-License-Identifier: Apache-2.0
"""More attacks as function code: on other functions, on the host, on what all share, on the daemon's own words."""
import os
import socket
import threading
import time

import pytest

from conftest import of_daemon
from hostile import all_refused, attack, deploy

VICTIM = """
KEPT = 'code-SECRETA'
def handler(e):
    open('/tmp/kept', 'w').write(''.join(('file-', 'SECRETB')))
    handler.memory = ''.join(('memory-', 'SECRETC', e))
    return scan(MARKS) if e.endswith('look') else os.getpid()
MARKS = [('code-', 'SECRETA'), ('file-', 'SECRETB'), ('memory-', 'SECRETC'), ('event-', 'SECRETD'), ('environ-',
        'SECRETE')]
"""


def test_anothers_secrets(daemon):
    """Code, file, memory, event and environment of a function that is warm meanwhile, looked for everywhere."""
    deploy(daemon, "victim-kept", VICTIM, toml="[env]\nTOKEN = \"environ-SECRETE\"\n")
    assert daemon.call("victim-kept", "event-SECRETD").status == 200
    own = daemon.call("victim-kept", "event-SECRETD look").json
    assert {s.split(": ")[1] for s in own["seen"]} == {"code-", "file-", "memory-", "event-", "environ-"}, own
    found = attack(daemon, "thief-kept", """
def handler(e):
    return scan([(k + '-', 'SECRET' + v) for k, v in (('code', 'A'), ('file', 'B'), ('memory', 'C'), ('event', 'D'),
            ('environ', 'E'))])
""")
    assert found["places"] > 100 and found["seen"] == [], found
    assert daemon.call("victim-kept", "x").json == daemon.call("victim-kept", "y").json  # it was there all the time


def test_the_event_of_the_call_before(daemon):
    """Without reuse, nothing of one call is readable in the next, though they share a cell (python/again.c)."""
    body = """
def handler(e):
    found = scan([('mark-', 'EVENT'), ('left-', 'FILE')])
    for place in ('/tmp/left', '/dev/shm/left', '/home/user/left'):
        open(place, 'w').write(''.join(('left-', 'FILE')))
    return found
"""
    deploy(daemon, "forgets", body, toml="reuse = false\n")
    marked = daemon.call("forgets", "mark-EVENT")
    assert any("mark-" in s for s in marked.json["seen"]), marked.body  # it finds what is there
    for _ in range(8):
        found = daemon.call("forgets", "plain").json
        assert found["places"] > 20 and found["seen"] == [], found
        daemon.call("forgets", "mark-EVENT")


LISTENS = {
    "an abstract socket": ("""
s = socket.socket(socket.AF_UNIX)
def listen():
    s.bind('\\0pq-attack'); s.listen(9)
def reach():
    c = socket.socket(socket.AF_UNIX); c.connect('\\0pq-attack')
""", "refused"),
    "an abstract datagram socket": ("""
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def listen():
    s.bind('\\0pq-attack-dgram')
def reach():
    c = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); c.sendto(b'x', '\\0pq-attack-dgram')
""", "refused"),
    "a netlink socket": ("""
def listen():
    global s
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2); s.bind((77, 0))
def reach():
    c = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2); c.sendto(b'x', (77, 0))
""", "refused"),
    "System V memory": ("""
def listen():
    global got
    got = sys_(29, 4711, 4096, 0o1000 | 0o666)
def reach():
    return sys_(29, 4711, 4096, 0o666)
""", "refused"),
    "System V messages and semaphores": ("""
def listen():
    sys_(68, 4711, 0o1000 | 0o666); sys_(64, 4711, 1, 0o1000 | 0o666)
def reach():
    try:
        return sys_(68, 4711, 0o666)
    except OSError:
        return sys_(64, 4711, 1, 0o666)
""", "refused"),
    "a POSIX queue": ("""
def listen():
    sys_(240, b'pq-attack', os.O_CREAT | os.O_RDWR, 0o666, 0)
def reach():
    return sys_(240, b'pq-attack', os.O_RDWR, 0o666, 0)
""", "refused"),
    "shared memory by name": ("""
def listen():
    open('/dev/shm/pq-attack', 'w').close()
def reach():
    return open('/dev/shm/pq-attack').read()
""", "refused"),
    "the network": ("""
s = socket.socket(socket.AF_INET)
def listen():
    s.bind(('0.0.0.0', 7711)); s.listen(9)
def reach():
    c = socket.socket(socket.AF_INET); c.settimeout(1)
    if ROLE != 'attacker':
        return c.connect_ex(('127.0.0.1', 7711))  # there is no loopback in a network that is none
    c.connect(('127.0.0.1', 7711))
""", "refused"),
}


@pytest.mark.parametrize("name", LISTENS)
def test_reaching_another_function(daemon, name):
    """One function offers it and reaches it itself; another, at the same time, does not."""
    body, want = LISTENS[name]
    deploy(daemon, "offers", "ROLE = 'victim'\n" + body + """
def handler(e):
    if not e:
        return tries(listen)
    return tries(reach)
""")
    offered = daemon.call("offers", 0).json
    assert offered[0] == "done" or name in ("a netlink socket", "a POSIX queue"), offered
    if offered[0] == "done":
        assert daemon.call("offers", 1).json[0] == "done"
    report = attack(daemon, "reaches", "ROLE = 'attacker'\n" + body + "\ndef handler(e): return tries(reach)\n")
    assert report[0] == want, report


def test_the_init_of_its_cell(daemon):
    """Process 1 of the cell is a program of ours with no filter over it: it must not become the attacker's hands."""
    report = attack(daemon, "inits", """
def handler(e):
    buf = ctypes.create_string_buffer(16)
    vec = struct.pack('QQ', ctypes.addressof(buf), 8)
    return [tries(lambda: open('/proc/1/mem', 'r+b', 0)), tries(lambda: open('/proc/1/maps').read()),
            tries(lambda: open('/proc/1/environ').read()),
            tries(lambda: [os.readlink('/proc/1/fd/' + n) for n in os.listdir('/proc/1/fd')] + [][0:0]),
                    tries(lambda: os.readlink('/proc/1/exe')),
            tries(lambda: os.readlink('/proc/1/root')), tries(lambda: os.readlink('/proc/1/cwd')),
                    tries(lambda: os.open('/proc/1/fd/0', os.O_RDWR)),
            tries(lambda: open('/proc/1/oom_score_adj', 'w').write('1000')),
                    tries(lambda: sys_(101, 0x4206, 1, 0, 0)),
            tries(lambda: sys_(438, os.pidfd_open(1), 0, 0)), tries(lambda: sys_(312, os.getpid(), 1, 0, 0, 0))]
""")
    all_refused(report, 12)


def test_the_daemon_by_the_peer_of_a_socket(daemon):
    """The kernel tells who made the other end of a socket; what it gives must be good for nothing."""
    report = attack(daemon, "peers", """
def handler(e):
    s = stream()
    pid, uid, gid = struct.unpack('3i', s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        peer = s.getsockopt(socket.SOL_SOCKET, 77)  # SO_PEERPIDFD
    except OSError:
        peer = -1
    return {'pid': pid, 'tries': [tries(lambda: sys_(424, peer, 9, 0, 0)), tries(lambda: sys_(424, peer, 0, 0, 0)),
            tries(lambda: sys_(438, peer, 0, 0)),
            tries(lambda: os.setns(peer, 0x20000) if hasattr(os, 'setns') else sys_(308, peer, 0x20000)),
                    tries(lambda: os.kill(pid, 9) if pid > 2 else 1 // 0),
            tries(lambda: sys_(440, peer, 0, 0, 21, 0))]}
""")
    all_refused(report["tries"], 6)
    assert daemon.process.poll() is None


def test_descriptors_left_open(daemon):
    """What a function holds before it opened anything, and what can be made of it."""
    report = attack(daemon, "left-open", """
import stat
def handler(e):
    found = []
    for n in sorted(os.listdir('/proc/self/fd'), key=int):
        try:
            st, where = os.fstat(int(n)), os.readlink('/proc/self/fd/' + n)
        except OSError:
            continue  # the listing's own
        kind = {stat.S_IFCHR: 'device', stat.S_IFIFO: 'pipe', stat.S_IFSOCK: 'socket',
                stat.S_IFDIR: 'directory'}.get(stat.S_IFMT(st.st_mode), 'other')
        found.append([int(n), kind, where if kind not in ('pipe', 'socket') else ''])
    return {'found': found, 'tries': [tries(lambda: os.open('..', os.O_RDONLY, dir_fd=f[0])) for f in found]
            + [tries(lambda: open('/proc/self/fd/1', 'rb', 0).read(1)), tries(lambda: sys_(303, 1,
                    b'', 0, 0, 0x1000))]}
""")
    assert [f[1] for f in report["found"]] == ["device", "pipe", "pipe", "socket"], report
    assert report["found"][0][2] == "/dev/null", report
    all_refused(report["tries"], 6)


def test_signals_and_rights_over_others(daemon):
    """By every call that names a process: those of the host are not there, and limits only go down."""
    report = attack(daemon, "signals", """
import resource, signal
def handler(e):
    out = []
    for pid in e:
        out += [tries(lambda: os.kill(pid, 9)), tries(lambda: sys_(129, pid, 9, 0)),
                tries(lambda: sys_(234, pid, pid, 9)),
                tries(lambda: os.pidfd_open(pid)), tries(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
                tries(lambda: os.sched_setaffinity(pid, {0})),
                        tries(lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))),
                tries(lambda: os.getpgid(pid)), tries(lambda: os.getsid(pid)), tries(lambda: os.waitpid(pid,
                        os.WNOHANG))]
    out += [tries(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))),
            tries(lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1))),
            tries(lambda: os.nice(-5)), tries(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))]
    return out
""", event=[daemon.process.pid, os.getpid()])
    all_refused(report, 24)
    assert os.sched_getaffinity(0) == os.sched_getaffinity(daemon.process.pid)


def test_a_kernels_other_doors(daemon):
    """What the kernel shows of the machine in /proc and /sys is read-only or not there."""
    report = attack(daemon, "doors", """
def handler(e):
    paths = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sysrq-trigger',
            '/proc/sys/vm/drop_caches', '/proc/sys/vm/overcommit_memory',
             '/proc/sys/fs/file-max', '/proc/sys/net/ipv4/ip_forward', '/proc/sys/user/max_user_namespaces',
                     '/proc/self/uid_map', '/proc/self/gid_map',
             '/proc/self/setgroups', '/proc/irq/0/smp_affinity', '/proc/acpi/wakeup', '/proc/fs/nfsd/x',
                     '/sys/fs/cgroup/cgroup.procs', '/sys/power/state']
    return [tries(lambda p=p: os.write(os.open(p, os.O_WRONLY), b'1')) for p in paths]
""")
    all_refused(report, 16)


SNEAKS = r"""
import os
def tries(f):
    try: return ['done', repr(f())[:100]]
    except BaseException as e: return ['refused', type(e).__name__]
secret, outside = sys.argv[1], sys.argv[2]
top = os.getcwd()
print([
  tries(lambda: open('link').read()), tries(lambda: open('up/secret').read()),
          tries(lambda: open('../outside/secret').read()),
  tries(lambda: open(top + '/../outside/secret').read()), tries(lambda: open(secret).read()),
          tries(lambda: open('/proc/self/cwd/../outside/secret').read()),
  tries(lambda: open('/proc/self/root' + secret).read()), tries(lambda: os.listdir(outside)),
          tries(lambda: os.rename('inside', '../outside/moved')),
  tries(lambda: os.link('../outside/secret', 'linked')), tries(lambda: os.link(secret, 'linked')),
          tries(lambda: open('link', 'a').write('x')),
  tries(lambda: open('up/new', 'w')), tries(lambda: os.symlink(secret, 'again') or open('again').read()),
          tries(lambda: os.unlink('../outside/secret')),
  tries(lambda: os.open('../outside/secret', os.O_RDONLY, dir_fd=os.open('.', os.O_RDONLY))),
          tries(lambda: os.rmdir(top)),
  tries(lambda: os.chdir('..') or open('outside/secret').read()), tries(lambda: os.mknod('dev', 0o20666,
          os.makedev(1, 1))),
])
""".replace("import os\n", "import os, sys\n", 1)


@pytest.mark.parametrize("flag", ["--allow-read=.", "--allow-write=."])
def test_out_of_a_grant(daemon, workdir, flag):
    """By symlinks that lie in it, by "..", by hard links, by renaming: what was granted is one directory."""
    granted, outside = os.path.join(workdir, "granted"), os.path.join(workdir, "outside")
    os.mkdir(granted)
    os.mkdir(outside)
    for path in (os.path.join(outside, "secret"), os.path.join(granted, "inside")):
        with open(path, "w") as f:
            f.write("secret")
    os.symlink(os.path.join(outside, "secret"), os.path.join(granted, "link"))
    os.symlink("../outside", os.path.join(granted, "up"))
    for where, folders, names in os.walk(workdir):
        for name in (".", *folders, *names):
            if not os.path.islink(os.path.join(where, name)):
                os.chmod(os.path.join(where, name), 0o777)
    out = daemon.cli("run", flag, "-c", SNEAKS, os.path.join(outside, "secret"), outside, cwd=granted)
    assert out.returncode == 0, out.stderr
    all_refused(eval(out.stdout), 19)
    assert os.listdir(outside) == ["secret"] and open(os.path.join(outside, "secret")).read() == "secret"
    assert {"inside", "link", "up"} <= set(os.listdir(granted)) <= {"inside", "link", "up", "again"}


# --- what all share: exhausted by one, there for another ----------------------------------------

EXHAUSTS = {
    "inodes": """
def handler(e):
    n = 0
    try:
        while n < 300000:
            os.mkdir('/tmp/%d' % n); n += 1
    except OSError:
        pass
    return n
""",
    "bytes of /tmp": """
def handler(e):
    n, fd = 0, os.open('/tmp/x', os.O_CREAT | os.O_WRONLY)
    try:
        while n < 1 << 12:
            n += os.write(fd, bytes(1 << 20)) >> 20
    except OSError:
        pass
    return n
""",
    "descriptors": """
def handler(e):
    kept = []
    try:
        while len(kept) < 100000:
            kept.append(os.dup(0))
    except OSError:
        pass
    return len(kept)
""",
    "descriptors under way": """
def handler(e):
    n, kept = 0, []
    try:
        while n < 100000:
            a, b = socket.socketpair()
            kept.append((a, b))
            for _ in range(100):
                socket.send_fds(a, [b'x'], [0] * 200, socket.MSG_DONTWAIT); n += 200
    except OSError:
        pass
    return n
""",
    "inotify": """
def handler(e):
    n = 0
    try:
        while n < 2000:
            sys_(294, 0); n += 1
    except OSError:
        pass
    return n
""",
    "timers": """
def handler(e):
    n, made = 0, ctypes.c_int()
    while n < 300000 and libc.timer_create(1, None, ctypes.byref(made)) == 0:
        n += 1
    return n
""",
    "POSIX queues": """
def handler(e):
    n = 0
    try:
        while n < 5000:
            sys_(240, b'q%d' % n, os.O_CREAT | os.O_RDWR, 0o600, 0); n += 1
    except OSError:
        pass
    return n
""",
    "System V memory": """
def handler(e):
    n = 0
    try:
        while n < 4096:
            ctypes.memset(sys_(30, sys_(29, 0, 1 << 20, 0o600), 0, 0), 1, 1 << 20)
            n += 1
    except OSError:
        pass
    return n
""",
    "pipes": """
def handler(e):
    n, kept = 0, []
    try:
        while n < 5000:
            kept.append(os.pipe()); os.set_blocking(kept[-1][1], False)
            try:
                n += os.write(kept[-1][1], bytes(65536)) >> 16
            except BlockingIOError:
                pass
    except OSError:
        pass
    return n
""",
}
# What another function, meanwhile, needs of each.
NEEDS = """
def handler(e):
    made = ctypes.c_int()
    os.mkdir('/tmp/a'); open('/tmp/b', 'w').write('x' * 100000)
    a, b = socket.socketpair()
    socket.send_fds(a, [b'x'], [0, 1, 2])
    got = socket.recv_fds(b, 1, 9)[1]
    kept = [os.dup(0) for _ in range(500)]
    timer = [libc.timer_create(1, None, ctypes.byref(made)) for _ in range(20)]
    return [len(got), len(kept), sum(timer), sys_(294, 0) > 0, sys_(29, 0, 1 << 20, 0o600) >= 0]
"""
# At most so many of each: where a number is ours to choose.
MOST = {"inodes": 100000, "bytes of /tmp": 512, "descriptors": 1024, "System V memory": 128, "inotify": 16}


@pytest.mark.parametrize("name", EXHAUSTS)
def test_exhausting(daemon, name):
    """One function takes what it can and keeps it; another, and the host, find what they need."""
    held = daemon.descriptors()
    deploy(daemon, "takes", EXHAUSTS[name], toml="memory = \"128M\"\n")
    reply = daemon.call("takes", None)
    assert reply.status in (200, 502), reply.body
    if reply.status == 200:
        assert (0 < reply.json or name == "POSIX queues") and reply.json <= MOST.get(name, 400000), reply.json
    else:
        assert "memory" in reply.error["message"], reply.body
    needy = attack(daemon, "needs", NEEDS)
    assert needy == [3, 500, 0, True, True], needy
    with open("/proc/self/fd/0"), socket.socket() as s:
        s.bind(("127.0.0.1", 0))
    import ctypes
    fd = ctypes.CDLL(None).inotify_init()
    assert fd >= 0
    os.close(fd)
    daemon.request("DELETE", "/functions/takes")
    daemon.becomes(lambda: daemon.descriptors() <= held + 40)
    assert daemon.call("needs").status == 404


# --- the daemon's own words -----------------------------------------------------------------------

ANSWER = "frame(51, %s, field(9, b'\"forged\"') + field(16, b'json') + field(10, b'\\0' * 8))"
WORDS = {
    "answers twice": ("s.sendall(%s * 2)" % (ANSWER % "int(c.request_id)"), {200, 502}),
    "answers for another call": ("[s.sendall(%s) for n in range(1, 3)]" % (ANSWER % "int(c.request_id) + n"), {200, 502}),
    "never answers": ("time.sleep(60)", {504}),
    "answers without an end": ("s.sendall(frame(51, int(c.request_id), b'', 16 << 20) + bytes(8 << 20)); time.sleep(60)", {504, 502}),
    "answers a byte at a time": ("[(s.sendall(bytes([b])), time.sleep(0.1)) for b in %s]" % (ANSWER % "int(c.request_id)"), {504, 502}),
    "sends descriptors": ("""for _ in range(300):
        s.sendmsg([frame(52)[:1]], [(socket.SOL_SOCKET,
                socket.SCM_RIGHTS, struct.pack('<100i', *([0] * 100)))])""", {502}),
    "profiles without end": ("""body = frame(52, 0, field(8, b'sys\\0' * 200000))
    end = time.monotonic() + 4
    while time.monotonic() < end: s.sendall(body)""", {502}),
    "small words without end": ("""body = frame(52) * 5000
    end = time.monotonic() + 4
    while time.monotonic() < end: s.sendall(body)""", {502}),
    "says that it may be used again": ("s.sendall(frame(58, 0, field(10, bytes(8)))); time.sleep(0.3)", {200, 502}),
    "shuts its stream": ("s.shutdown(socket.SHUT_RDWR); time.sleep(0.3)", {502, 504}),
    "reads what is not for it": ("s.settimeout(0.3); print(s.recv(1 << 20))", {500, 502}),
}


# Where each call is a process's own, what it says reaches the process that stays; in the rest it is the same.
ALONE = ("answers twice", "answers for another call", "never answers", "says that it may be used again",
        "shuts its stream")


@pytest.mark.parametrize("name, reuse", [(name, "true") for name in WORDS] + [(name, "false") for name in ALONE])
def test_what_an_instance_says(daemon, name, reuse):
    """On the link by which it answers. Who asked gets one answer, and another function all of its own, at once."""
    what, allowed = WORDS[name]
    deploy(daemon, "quick", "def handler(e): return e\n")
    assert daemon.call("quick", 0).json == 0
    deploy(daemon, "says", """
def handler(e, c):
    os.write(2, b'attack %%d\\n' %% e)
    if e != 'plain' and e:
        s = stream()
        %s
    return ['mine', e]
""" % what.replace("\n    ", "\n        "), toml="reuse = %s\ntimeout = 1\n" % reuse)
    held = daemon.descriptors()
    assert daemon.call("says", 0).json == ["mine", 0]
    replies, slowest = [], 0
    t = threading.Thread(target=lambda: replies.append(daemon.call("says", 1)))
    t.start()
    while t.is_alive():
        began = time.monotonic()
        assert daemon.call("quick", 5).json == 5
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.01)
    t.join()
    assert slowest < 1, slowest
    assert replies[0].status in allowed, replies[0].body
    assert "attack 1" in daemon.get("/functions/says/logs").body.decode()
    for n in (0, 0):  # whoever calls next gets no answer that was made for another
        reply = daemon.call("says", n)
        assert reply.status == 502 or reply.json == ["mine", n], reply.body
    daemon.request("DELETE", "/functions/says")
    daemon.becomes(lambda: daemon.descriptors() <= held + 40)


OUTLIVES = """
import signal
def handler(e):
    if e == 'look':
        others = [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 2 and int(p) != os.getpid()]
        return [open('/proc/%s/cmdline' % p).read()[:40] for p in others]
    if os.fork() == 0:
        os.setsid()
        for s in range(1, 65):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        s = stream()
        end = time.monotonic() + 60
        if os.fork() == 0:
            while time.monotonic() < end:  # a new process each time: what is killed is a step behind
                if os.fork(): os._exit(0)
                try: s.send(frame(51, e, field(9, b'"forged"') + field(16, b'json')) if e else b'')
                except OSError: pass
        os._exit(0)
    time.sleep(0.05)
    return 'left'
"""


def test_outliving_its_call(daemon):
    """A child of a child, ever forking, deaf to signals: the call after it is alone in its cell."""
    deploy(daemon, "outlives", OUTLIVES, toml="reuse = false\ntimeout = 5\nprocesses = 20\n")
    assert daemon.call("outlives", "look").json == []
    for _ in range(5):
        reply = daemon.call("outlives", 0)
        assert reply.status == 200 and reply.json == "left", reply.body
        reply = daemon.call("outlives", "look")
        assert reply.status == 200 and reply.json == [], reply.body
    before = len(of_daemon(daemon.process.pid)[0])
    daemon.request("DELETE", "/functions/outlives")
    daemon.becomes(lambda: len(of_daemon(daemon.process.pid)[0]) <= before)
