# SPDX-License-Identifier: Apache-2.0
"""`pipsqueak run` beside a plain python3: the same output, the same exit."""
import os
import pty
import signal
import subprocess
import time

import pytest

from conftest import CLI

PLAIN = "/usr/bin/python3"


def both(daemon, workdir, script, *args, **kwargs):
    """Run a script plainly and with us; returns both results."""
    path = os.path.join(workdir, "script.py")
    with open(path, "w") as f:
        f.write(script)
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": workdir}
    plain = subprocess.run([PLAIN, "script.py", *args], cwd=workdir, env=env, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    ours = subprocess.run([CLI, "run", "script.py", *args], cwd=workdir, text=True,
                          env=dict(daemon.environment(), LANG="C.UTF-8"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    return plain, ours


SAME = {
    "arguments": "import sys; print(sys.argv, __name__, __file__, __spec__)",
    "exit code": "raise SystemExit(7)",
    "exit text": "import sys; sys.exit('goodbye')",
    "traceback": "def f():\n    return 1 / 0\nf()\n",
    "syntax error": "x = (\n",
    "nested error": "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('b')\n",
    "unicode": "print('äöü€', ascii('é'))",
    "stdin": "import sys; print(sys.stdin.read().upper())",
    "atexit": "import atexit; atexit.register(print, 'bye'); print('hi')",
    "threads are joined": "import threading, time\ndef f():\n    time.sleep(0.2)\n    print('late')\nthreading.Thread(target=f).start()\nprint('first')\n",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))))\n",
    "flags": "import sys; print(sys.flags)",
    "signal": "import os; os.kill(os.getpid(), 15)",
    "abort": "import os; os.abort()",
    "warnings": "import warnings; warnings.warn('look')",
    "multiprocessing": "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    for k in ('fork', 'spawn', 'forkserver'):\n        with m.get_context(k).Pool(2) as p:\n            print(k, p.map(f, range(4)))\n",
    "futures": "from concurrent.futures import ProcessPoolExecutor as P\ndef f(x): return -x\nif __name__ == '__main__':\n    with P(2) as p:\n        print(list(p.map(f, range(3))))\n",
    "subprocess": "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(6*7)']))",
    "relative paths": "print(open('script.py').readline()); import os; print(os.getcwd())",
    "tty": "import sys; print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors)",
    "sqlite and sockets": "import sqlite3, socket\nprint(sqlite3.connect(':memory:').execute('select 1').fetchone())\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\nc = socket.create_connection(s.getsockname()); print(len(c.getsockname()))\n",
}


@pytest.mark.parametrize("name", SAME)
def test_as_plain_python(daemon, workdir, name):
    plain, ours = both(daemon, workdir, SAME[name], "a", "--b", input="text in\n", timeout=60)
    assert ours.stdout == plain.stdout
    assert ours.returncode == plain.returncode
    assert ours.stderr == plain.stderr


def run(daemon, *args, **kwargs):
    return daemon.cli("run", *args, **kwargs)


def test_the_ways_to_say_what_to_run(daemon, workdir):
    assert run(daemon, "-c", "import sys; print(sys.argv)", "x", cwd=workdir).stdout == "['-c', 'x']\n"
    assert run(daemon, "-", "y", stdin=None, input="import sys; print(sys.argv)", cwd=workdir).stdout == "['-', 'y']\n"
    assert run(daemon, stdin=None, input="print('from stdin')", cwd=workdir).stdout == "from stdin\n"
    out = run(daemon, "-m", "json.tool", stdin=None, input='{"a":1}', cwd=workdir)
    assert out.stdout == '{\n    "a": 1\n}\n'
    with open(os.path.join(workdir, "mod.py"), "w") as f:
        f.write("import sys; print(__name__, sys.argv[0])")
    assert run(daemon, "-m", "mod", cwd=workdir).stdout == "__main__ %s/mod.py\n" % workdir
    assert run(daemon, "python", "-c", "print(1)", cwd=workdir).stdout == "1\n"


