# SPDX-License-Identifier: Apache-2.0
"""Packages that are there as source only: built where that is allowed, and refused in words where it is not or fails."""
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest

import wheels
from conftest import CLI, Daemon, new_base

SETUP = "from setuptools import setup\nsetup(name='%s', version='1.0', py_modules=['%s'])\n"


def run(daemon, index, *args, allow=True, **kwargs):
    flags = ["--allow-sdist"] if allow else []
    return daemon.cli("run", *flags, "--index-url", index.url, *args, **kwargs)


def refused(out, code, *words):
    assert out.returncode == code, out.stderr
    for word in words:
        assert word in out.stderr, out.stderr


def say(module):
    return "import %s; print(%s.X)" % (module, module)


@pytest.fixture(scope="module")
def narrow():
    """A daemon of which builds get little: 3 seconds, 192 MiB."""
    d = Daemon(new_base(), ["--build-time", "3", "--build-memory", "192M"])
    yield d
    d.stop()
    shutil.rmtree(d.base)


# --- what works --------------------------------------------------------------------------------


def test_a_backend_of_its_own(daemon, index):
    index.add_sdist("alpha-one", wheels.in_tree("alpha-one", requires=["beta"]))
    index.add("beta", {"beta.py": "X = 2"})
    refused(run(daemon, index, "--with", "alpha-one", "-c", "1", allow=False), 3, "only as source", "--allow-sdist")
    out = run(daemon, index, "--with", "alpha-one", "-c", "import alpha_one, beta; print(alpha_one.X, beta.X)")
    assert out.stdout == "1 2\n", out.stderr
    assert "building alpha_one-1.0.tar.gz" in out.stderr
    again = run(daemon, index, "--with", "alpha-one", "--upgrade", "-c", say("alpha_one"))
    assert again.stdout == "1\n" and "building" not in again.stderr, again.stderr


def test_what_is_pruned_is_built_again(own_cache, index):
    index.add_sdist("alpha", wheels.in_tree("alpha"))
    for _ in range(2):
        out = run(own_cache, index, "--with", "alpha", "-c", say("alpha"))
        assert out.stdout == "1\n" and "building" in out.stderr, out.stderr
        own_cache.becomes(lambda: is_clean(own_cache))  # what still runs, or is being made, stays


def is_clean(daemon):
    assert daemon.cli("cache", "clean").returncode == 0
    cache = os.path.join(daemon.base, "cache")
    return not os.listdir(os.path.join(cache, "store", "envs")) and not any(
        name.startswith("alpha") for _, _, names in os.walk(os.path.join(cache, "index", "wheels")) for name in names)


def test_setuptools_as_it_always_was(daemon, index):
    """Neither pyproject.toml nor backend: setuptools, which the index of pip's configuration has."""
    index.add_sdist("legacy", wheels.sdist("legacy", {"setup.py": SETUP % ("legacy", "legacy"), "legacy.py": "X = 3"}))
    out = daemon.cli("run", "--allow-sdist", "--index", index.url, "--with", "legacy", "-c", say("legacy"))
    assert out.stdout == "3\n", out.stderr


def test_a_c_extension(daemon, index):
    setup = "from setuptools import setup, Extension\nsetup(name='fast', version='1.0', " \
            "ext_modules=[Extension('fast', ['fast.c'])])\n"
    code = '#include <Python.h>\nstatic struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "fast"};\n' \
           'PyMODINIT_FUNC PyInit_fast(void) { PyObject *m = PyModule_Create(&d); ' \
           'PyModule_AddIntConstant(m, "X", 4); return m; }\n'
    index.add_sdist("fast", wheels.sdist("fast", {"setup.py": setup, "fast.c": code}))
    out = daemon.cli("run", "--allow-sdist", "--index", index.url, "--with", "fast", "-c", say("fast"))
    assert out.stdout == "4\n", out.stderr
    index.add_sdist("slow", wheels.sdist("slow", {"setup.py": setup.replace("fast", "slow"), "slow.c": "not C\n"}))
    out = daemon.cli("run", "--allow-sdist", "--index", index.url, "--with", "slow", "-c", "1")
    refused(out, 8, "building slow-1.0.tar.gz: build_wheel ended with exit code 1", "it printed last",
            "slow.c:1:1: error: unknown type name ?not?")


