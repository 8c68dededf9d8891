# SPDX-License-Identifier: Apache-2.0
"""Attacks as package code at install time: sdists that are built, wheels that are unpacked and compiled. What each
may do is in SECURITY.md ("Builds of sdists")."""
import os
import re

import pytest

import wheels
from hostile import TRIES, all_refused, deploy

# Packs what it found into the wheel that it builds: so the report comes by the one way that there is.
TELLS = TRIES + "\nfound = []\nBODY\nfiles[name.replace('-', '_') + '.py'] = 'X = %r' % (found,)\n"
BUILDS = {
    "mounts": """
u = 0x10000000
found += [tries(lambda c=c: sys_(*c)) for c in ((272, u), (272, 0x20000), (56, u | 17, 0, 0, 0, 0), (435, 0, 88),
        (165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0),
          (165, b'', b'/usr', b'', 4096 | 32, 0), (166, b'/usr', 2), (155, b'/', b'/tmp'), (161, b'/tmp'), (428, -100,
                  b'/', 1), (429, -1, b'', -100, b'/tmp', 4),
          (430, b'tmpfs', 0), (442, -100, b'/', 0, 0, 0), (308, 0, 0), (170, b'x', 1))]
""",
    "the kernel's doors": """
buf = ctypes.create_string_buffer(64)
found += [tries(lambda c=c: sys_(*c)) for c in ((101, 16, 1, 0, 0), (310, 1, 0, 0, 0, 0, 0), (438, 0, 0, 0),
        (321, 0, 0, 0), (298, 0, 0, -1, -1, 0),
          (248, b'user', b'x', b'y', 1, -3), (250, 0, 0, 0), (425, 8, 0), (323, 0), (175, 0, 0, b''), (304, 0, 0, 0),
                  (103, 3, 0, 0), (169, 0, 0, 0, 0))]
""",
    "sockets": """
def reach(a, k=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, k); s.connect(a)
found += [tries(f) for f in (lambda: reach(API), lambda: reach(RUN, socket.SOCK_SEQPACKET),
        lambda: reach('\\\\0pq-attack'), lambda: sys_(29, 4711, 4096, 0),
          lambda: sys_(240, b'pq-attack', 2, 0, 0), lambda: open('/dev/shm/pq-attack').read(),
                  lambda: socket.create_connection(('127.0.0.1', PORT), 1),
          lambda: socket.socket(40, 1), lambda: socket.socket(socket.AF_PACKET, 3))]
""",
    "processes": """
found += [tries(f) for f in (lambda: os.kill(DAEMON, 9), lambda: os.pidfd_open(DAEMON), lambda: open('/proc/1/mem',
        'r+b', 0), lambda: open('/proc/1/environ').read(),
          lambda: os.readlink('/proc/1/exe'), lambda: os.listdir('/proc/1/fd'), lambda: os.setuid(1),
                  lambda: os.chmod('/tmp', 0o4777), lambda: os.nice(-1))]
""",
    "others' packages": """
def look():
    seen = [os.path.join(w, d) for top in ('/usr/lib/python3', '/usr/local/lib', '/usr/share/python-wheels',
            '/pipsqueak', '/var', '/home', '/root', '/tmp', '/opt', '/mnt', '/run') for w, ds, fs in os.walk(top)
            for d in ds + fs if d.split('.')[0] in ('numpy', 'packaging',
                    'victim_of_builds') and 'node_modules' not in w]
    if not seen: raise LookupError('nothing')
    return seen
found += [tries(f) for f in (look, lambda: __import__('numpy'), lambda: __import__('six'),
        lambda: __import__('victim_of_builds'), lambda: open(CACHE + '/index/tmp'),
          lambda: os.listdir(CACHE), lambda: os.listdir(CACHE + '/store'))]
""",
    "descriptors": """
import stat
for n in os.listdir('/proc/self/fd'):
    try:
        st, way = os.fstat(int(n)), os.readlink('/proc/self/fd/' + n)
    except OSError:
        continue
    if stat.S_ISDIR(st.st_mode):
        found.append(['done', 'a directory: ' + way])
    elif stat.S_ISREG(st.st_mode) and st.st_nlink:
        found.append(tries(lambda: os.open('/proc/self/fd/' + n,
                os.O_WRONLY)) if '/tmp/' not in way else ['refused', way])
    else:
        found.append(tries(lambda: os.open('..', 0, dir_fd=int(n))))
found[:] = [r for r in found if r[0] == 'done'] + [['refused', 'looked at %d' % len(found)]]
""",
}
COUNTS = {"mounts": 15, "the kernel's doors": 13, "sockets": 9, "processes": 9, "others' packages": 7,
        "descriptors": 1}


def build(daemon, index, name, body, **kwargs):
    index.add_sdist(name, wheels.in_tree(name, body, **kwargs))
    return daemon.cli("run", "--allow-sdist", "--index-url", index.url, "--with", name, "-c",
                      "import %s as m; print(m.X)" % name.replace("-", "_"))