def test_packages_from_a_script_block(daemon, workdir):
    with open(os.path.join(workdir, "s.py"), "w") as f:
        f.write("# /// script\n# dependencies = ['six']\n# ///\nimport six\nprint(six.__name__, six.__file__)\n")
    first = run(daemon, "s.py", cwd=workdir)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("six /pipsqueak/env/lib/python3")
    assert run(daemon, "s.py", cwd=workdir).stdout == first.stdout


def test_with_and_requirements(daemon, workdir):
    out = run(daemon, "--with", "six,requests", "-c", "import six, requests; print(requests.__name__)", cwd=workdir)
    assert out.stdout == "requests\n", out.stderr
    with open(os.path.join(workdir, "r.txt"), "w") as f:
        f.write("six>=1.16\n")
    out = run(daemon, "--with-requirements", "r.txt", "-c", "import six; print('six')", cwd=workdir)
    assert out.stdout == "six\n", out.stderr
    out = run(daemon, "--timing", "--with", "six", "-c", "import six", cwd=workdir)
    assert "fork" in out.stderr and "command" in out.stderr


def test_the_second_run_forks_what_the_first_loaded(daemon, workdir):
    args = ("--with", "numpy", "-c", "import numpy, sys, time; print(numpy.ones(2).sum())")
    assert run(daemon, *args, cwd=workdir).stdout == "2.0\n"
    daemon.wait_for_node("numpy")
    assert run(daemon, *args, cwd=workdir).stdout == "2.0\n"
    assert any(n["uses"] for n in daemon.nodes() if any(a.startswith("numpy ") for a in n["adds"]))


def test_a_node_that_cannot_fork_is_no_harm(own_daemon, index, workdir):
    """The import leaves the node without processes to fork; where it is not imported by a node it does nothing."""
    d = own_daemon
    index.add("no-forks", {"no_forks.py": "import resource, time\ntime.sleep(0.02)\n"
                                          "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\nX = 5\n"})
    args = ("--index-url", index.url, "--with", "no-forks", "-c", "import no_forks; print(no_forks.X)")
    assert run(d, *args, cwd=workdir).stdout == "5\n"
    d.wait_for_node("no-forks")
    for _ in range(4):
        out = run(d, *args, cwd=workdir)
        assert (out.stdout, out.stderr, out.returncode) == ("5\n", "", 0)
    assert "forks fail; dropping it" in d.log()
    d.allowed.append("forks|forking")


def test_wrong_use(daemon, workdir):
    cases = {("nosuch.py",): (2, "can't open file 'nosuch.py'"), ("--with",): (2, "needs a value"),
             ("--nosuch", "x.py"): (2, "unknown flag"), ("--allow-net=host", "-c", "1"): (2, "takes no hosts"),
             ("--with", "nosuch-package-of-pipsqueak-tests", "-c", "1"): (3, "nosuch-package-of-pipsqueak-tests"),
             ("--with", "urllib3==1.26.0", "--with", "urllib3==2.0.0", "-c", "1"): (4, "urllib3"),
             ("--python", "/nosuch/python3", "-c", "1"): (3, "/nosuch/python3")}
    for args, (code, text) in cases.items():
        out = run(daemon, *args, cwd=workdir)
        assert out.returncode == code and text in out.stderr, (args, out)
    directory = os.open(workdir, os.O_RDONLY)
    out = run(daemon, "-c", "print(1)", stdin=directory)
    os.close(directory)
    assert out.returncode == 2 and "directory" in out.stderr