@pytest.mark.parametrize("dist,module", [("docopt==0.6.2", "docopt"), ("sgmllib3k", "sgmllib")])
def test_the_real_index(daemon, dist, module):
    refused(daemon.cli("run", "--with", dist, "-c", "1"), 3, "--allow-sdist")
    out = daemon.cli("run", "--allow-sdist", "--with", dist, "-c", "import %s as m; print(m.__name__)" % module)
    assert out.stdout == module + "\n", out.stderr


def test_what_a_build_requires(daemon, index):
    """Named beforehand, asked for by the backend, and itself an sdist."""
    index.add("early", {"early.py": "X = 5"})
    index.add_sdist("later", wheels.in_tree("later"))
    body = "import early, later\nfiles['needy.py'] = 'X = %d' % (early.X + later.X)"
    index.add_sdist("needy", wheels.in_tree("needy", body, build_requires=["early"], more=["later"]))
    out = run(daemon, index, "--with", "needy", "-c", say("needy") + "\nimport sys\ntry: import early\n"
              "except ImportError: print('alone')")
    assert out.stdout == "6\nalone\n", out.stderr
    assert out.stderr.count("building needy") == 2 and "building later" in out.stderr


def test_zip_and_links(daemon, index):
    data = wheels.in_tree("linked")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, text in members.items():
            z.writestr(name, text)
    index.add_sdist("linked", out.getvalue(), end=".zip")
    assert run(daemon, index, "--with", "linked", "-c", say("linked")).stdout == "1\n"
    link = tarfile.TarInfo("linked-2.0/backend/wheels.py")
    link.type, link.linkname = tarfile.SYMTYPE, "../helper.py"
    moved = [(n.replace("1.0", "2.0").replace("backend/wheels", "helper"), t) for n, t in members.items()]
    moved = [(n, t.replace(b"'1.0'", b"'2.0'").replace(b" 1.0\n", b" 2.0\n")) for n, t in moved]
    index.add_sdist("linked", wheels.archive([*moved, (link, b"")]), "2.0")
    assert run(daemon, index, "--with", "linked", "-c", say("linked")).stdout == "1\n"


# --- which file is chosen ----------------------------------------------------------------------


def test_the_newest_version_and_a_wheel_before_an_sdist(daemon, index):
    ask = "import importlib.metadata as m; print(m.version('alpha'))"
    index.add("alpha", {"alpha.py": ""}, "1.0")
    index.add_sdist("alpha", b"never looked at", "1.0")
    out = run(daemon, index, "--with", "alpha", "-c", ask)
    assert out.stdout == "1.0\n" and "building" not in out.stderr, out.stderr
    index.add_sdist("alpha", wheels.in_tree("alpha", version="2.0"), "2.0")
    for allow, version in ((True, "2.0\n"), (False, "1.0\n")):
        out = run(daemon, index, "--with", "alpha", "--upgrade", "-c", ask, allow=allow)
        assert out.stdout == version, out.stderr


def test_prefer_binary(daemon, index, workdir):
    index.add("alpha", {"alpha.py": ""}, "1.0")
    index.add_sdist("alpha", wheels.in_tree("alpha", version="2.0"), "2.0")
    path = os.path.join(workdir, "r.txt")
    for lines, version in (("alpha", "2.0\n"), ("--prefer-binary\nalpha", "1.0\n"), ("--prefer-binary\nalpha>1", "2.0\n")):
        with open(path, "w") as f:
            f.write(lines)
        out = run(daemon, index, "--with-requirements", path, "-c",
                  "import importlib.metadata as m; print(m.version('alpha'))")
        assert out.stdout == version, out.stderr


def test_metadata_that_needs_no_build(daemon, index):
    """PEP 643: 2.0 is passed over for what it says it requires, so it is never built."""
    info = "Metadata-Version: 2.2\nName: still\nVersion: 2.0\nRequires-Dist: beta>5\n"
    index.add_sdist("still", wheels.in_tree("still", version="2.0", files={"PKG-INFO": info}), "2.0")
    index.add("still", {"still.py": "X = 7"}, "1.0")
    index.add("beta", {"beta.py": ""})
    out = run(daemon, index, "--with", "still", "-c", say("still"))
    assert out.stdout == "7\n" and "building" not in out.stderr, out.stderr
    info = info.replace("Version: 2.0\n", "Version: 2.0\nDynamic: Requires-Dist\n")
    index.files["still-2.0.tar.gz"] = wheels.in_tree("still", version="2.0", files={"PKG-INFO": info})
    out = run(daemon, index, "--with", "still", "--upgrade", "-c", say("still"))
    assert out.stdout == "1\n" and "building" in out.stderr, out.stderr


