# SPDX-License-Identifier: Apache-2.0
"""Attacks as function code. Each tries, reports what it managed, and must have managed nothing; the
report itself proves that the attack ran."""
import errno
import os
import socket
import threading
import time

from hostile import TRIES, all_refused


def attack(daemon, name, body, event=None, **files):
    sources = {"handler.py": TRIES + body}
    sources.update({k.replace("__", "."): v for k, v in files.items()})
    daemon.deployed(name, sources)
    reply = daemon.call(name, event)
    assert reply.status == 200, reply.body
    return reply.json


def test_another_functions_package(daemon):
    daemon.deployed("victim", {"handler.py": "import numpy\ndef handler(e): return 1",
                               "requirements.txt": "numpy", "pipsqueak.toml": "reuse = false"})
    daemon.call("victim")
    daemon.wait_for_node("numpy")
    found = attack(daemon, "thief", """
def handler(e):
    seen = []
    for top in ('/usr/lib/python3', '/usr/local/lib', '/usr/share/python-wheels', '/pipsqueak', '/app', '/home', '/tmp', '/var', '/root', '/opt', '/mnt'):
        for where, dirs, files in os.walk(top):
            seen += [os.path.join(where, d) for d in dirs if d.lower() in ('numpy', 'packaging', 'pip', 'resolvelib')]
    return {'import': tries(lambda: __import__('numpy')), 'loaded': [m for m in sys.modules if 'numpy' in m],
            'pip': tries(lambda: __import__('pip')), 'seen': seen}
""")
    assert found["import"][0] == found["pip"][0] == "refused"
    assert found["loaded"] == []
    assert [p for p in found["seen"] if "/node_modules/" not in p] == []  # a host's npm has its own


def test_writing_to_the_store(daemon):
    report = attack(daemon, "store", """
def handler(e):
    site = [p for p in sys.path if p.startswith('/pipsqueak/env')][0]
    target = os.path.join(site, 'six.py')
    assert os.path.exists(target)
    return [tries(lambda: open(target, 'a')), tries(lambda: os.unlink(target)), tries(lambda: os.chmod(target, 0o777)),
            tries(lambda: open(os.path.join(site, 'new.py'), 'w')), tries(lambda: os.rename(site, site + '2')),
            tries(lambda: open('/app/handler.py', 'a')), tries(lambda: open('/usr/x', 'w')),
            tries(lambda: open('/pipsqueak/lib/bootstrap.py', 'a')), tries(lambda: os.mkdir('/x'))]
""", requirements__txt="six")
    all_refused(report)


def test_the_daemons_sockets(daemon):
    report = attack(daemon, "sockets", """
import stat
def handler(e):
    found = []
    for where, dirs, files in os.walk('/'):
        if where.startswith(('/proc', '/usr')):
            dirs.clear()
        for f in files:
            try:
                if stat.S_ISSOCK(os.lstat(os.path.join(where, f)).st_mode):
                    found.append(os.path.join(where, f))
            except OSError:
                pass
    def connect(address, kind=socket.SOCK_STREAM):
        s = socket.socket(socket.AF_UNIX, kind)
        s.connect(address)
    with open('/proc/net/unix') as f:
        abstract = [line.split()[-1] for line in f if '@' in line]
    return {'found': found, 'abstract': abstract,
            'tries': [tries(lambda: connect(e[0])), tries(lambda: connect(e[1], socket.SOCK_SEQPACKET)),
                      tries(lambda: connect('\\0pipsqueak'))]}
""", event=[os.path.join(daemon.base, "run", n) for n in ("api.sock", "run.sock")])
    assert report["found"] == [] and report["abstract"] == []
    all_refused(report["tries"])


def test_host_files(daemon):
    secret = os.path.join(daemon.base, "secret")
    with open(secret, "w") as f:
        f.write("secret")
    os.chmod(secret, 0o644)
    report = attack(daemon, "files", """
def handler(e):
    paths = [e, '/etc/shadow', '/etc/gshadow', '/root/.bashrc', '/proc/1/root' + e, '/proc/1/environ', '/proc/1/cwd/etc/shadow',
             '/proc/self/root/../..' + e, '/proc/kcore', '/dev/mem', '/dev/vda', '/var/lib/dpkg/status', '/sys/kernel/notes']
    return [tries(lambda p=p: open(p, 'rb').read(10)) for p in paths]
""", event=secret)
    all_refused(report)