def test_permissions_and_their_hints(daemon, workdir):
    outside = "/srv/pqw-outside-%d" % os.getpid()
    os.mkdir(outside)
    try:
        with open(outside + "/f", "w") as f:
            f.write("seen")
        read = "print(open(%r).read())" % (outside + "/f")
        out = run(daemon, "-c", read, cwd=workdir)
        assert out.returncode == 1 and "--allow-read=" in out.stderr.splitlines()[-1]
        assert run(daemon, "--allow-read=" + outside, "-c", read, cwd=workdir).stdout == "seen\n"
        write = "open('new', 'w').write('x')"
        out = run(daemon, "-c", write, cwd=workdir)
        assert out.returncode == 1 and "--allow-write=" in out.stderr.splitlines()[-1]
        assert not os.path.exists(workdir + "/new")
        out = run(daemon, "--allow-write", "-c", write, cwd=workdir)
        assert out.returncode == 0, out.stderr
        assert os.stat(workdir + "/new").st_uid == os.getuid()  # the caller's file, not some id's
        out = run(daemon, "--allow-read=" + outside, "-c", "open(%r, 'w')" % (outside + "/g"), cwd=workdir)
        assert out.returncode == 1
        out = run(daemon, "-A", "-c", "open(%r, 'w').write('y')" % (outside + "/h"), cwd=workdir)
        assert out.returncode == 0, out.stderr
        assert os.path.exists(outside + "/h")
        env = dict(daemon.environment(), SECRET="s3cret")
        code = "import os; print(os.environ.get('SECRET'), 'LD_PRELOAD' in os.environ)"
        assert run(daemon, "-c", code, env=env, cwd=workdir).stdout == "None False\n"
        assert run(daemon, "--allow-env=SECRET", "-c", code, env=env, cwd=workdir).stdout == "s3cret False\n"
    finally:
        subprocess.run(["rm", "-rf", outside], check=True)


def start(daemon, workdir, code, **kwargs):
    """As at a prompt: a shell's background job has Ctrl-C ignored, and these tests may run in one."""
    kwargs["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([CLI, "run", "-c", code], cwd=workdir, env=daemon.environment(), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


@pytest.mark.parametrize("number,text", [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "")])
def test_signals_reach_the_script(daemon, workdir, number, text):
    p = start(daemon, workdir, "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.01)")
    assert p.stdout.readline() == "up\n"
    p.send_signal(number)
    out, err = p.communicate(timeout=20)
    assert p.returncode == -number and text in err