def test_no_binary(daemon, index, workdir):
    index.add("alpha", {"alpha.py": "X = 'wheel'"})
    index.add_sdist("alpha", wheels.in_tree("alpha", "files['alpha.py'] = 'X = \"built\"'"))
    path = os.path.join(workdir, "r.txt")
    for text, said in (("alpha\n", "wheel"), ("--no-binary alpha\nalpha\n", "built"),
                       ("--no-binary :all:\n--only-binary alpha\nalpha\n", "wheel"),
                       ("--no-binary :all:\n--prefer-binary\nalpha\n", "built")):
        with open(path, "w") as f:
            f.write(text)
        out = run(daemon, index, "--with-requirements", path, "-c", say("alpha"))
        assert out.stdout == said + "\n", out.stderr
    with open(path, "w") as f:
        f.write("--no-binary alpha\nalpha\n")
    refused(run(daemon, index, "--with-requirements", path, "-c", "1", allow=False), 2, "--no-binary", "--allow-sdist")


def test_by_path_and_url(daemon, index, workdir):
    data = wheels.in_tree("direct", requires=["beta"])
    index.add("beta", {"beta.py": ""})
    index.files["direct-1.0.tar.gz"] = data
    index.files["v1.tar.gz"] = data  # as an archive of a tag is called
    with open(os.path.join(workdir, "direct-1.0.tar.gz"), "wb") as f:
        f.write(data)
    host = index.url.replace("/simple/", "")
    sha256 = hashlib.sha256(data).hexdigest()
    for line in ("./direct-1.0.tar.gz", "direct @ %s/f/direct-1.0.tar.gz" % host, "direct @ %s/f/v1.tar.gz" % host,
                 "direct @ %s/f/v1.tar.gz#sha256=%s" % (host, sha256)):
        out = run(daemon, index, "--with", line, "-c", say("direct") + "; import beta", cwd=workdir)
        assert out.stdout == "1\n", (line, out.stderr)
        refused(run(daemon, index, "--with", line, "-c", "1", cwd=workdir, allow=False), 2, "--allow-sdist")
    line = "direct @ %s/f/v1.tar.gz#sha256=%s" % (host, "0" * 64)
    refused(run(daemon, index, "--with", line, "-c", "1"), 8, "sha256")
    refused(run(daemon, index, "--with", "other @ %s/f/v1.tar.gz" % host, "-c", "1"), 8, "is direct 1.0 inside")


def test_locks(daemon, index, workdir):
    index.add_sdist("alpha", wheels.in_tree("alpha"))
    index.add("beta", {"beta.py": "X = 2"})
    lock = os.path.join(workdir, "pylock.toml")
    out = daemon.cli("lock", "--allow-sdist", "--index-url", index.url, "--with", "alpha", "--with", "beta", "-o", lock,
                     cwd=workdir)
    assert out.returncode == 0, out.stderr
    with open(lock) as f:
        text = f.read()
    sha256 = hashlib.sha256(index.files["alpha-1.0.tar.gz"]).hexdigest()
    assert "[packages.sdist]" in text and sha256 in text and "[[packages.wheels]]" in text
    assert "alpha-1.0-py3" not in text
    out = run(daemon, index, "--with-requirements", lock, "-c", "import beta; " + say("alpha"))
    assert out.stdout == "1\n", out.stderr
    refused(run(daemon, index, "--with-requirements", lock, "-c", "1", allow=False), 3, "source only", "--allow-sdist")
    with open(lock, "w") as f:
        f.write(text.replace(sha256, "0" * 64))
    out = run(daemon, index, "--with-requirements", lock, "-c", "1")
    refused(out, 8, "alpha-1.0.tar.gz", "not the one expected")
    assert "building alpha-1.0.tar.gz\n" not in out.stderr


def test_hashes(daemon, index, workdir):
    data = wheels.in_tree("alpha")
    index.add_sdist("alpha", data)
    path = os.path.join(workdir, "r.txt")
    for sha256, code in ((hashlib.sha256(data).hexdigest(), 0), ("0" * 64, 4)):
        with open(path, "w") as f:
            f.write("alpha==1.0 --hash=sha256:%s\n" % sha256)
        assert run(daemon, index, "--with-requirements", path, "-c", "1").returncode == code