@pytest.mark.parametrize("what", BUILDS)
def test_what_a_build_tries(daemon, index, what):
    index.add("victim-of-builds", {"victim_of_builds.py": "X = 1\n"})
    deploy(daemon, "victim-of-builds", "import victim_of_builds\ndef handler(e): return 1\n", index.settings, "",
            "victim-of-builds")
    deploy(daemon, "offers-builds", """
s = socket.socket(socket.AF_UNIX)
def handler(e):
    s.bind('\\0pq-attack'); s.listen(9); open('/dev/shm/pq-attack', 'w').close(); sys_(29, 4711, 4096, 0o1666)
    return 'offered'
""")
    assert daemon.call("victim-of-builds").json == 1 and daemon.call("offers-builds").json == "offered"
    cache = daemon.command()[daemon.command().index("--cache") + 1]
    run = os.path.join(daemon.base, "run")
    body = TELLS.replace("BODY", BUILDS[what])
    for word, value in (("API", os.path.join(run, "api.sock")), ("RUN", os.path.join(run, "run.sock")),
            ("CACHE", cache),
                        ("PORT", int(re.search(r":(\d+)/", index.url)[1])), ("DAEMON", daemon.process.pid)):
        body = re.sub(r"\b%s\b" % word, repr(value), body)
    out = build(daemon, index, "tries-" + re.sub(r"\W", "", what), body)
    assert out.returncode == 0, out.stderr
    all_refused(eval(out.stdout), COUNTS[what])
    for name in ("victim-of-builds", "offers-builds"):
        daemon.request("DELETE", "/functions/" + name)


LEAVES = TRIES + """
for kind in range(3):
    if os.fork() == 0:
        run_off()
        os.execv(sys.executable, [sys.executable, '-c', 'import time  # OUTLIVES\\ntime.sleep(300)'])
"""


def test_outliving_a_build(daemon, index):
    """What it forks twice, in a session of its own and deaf to signals, ends with it."""
    out = build(daemon, index, "outlives-build", LEAVES)
    assert out.stdout == "1\n", out.stderr

    def none_left():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    if b"OUTLIVES" in f.read():
                        return False
            except OSError:
                pass
        return True
    daemon.becomes(none_left)


REPORTS = {
    "lies in its report": "for n in range(3, 12):\n    try:\n        os.pwrite(n, b'{\"wheel\": \"/etc/passwd\", \"requires\": [\"x @ file:///etc/passwd\"]}' * 9, 0)\n"
                          "    except OSError: pass",
    "truncates what it may write": "for n in range(3, 12):\n    try:\n        os.ftruncate(n, 0)\n    except OSError: pass",
    "a report without an end": "for n in range(3, 12):\n    try:\n        os.ftruncate(n, 1 << 40)\n    except OSError: pass",
    "closes everything": "os.closerange(3, 100)",
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_build_that_forges_what_it_leaves(daemon, index, name):
    """Its three files are told apart from what it says of them."""
    name_of = "forges-%d" % list(REPORTS).index(name)
    out = build(daemon, index, name_of, REPORTS[name])
    # All that it can have is its own failure, or the wheel that it would have been allowed to leave.
    assert out.returncode not in (11, 139, 134) and out.stdout in ("", "1\n"), (out.stdout, out.stderr)
    assert "passwd" not in out.stdout and daemon.get("/healthz").status == 200
    index.add_sdist("honest-after", wheels.in_tree("honest-after"))
    assert build(daemon, index, "honest-after", "pass").stdout == "1\n"


WHEELS = {
    "a symlink in place of a module": "link",
    "another's metadata": "metadata",
    "a file in another's directory": "clash",
    "a script in place of python": "script",
}


@pytest.mark.parametrize("name", WHEELS)
def test_wheels_that_would_be_another(daemon, index, name):
    """Unpacked where it can write one directory: it is another's neither by links, nor by name, nor by place."""
    import zipfile
    kind = WHEELS[name]
    dist = "sly-" + kind
    module = dist.replace("-", "_")
    index.add("honest-one", {"honest_one/__init__.py": "X = 'honest'\n"})
    if kind == "link":
        link = zipfile.ZipInfo(module + ".py")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        data = wheels.raw_wheel([(link, b"/etc/passwd")], module)
    elif kind == "metadata":
        data = wheels.wheel("honest-one", {"honest_one/__init__.py": "X = 'sly'\n"})
    elif kind == "clash":
        data = wheels.wheel(dist, {module + ".py": "X = 'sly'\n", "honest_one/__init__.py": "X = 'sly'\n"})
    else:
        data = wheels.wheel(dist, {module + ".py": "X = 'sly'\n",
                "%s-1.0.data/scripts/python" % module: "#!/bin/sh\necho sly\n",
                                   "%s-1.0.data/scripts/../../escaped" % module: "x"})
    index.files["%s-1.0-py3-none-any.whl" % module] = data
    reply = daemon.deploy("honest", {"handler.py": "import honest_one\ndef handler(e): return honest_one.X",
                                     "requirements.txt": "honest-one"}, settings=index.settings)
    assert reply.status == 200, reply.body
    tried = daemon.deploy("sly", {"handler.py": "import %s as m\ndef handler(e): return m.X" % module,
                                  "requirements.txt": dist}, settings=index.settings)
    if tried.status == 200:  # alone in its environment, it may bring what it likes
        assert kind in ("clash", "script") and daemon.call("sly").json == "sly"
    else:
        assert tried.error["kind"] in ("corrupt", "usage", "conflict"), tried.body
    assert daemon.call("honest").json == "honest"
    for function in ("honest", "sly"):
        daemon.request("DELETE", "/functions/" + function)