def test_other_processes(daemon):
    report = attack(daemon, "others", """
def handler(e):
    pids = [int(p) for p in os.listdir('/proc') if p.isdigit()]
    return {'pids': pids, 'kill': [tries(lambda p=p: os.kill(p, 9)) for p in e], 'self': os.getpid(), 'parent': os.getppid(),
            'init': tries(lambda: os.kill(1, 9))}
""", event=[daemon.process.pid, os.getpid()])
    assert set(report["pids"]) == {1, 2} and report["self"] == 2 and report["parent"] == 0
    all_refused(report["kill"])
    assert daemon.process.poll() is None


def test_the_network(daemon):
    report = attack(daemon, "network", """
def handler(e):
    def connect(address):
        s = socket.create_connection(address, 2)
    return [tries(lambda: connect(('127.0.0.1', e))), tries(lambda: connect(('192.0.2.1', 80))),
            tries(lambda: socket.getaddrinfo('example.org', 80)), tries(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
            tries(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))]
""", event=daemon.port)
    all_refused(report)


def test_namespaces_and_mounts(daemon):
    report = attack(daemon, "mounts", """
def handler(e):
    u = 0x10000000
    calls = [(272, u), (272, 0x20000), (272, 0x40000000), (56, u | 17, 0, 0, 0, 0), (435, 0, 88), (165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0),
             (165, b'', b'/', b'', 4096 | 32, 0), (166, b'/usr', 2), (155, b'/', b'/tmp'), (161, b'/tmp'), (428, -100, b'/', 1),
             (429, -1, b'', -100, b'/tmp', 4), (430, b'tmpfs', 0), (442, -100, b'/', 0, 0, 0), (308, 0, 0), (170, b'x', 1)]
    return [tries(lambda c=c: sys_(*c)) for c in calls]
""")
    all_refused(report)


def test_ptrace_and_kernel_interfaces(daemon):
    report = attack(daemon, "ptrace", """
def handler(e):
    buf = ctypes.create_string_buffer(64)
    calls = [(101, 16, 1, 0, 0), (310, 1, ctypes.addressof(buf), 1, ctypes.addressof(buf), 1, 0), (438, 0, 0, 0), (321, 0, 0, 0),
             (298, 0, 0, -1, -1, 0), (248, b'user', b'x', b'y', 1, -3), (250, 0, 0, 0), (425, 8, 0), (323, 0), (175, 0, 0, b''),
             (246, 0, 0, 0, 0), (304, 0, 0, 0), (103, 3, 0, 0), (169, 0, 0, 0, 0), (167, b'/x', 0), (227, 0, 0)]
    return [tries(lambda c=c: sys_(*c)) for c in calls]
""")
    all_refused(report)


def test_what_is_not_listed_does_not_exist(daemon):
    """System calls that no list names, and all that are younger than the filter."""
    report = attack(daemon, "unlisted", """
def handler(e):
    new = [452] + list(range(457, 600))  # fchmodat2, statmount, mseal ...
    old = [447, 435, 437, 448, 216]  # memfd_secret, clone3, openat2, process_mrelease, remap_file_pages
    out = {}
    for nr in new + old:
        ctypes.set_errno(0)
        out[nr] = (libc.syscall(nr, -1, -1, -1, -1, -1, -1), ctypes.get_errno())
    return out
""")
    listed = report.pop("216")  # is listed: it comes as far as its arguments
    assert listed == [-1, errno.EINVAL] and len(report) > 140
    assert all(answer == [-1, errno.ENOSYS] for answer in report.values()), report
    daemon.deployed("x32", {"handler.py": TRIES + "def handler(e): return sys_(0x40000000 + 39)"})
    reply = daemon.call("x32")
    assert reply.status == 502 and "signal 31" in reply.json["error"]["message"], reply.body


def test_sockets_that_leave_the_sandbox(daemon):
    """vsock is of no namespace: it would reach the hypervisor. High bits of an int count for nothing."""
    report = attack(daemon, "sockets", """
def handler(e):
    out = {}
    for family in range(64):
        for high in (0, 1 << 32):
            ctypes.set_errno(0)
            fd = libc.syscall(41, ctypes.c_long(family | high), ctypes.c_long(2), ctypes.c_long(0))
            out['%d %d' % (family, high > 0)] = fd if fd < 0 else family
            if fd >= 0:
                os.close(fd)
    return {name: family for name, family in out.items() if family >= 0}
""")
    assert set(report.values()) == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}