def test_deploy(daemon, index, workdir):
    index.add_sdist("alpha", wheels.in_tree("alpha"))
    for name, text in {"handler.py": "import alpha\ndef handler(e): return alpha.X",
                       "requirements.txt": "alpha"}.items():
        with open(os.path.join(workdir, name), "w") as f:
            f.write(text)
    flags = ("--index-url", index.url, "--name", "of-source")
    refused(daemon.cli("deploy", *flags, workdir), 3, "--allow-sdist")
    out = daemon.cli("deploy", "--allow-sdist", *flags, workdir)
    assert out.returncode == 0, out.stderr
    assert daemon.call("of-source").json == 1


def test_a_daemon_that_allows_it_to_all(index):
    base = new_base()
    d = Daemon(base, ["--allow-sdist"])
    index.add_sdist("alpha", wheels.in_tree("alpha"))
    out = run(d, index, "--with", "alpha", "-c", say("alpha"), allow=False)
    assert out.stdout == "1\n", out.stderr
    d.stop()
    shutil.rmtree(base)


# --- what fails --------------------------------------------------------------------------------

FAILS = {
    "raises": ("print('almost')\nraise ValueError('no such luck')", 8,
               ["building raises-1.0.tar.gz: build_wheel ended with exit code 1", "ValueError: no such luck"]),
    "exits": ("sys.exit('error: out of cheese')", 8, ["ended with exit code 1", "error: out of cheese"]),
    "dies": ("os.kill(os.getpid(), 9)", 8, ["build_wheel was killed by signal 9"]),
    "sleeps": ("print('slow'); sys.stdout.flush(); time.sleep(1000)", 10, ["did not end within 3 s", "slow"]),
    "eats": ("x = []\nwhile True: x.append(b'x' * (1 << 20))", 6, ["more than 192 MiB of memory"]),
    "fills": ("with open('/tmp/big', 'wb') as f:\n    while True: f.write(b'x' * (1 << 20))", None, ["building fills"]),
    "floods": ("while True: os.write(1, b'y' * 65536)", None, ["building floods-1.0.tar.gz"]),
    "nothing": ("return 'nothing-1.0-py3-none-any.whl'", 8, ["which is not there"]),
    "elsewhere": ("return '../../etc/passwd.whl'", 8, ["named what is no wheel"]),
    "another": ("name = 'another-one'", 8, ["which is no wheel of another"]),
    "younger": ("version = '2.0'", 2, ["the metadata of younger 1.0: it is that of younger 2.0"]),
}


@pytest.mark.parametrize("name", FAILS)
def test_builds_that_fail(narrow, index, name):
    body, code, words = FAILS[name]
    index.add_sdist(name, wheels.in_tree(name, body))
    out = run(narrow, index, "--with", name, "-c", "1")
    assert out.returncode not in (0, 11), out.stderr
    refused(out, out.returncode if code is None else code, *words)
    leftovers_of_builds(narrow)
    narrow.check_log()


def leftovers_of_builds(daemon):
    """No process, and nothing in the daemon's own places."""
    daemon.becomes(lambda: not os.path.exists("/proc/%d/task" % daemon.process.pid) or
                   b"build_sdist" not in b"".join(command_lines()))
    cache = os.path.join(daemon.command()[daemon.command().index("--cache") + 1], "index", "tmp")
    assert [f for d in os.listdir(cache) for f in os.listdir(os.path.join(cache, d))] == []


def command_lines():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                yield f.read()
        except OSError:
            pass