def test_a_script_ends_with_its_client(daemon, workdir):
    p = start(daemon, workdir, "import time, os; print(open('/proc/self/status').read().count('x'), flush=True); time.sleep(60)")
    p.stdout.readline()
    p.kill()
    p.wait(20)
    deadline = time.monotonic() + 10
    while daemon.get("/status").json.get("scripts", 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert p.stdout.read() == ""  # its end of the pipe is closed: it is gone


def test_a_closed_pipe(daemon, workdir):
    p = start(daemon, workdir, "for i in range(10**6): print('x' * 100)")
    p.stdout.read(10)
    p.stdout.close()
    err = p.stderr.read()
    assert p.wait(20) == 1 and "BrokenPipeError" in err


def test_a_terminal(daemon, workdir):
    leader, follower = pty.openpty()
    code = "import sys, os; print(sys.stdin.isatty(), os.get_terminal_size(0).columns > -1); print(input('name? '))"
    p = subprocess.Popen([CLI, "run", "-c", code], cwd=workdir, env=daemon.environment(), stdin=follower,
                         stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    os.write(leader, b"me\n")
    text = b""
    while b"me\r\nme\r\n" not in text.replace(b"name? ", b"") and p.poll() is None or text.count(b"me") < 2:
        try:
            text += os.read(leader, 1000)
        except OSError:
            break
    assert p.wait(20) == 0
    os.close(leader)
    assert b"True True" in text and b"name? " in text and text.count(b"me") >= 2


def test_other_interpreters(daemon, workdir):
    found = None
    for version in ("3.9", "3.10", "3.12", "3.13"):
        out = run(daemon, "--python", version, "-c", "import sys; print('%d.%d' % sys.version_info[:2])", cwd=workdir)
        if out.returncode == 3 and "no interpreter" in out.stderr:
            continue  # not on this machine
        assert out.stdout == version + "\n", out.stderr
        found = version
    if found:  # it may be below a home that the daemon cannot enter; a deploy shows it, too
        with open(workdir + "/handler.py", "w") as f:
            f.write("import sys\ndef handler(e): return sys.version.split('.')[1]\n")
        out = daemon.cli("deploy", workdir, "--name", "other", "--python", found)
        assert out.returncode == 0, out.stderr
        assert daemon.call("other").json == found.split(".")[1]
    assert run(daemon, "--python", "/usr/bin/python3", "-c", "print(1)", cwd=workdir).stdout == "1\n"


IMMORTAL = """
import gc, os, sys, weakref
def never_changes(o): return sys.getrefcount(o) == 0xffffffff
print([never_changes(o) for o in (os.path.join, os.path.join.__code__, os.path.join.__code__.co_names, os.PathLike)])
print([never_changes(o) for o in (os.environ, sys.path, vars(os), os)])
class Own:
    def __del__(self): print('gone')
own = Own()
seen = weakref.ref(own)
del own
print(seen(), never_changes(Own), gc.collect() >= 0)
"""


def test_what_was_made_before_the_fork_is_immortal(daemon, workdir):
    """From CPython 3.12 on a child does not copy pages only to count; what may have to die, can."""
    for version in ("3.11", "3.12", "3.13"):
        out = run(daemon, "--python", version, "-c", IMMORTAL, cwd=workdir)
        if out.returncode == 3 and "no interpreter" in out.stderr:
            continue  # not on this machine
        was = "[%s]\n" % ", ".join([str(version != "3.11")] * 4)
        assert out.stdout == was + "[False, False, False, False]\ngone\nNone False True\n", out.stderr


def test_the_other_verbs(daemon, workdir):
    app = os.path.join(workdir, "my-app")
    os.mkdir(app)
    with open(app + "/handler.py", "w") as f:
        f.write("def handler(e):\n    print('called')\n    if e == 'bad': raise ValueError('no')\n    return e\n")
    out = daemon.cli("deploy", app)
    assert out.returncode == 0 and "my-app, version 1" in out.stdout, out.stderr
    assert daemon.cli("invoke", "my-app", '{"a": 1}').stdout == '{"a": 1}'
    out = daemon.cli("invoke", "my-app", '"bad"')
    assert out.returncode == 1 and "ValueError: no" in out.stderr
    assert "handler" in daemon.cli("invoke", "my-app", "1", "--timing").stderr
    assert "my-app" in daemon.cli("ls").stdout
    assert "called" in daemon.cli("logs", "my-app").stdout
    assert "/usr/bin/python3" in daemon.cli("tree").stdout
    assert "root" in daemon.cli("status").stdout
    assert daemon.cli("rm", "my-app").returncode == 0
    assert daemon.cli("invoke", "my-app").returncode == 3
    assert daemon.cli("invoke").returncode == 2
    assert daemon.cli("deploy", "/nosuch").returncode == 3


def test_a_daemon_starts_by_itself(workdir):
    base = os.path.join(workdir, "d")
    os.mkdir(base)
    env = {k: v for k, v in os.environ.items()}
    env["PIPSQUEAK_DIR"] = base
    procs = [subprocess.Popen([CLI, "run", "-c", "print(%d)" % i], env=env, stdout=subprocess.PIPE, text=True)
             for i in range(3)]
    assert sorted(p.communicate(timeout=60)[0] for p in procs) == ["0\n", "1\n", "2\n"]
    pids = subprocess.run(["pgrep", "-f", "pipsqueakd.* --dir %s$" % base], capture_output=True, text=True).stdout.split()
    assert pids
    os.kill(min(int(p) for p in pids), signal.SIGTERM)
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-f", base], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