def test_ids_and_set_id_files(daemon):
    report = attack(daemon, "ids", """
def handler(e):
    open('/tmp/f', 'w').close()
    return [tries(lambda: os.setuid(1)), tries(lambda: os.setgid(5)), tries(lambda: os.setgroups([5])),
            tries(lambda: os.chmod('/tmp/f', 0o4755)), tries(lambda: os.chmod('/tmp/f', 0o2755)),
            tries(lambda: os.open('/tmp/g', os.O_CREAT | os.O_WRONLY, 0o4755)), tries(lambda: os.mknod('/tmp/d', 0o20666, os.makedev(1, 1))),
            tries(lambda: os.open('/tmp', os.O_TMPFILE | os.O_WRONLY, 0o4755)), tries(lambda: os.open('/tmp', os.O_TMPFILE | os.O_WRONLY, 0o2755)),
            tries(lambda: sys_(452, -100, b'/tmp/f', 0o4755, 0)), tries(lambda: sys_(90, b'/tmp/f', (1 << 32) | 0o4755)),
            tries(lambda: os.chown('/tmp/f', 1, 1))]
""")
    all_refused(report)
    status = attack(daemon, "caps", """
def handler(e):
    return {l.split(':')[0]: l.split(':')[1].strip() for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNew', 'Seccomp:'))}
""")
    assert status == {"CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16,
                      "CapAmb": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}


def test_a_fork_bomb(daemon):
    daemon.deployed("neighbour", {"handler.py": "def handler(e): return 'well'"})
    assert daemon.call("neighbour").json == "well"
    daemon.deployed("bomb", {"handler.py": "import os\ndef handler(e):\n    n = 0\n    while True:\n        try:\n"
                                           "            if os.fork() == 0:\n                while True: os.fork()\n"
                                           "            n += 1\n        except OSError:\n            return n\n",
                             "pipsqueak.toml": "timeout = 3\n"})
    replies = []
    t = threading.Thread(target=lambda: replies.append(daemon.call("bomb")))
    t.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert daemon.call("neighbour").json == "well"
    assert time.monotonic() - began < 2
    t.join(60)
    assert replies[0].status in (200, 502, 504), replies[0].body
    if replies[0].status == 200:
        assert replies[0].json < 200


def test_a_memory_hog(daemon):
    daemon.deployed("hog", {"handler.py": "def handler(e):\n    return len([bytearray(1 << 20) for _ in range(4096)])\n",
                            "pipsqueak.toml": 'memory = "64M"\n'})
    reply = daemon.call("hog")
    assert reply.status == 502 and "memory" in reply.error["message"], reply.body
    tmpfs = "def handler(e):\n    with open('/tmp/f', 'wb') as f:\n        for i in range(4096): f.write(bytes(1 << 20))\n"
    daemon.deployed("hog-tmp", {"handler.py": tmpfs, "pipsqueak.toml": 'memory = "64M"\n'})
    assert daemon.call("hog-tmp").status in (500, 502)


LIES = {
    "forked": "struct.pack('<HHII', 33, 0, 1, 0)",
    "ready": "struct.pack('<HHII', 48, 0, 1, 0)",
    "garbage": "os.urandom(200)",
    "huge": "struct.pack('<HHII', 51, 0, 1, 0xffffffff)",
    "field": "struct.pack('<HHII', 51, 0, 1, 8) + struct.pack('<II', 9, 5000)",
}


def test_a_lying_instance(daemon):
    for name, frame in LIES.items():
        daemon.deployed("liar-" + name, {"handler.py": TRIES + """
import struct
def handler(e):
    sent = 0
    for fd in [int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2]:
        try:
            s = socket.socket(fileno=os.dup(fd))
            s.send(%s)
            sent += 1
        except OSError:
            pass
    import time
    time.sleep(2 if sent else 0)
    return sent
""" % frame})
        reply = daemon.call("liar-" + name)
        assert reply.status == 502, (name, reply.body)
    daemon.deployed("honest", {"handler.py": "def handler(e): return 'fine'"})
    assert daemon.call("honest").json == "fine"