@pytest.mark.parametrize("how", ["stopped", "killed", "stopped after its client"])
def test_a_daemon_that_ends_while_it_builds(index, how):
    base = new_base()
    d = Daemon(base, ["--cache", os.path.join(base, "own-cache")])
    index.add_sdist("sleepy", wheels.in_tree("sleepy", "time.sleep(1000)"))
    with subprocess.Popen([CLI, "run", "--allow-sdist", "--index-url", index.url, "--with", "sleepy", "-c", "1"],
                          env=d.environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        d.becomes(lambda: any(b"build_sdist.py\0build" in line for line in command_lines()))
        if how == "stopped after its client":
            client.kill()
            client.wait()
        d.stop(kill=how == "killed")
    assert not any(b"build_sdist" in line for line in command_lines())
    d.start()
    assert os.listdir(os.path.join(base, "own-cache", "index", "tmp")) != []  # its own
    leftovers_of_builds(d)
    out = run(d, index, "--with", "sleepy<1", "-c", "1")
    assert out.returncode == 3, out.stderr
    d.stop()
    shutil.rmtree(base)


def test_many_at_a_time(daemon, index):
    """Two at a time, and all are there in the end."""
    names = ["many%d" % i for i in range(7)]
    for name in names:
        index.add_sdist(name, wheels.in_tree(name, "time.sleep(0.3)"))
    flags = [word for name in names for word in ("--with", name)]
    out = run(daemon, index, *flags, "-c", "; ".join("import %s" % name for name in names))
    assert out.returncode == 0, out.stderr


def test_a_version_that_lies_in_static_metadata(daemon, index):
    """PKG-INFO says what the file name does, the wheel something else."""
    info = "Metadata-Version: 2.2\nName: liar\nVersion: 1.0\n"
    index.add_sdist("liar", wheels.in_tree("liar", "version = '3.0'", files={"PKG-INFO": info}))
    refused(run(daemon, index, "--with", "liar", "-c", "1"), 8, "gave liar-3.0-py3-none-any.whl", "not liar 1.0")


def test_requirements_that_cannot_be_had(daemon, index):
    index.add_sdist("poor", wheels.in_tree("poor", build_requires=["no-such-dist>1"]))
    refused(run(daemon, index, "--with", "poor", "-c", "1"), 3, "building poor-1.0.tar.gz", "needs to be built",
            "no-such-dist")


def test_requirements_by_url_would_be_a_way_out(daemon, index):
    index.add("helper", {"helper.py": ""})
    url = "helper @ %sf/helper-1.0-py3-none-any.whl?seen=all" % index.url.replace("simple/", "")
    index.add_sdist("teller", wheels.in_tree("teller", more=[url]))
    refused(run(daemon, index, "--with", "teller", "-c", "1"), 2, "from the index only")
    assert not [path for path in index.asked if "seen" in path] and index.asked


def test_circles(daemon, index):
    index.add_sdist("hen", wheels.in_tree("hen", build_requires=["egg"]))
    index.add_sdist("egg", wheels.in_tree("egg", build_requires=["hen"]))
    refused(run(daemon, index, "--with", "hen", "-c", "1"), 4,
            "hen-1.0.tar.gz needs egg-1.0.tar.gz needs hen-1.0.tar.gz")
    for i in range(9):
        index.add_sdist("deep%d" % i, wheels.in_tree("deep%d" % i, build_requires=["deep%d" % (i + 1)]))
    refused(run(daemon, index, "--with", "deep0", "-c", "1"), 6, "sdists need each other")


def test_another_sum(daemon, index):
    index.add_sdist("alpha", wheels.in_tree("alpha"))
    index.sha256 = "0" * 64
    out = run(daemon, index, "--with", "alpha", "-c", "1")
    refused(out, 8, "has sha256")
    assert "building" not in out.stderr


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


BAD = {
    "up": [("bad-1.0/../../x", b"x")],
    "absolute": [("/etc/x", b"x")],
    "symlink": [(member("bad-1.0/x", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "upward-symlink": [(member("bad-1.0/x", tarfile.SYMTYPE, "../../etc"), b"")],
    "through": [(member("bad-1.0/d", tarfile.SYMTYPE, "."), b""), ("bad-1.0/d/x", b"x")],
    "hardlink": [(member("bad-1.0/x", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
    "device": [(member("bad-1.0/x", tarfile.CHRTYPE), b"")],
    "fifo": [(member("bad-1.0/x", tarfile.FIFOTYPE), b"")],
    "many": [("bad-1.0/%d" % i, b"") for i in range(50001)],
    "empty": [("bad-1.0/readme", b"")],
    "toml": [("bad-1.0/pyproject.toml", b"[build-system")],
    "requires": [("bad-1.0/pyproject.toml", b"[build-system]\nrequires = 'x'")],
    "backend-path": [("bad-1.0/pyproject.toml",
                      b"[build-system]\nrequires = []\nbuild-backend = 'os'\nbackend-path = ['../..']\n")],
    "no-backend": [("bad-1.0/pyproject.toml", b"[build-system]\nrequires = []\nbuild-backend = 'nowhere'\n")],
}
SAID = {"up": "outside of it", "absolute": "outside of it", "symlink": "links outside", "upward-symlink": "links outside",
        "through": "through a link", "hardlink": "links outside", "device": "a device", "fifo": "a device",
        "many": "more than 50000 members", "empty": "neither a pyproject.toml nor a setup.py", "toml": "not valid TOML",
        "requires": "not a list of strings", "backend-path": "leads out of it", "no-backend": "nowhere"}


@pytest.mark.parametrize("name", BAD)
def test_archives_that_are_bad(daemon, index, name):
    index.add_sdist("bad", wheels.archive(BAD[name]))
    refused(run(daemon, index, "--with", "bad", "-c", "1"), 8, "bad-1.0.tar.gz", SAID[name])


def test_bombs_and_rubbish(daemon, index):
    zeros = member("bad-1.0/zeros")
    zeros.size = 3 << 30

    class Zeros(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, to):
            to[:] = bytes(len(to))
            return len(to)

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        tar.addfile(zeros, io.BufferedReader(Zeros()))
    index.add_sdist("bad", out.getvalue())
    refused(run(daemon, index, "--with", "bad", "-c", "1"), 8, "unpacks to more than 1024 MiB")
    for i, data in enumerate((b"", b"rubbish", out.getvalue()[:100000])):
        index.add_sdist("bad%d" % i, data)
        refused(run(daemon, index, "--with", "bad%d" % i, "-c", "1"), 8, "cannot be unpacked")
    index.add_sdist("zip", b"PK rubbish", end=".zip")
    refused(run(daemon, index, "--with", "zip", "-c", "1"), 8, "cannot be unpacked")


# --- attacks: what a build may do is said in SECURITY.md ---------------------------------------

ATTACK = """
import socket
def tries(f):
    try: return ['done', repr(f())[:100]]
    except BaseException as e: return ['refused', type(e).__name__ + str(e)[:80]]
def listed(path):
    try: return sorted(os.listdir(path))
    except OSError as e: return []
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
subprocess.Popen(['sleep', '1001'], start_new_session=True)
found = {
  'net': [tries(lambda: socket.create_connection(('127.0.0.1', PORT), 2)), tries(lambda: socket.create_connection(('192.0.2.1', 80), 2))],
  'devices': [n for n in listed('/sys/class/net')], 'uid': os.getuid(), 'cap': [l for l in open('/proc/self/status') if l[:4] in ('CapE', 'NoNe', 'Secc')],
  'write': [tries(lambda p=p: open(p, 'w')) for p in ('/usr/x', '/etc/x', '/x', '/pipsqueak/lib/x', '/pipsqueak/env/x', sys.prefix + '/lib/x')],
  'read': [tries(lambda p=p: open(p).read()) for p in ('/etc/shadow', '/root/.bashrc', SECRET, LOG)],
  'places': [listed(p) for p in ('/root', '/home/user', '/var/lib', '/var/cache', '/run')],
  'owned': [tries(lambda p=p: os.chmod(p, 0o777)) for p in (PYTHON, '/pipsqueak/env')] + [
            os.stat(p).st_uid == os.getuid() for p in (PYTHON, '/pipsqueak/env')],
  'env': sorted(os.environ), 'pids': [p for p in os.listdir('/proc') if p.isdigit()],
  'fds': [os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n)],
}
files['spy.py'] = 'X = %r' % (found,)
""".replace("PYTHON", "__import__('helper').__file__")


def test_what_a_build_may_do(daemon, index, workdir):
    secret = os.path.join(workdir, "secret")
    with open(secret, "w") as f:
        f.write("secret")
    os.chmod(secret, 0o644)
    body = ATTACK.replace("PORT", re.search(r":(\d+)/", index.url)[1]).replace("SECRET", repr(secret))
    index.add("helper", {"helper.py": "X = 1\n"})
    index.add_sdist("spy", wheels.in_tree("spy", body.replace("LOG", repr(daemon.log_path)), build_requires=["helper"]))
    out = run(daemon, index, "--with", "spy", "-c", say("spy"), env={**daemon.environment(), "SECRET_TOKEN": "1"})
    assert out.returncode == 0, out.stderr
    found = eval(out.stdout)
    for what in ("net", "write", "read"):
        assert found[what] and all(tried[0] == "refused" for tried in found[what]), found
    assert found["cap"] == ["NoNewPrivs:\t1\n", "Seccomp:\t2\n", "Seccomp_filters:\t1\n"] or \
        any(line.split() == ["CapEff:", "0" * 16] for line in found["cap"]), found
    assert [tried[0] for tried in found["owned"][:2]] == ["refused"] * 2 and found["owned"][2:] == [False, False], found
    assert "SECRET_TOKEN" not in found["env"] and "PIPSQUEAK_DIR" not in found["env"]
    assert found["places"] == [[], [], [], [], ["shm"]], found
    assert all(fd.startswith(("/dev/null", "pipe:", "/proc/")) or " (deleted)" in fd for fd in found["fds"]), found
    daemon.becomes(lambda: not any(line.startswith(b"sleep\x001001") for line in command_lines()))
