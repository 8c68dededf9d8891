# SPDX-License-Identifier: Apache-2.0
"""Starts the bootstrap as a zygote without any sandbox, and the same things with plain python3.

The zygote runs over tests/boot/fake/_pipsqueak.py. Layout of one zygote's directory: lib/ (our
files), env/ (a virtual environment; our files look for it beside lib/), app/ (a function's code),
root/ (an empty virtual environment, whose python the zygote is: no package of the machine is
visible, as in a sandbox), work/ (the working directory).
"""
import array
import ctypes
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PR_SET_CHILD_SUBREAPER = 36

ZYGOTE_ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1",
              "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "HOME": "/nonexistent"}


def wire_constants():
    with open(os.path.join(TOP, "src/wire/messages.h")) as f:
        text = f.read()
    head, tags = text.split("#define WIRE_TAGS")
    pattern = r"X\((\w+), (\d+)\)"
    return (dict((n, int(v)) for n, v in re.findall(pattern, head)),
            dict(("T_" + n, int(v)) for n, v in re.findall(pattern, tags)))


def load_wire():
    """The stand-in's encoder and the constants, for this side of the link."""
    messages, tags = wire_constants()
    space = {**messages, **tags}
    with open(os.path.join(HERE, "fake/_pipsqueak.py")) as f:
        saved = sys.modules.get("_socket")
        exec(compile(f.read(), "fake", "exec"), space)
        if saved is not None:
            sys.modules["_socket"] = saved
    return type("Wire", (), {k: staticmethod(v) if callable(v) else v for k, v in space.items()})


WIRE = load_wire()


def pythons():
    """Every CPython from 3.9 on that this machine has."""
    found = ["/usr/bin/python3"]
    for path in sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))):
        minor = int(path.split("/versions/3.")[1].split(".")[0])
        if minor >= 9:
            found.append(path)
    only = os.environ.get("PIPSQUEAK_TEST_PYTHONS")
    return [p for p in found if not only or any(w in p for w in only.split(","))]


def minor_of(python):
    out = subprocess.check_output([python, "-c", "import sys; print(sys.version_info[1])"])
    return int(out)


def make_venv(python, where):
    minor = minor_of(python)
    site = "%s/lib/python3.%d/site-packages" % (where, minor)
    os.makedirs(site)
    os.makedirs(where + "/bin")
    real = os.path.realpath(python)
    for name in ("python", "python3", "python3.%d" % minor):
        os.symlink(real, "%s/bin/%s" % (where, name))
    with open(where + "/pyvenv.cfg", "w") as f:
        f.write("home = %s\ninclude-system-site-packages = false\nversion = 3.%d\n"
                % (os.path.dirname(real), minor))
    return site


class Result:
    def __init__(self, status, out, err, messages=()):
        self.status, self.out, self.err, self.messages = status, out, err, messages
        self.code = -(status & 0x7F) if status & 0x7F else status >> 8

    def __repr__(self):
        return "code %d\n--- out\n%s--- err\n%s" % (self.code, self.out, self.err)


class Zygote:
    def __init__(self, python):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="boot-"))
        self.python, self.minor = python, minor_of(python)
        for name in ("app", "work", "home"):
            os.mkdir(os.path.join(self.dir, name))
        self.env, self.app, self.work = self.dir + "/env", self.dir + "/app", self.dir + "/work"
        make_venv(python, self.dir + "/root")
        self.write_lib()
        self.process = None
        self.next_id = 1

    def write_lib(self):
        lib = self.dir + "/lib"
        shutil.copytree(os.path.join(TOP, "python"), lib)
        for name in ("forksafe.json", "warm.json"):
            shutil.copy(os.path.join(TOP, "data", name), lib)
        messages, tags = wire_constants()
        with open(os.path.join(HERE, "fake/_pipsqueak.py")) as f:
            source = f.read()
        with open(lib + "/_pipsqueak.py", "w") as f:
            for name, value in {**messages, **tags}.items():
                f.write("%s = %d\n" % (name, value))
            f.write(source)

    def start(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        self.process = subprocess.Popen(
            [self.dir + "/root/bin/python", self.dir + "/lib/bootstrap.py", str(theirs.fileno())],
            env=ZYGOTE_ENV, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        ours.settimeout(60)
        self.control = ours
        kind, _, _ = WIRE.decode(ours.recv(1 << 17))
        assert kind == WIRE.ASLEEP
        self.site = make_venv(self.python, self.env)  # mounted in children only
        return self

    def close(self):
        if self.process:
            self.control.close()
            self.process.wait(60)
        shutil.rmtree(self.dir)

    def add_package(self, path, text=""):
        path = os.path.join(self.site, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def fork(self, role, stdio, control=None, over=None, env=True):
        """Returns a Child: forked over self.control, or over that of a node."""
        ours, theirs = socket.socketpair()
        fds, words = [theirs.fileno()], ["stream"]
        for name, fd in zip(("stdin", "stdout", "stderr"), stdio):
            if fd is not None:
                fds.append(fd)
                words.append(name)
        if control is not None:
            fds.append(control.fileno())
            words.append("control")
        link = over or self.control
        self.next_id += 1
        packet = WIRE.encode(WIRE.FORK, self.next_id, {
            WIRE.T_ROLE: role, WIRE.T_FDS: words, WIRE.T_FLAGS: ["env"] if env else []})
        link.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        theirs.close()
        kind, _, fields = WIRE.decode(link.recv(1 << 17))
        assert kind == WIRE.FORKED
        ours.settimeout(60)
        return Child(self, ours, int.from_bytes(fields[WIRE.T_PID], "little"))

    def run(self, kind="file", code="", argv=(), env=None, cwd=None, stdin=None, flags=(),
            before=None, orig=(), has_env=True, over=None, stdio=None):
        """A script in a child; before(child) may do something while it runs."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given = stdin_of(stdin)
            stdio = stdio or (given.fileno(), out.fileno(), err.fileno())
            child = self.fork("run", stdio, env=has_env, over=over)
            given.close()
            child.expect(WIRE.READY)
            child.send(WIRE.GO, 0, {
                WIRE.T_KIND: kind, WIRE.T_CODE: code, WIRE.T_ARGV: list(argv),
                WIRE.T_TEXT: list(orig), WIRE.T_ENV: list(as_list(env)),
                WIRE.T_CWD: cwd or self.work, WIRE.T_FLAGS: list(flags)})
            if before:
                before(child.pid)
            messages = child.rest()
            status = child.wait()
            out.seek(0)
            err.seek(0)
            return Result(status, out.read().decode("utf-8", "backslashreplace"),
                          err.read().decode("utf-8", "backslashreplace"), messages)

    def plain(self, args, env=None, cwd=None, stdin=None, before=None, stdio=None):
        """The same by python3 itself, in the same environment."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given = stdin_of(stdin)
            stdio = stdio or (given.fileno(), out.fileno(), err.fileno())
            process = subprocess.Popen([self.env + "/bin/python"] + list(args), cwd=cwd or self.work,
                                       env=dict(w.split("=", 1) for w in as_list(env)),
                                       stdin=stdio[0], stdout=stdio[1], stderr=stdio[2])
            given.close()
            if before:
                before(process.pid)
            code = process.wait(60)
            out.seek(0)
            err.seek(0)
            status = -code if code < 0 else code << 8
            return Result(status, out.read().decode("utf-8", "backslashreplace"),
                          err.read().decode("utf-8", "backslashreplace"))

    def node(self, modules, over=None):
        """A node below; returns (its control socket, its PROFILE's fields, its pid)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = self.fork("node", (None, None, None), control=theirs, over=over)
        theirs.close()
        ours.settimeout(60)
        child.expect(WIRE.READY)
        child.send(WIRE.GO, 0, {WIRE.T_MODULES: list(modules)})
        profile = child.expect(WIRE.PROFILE)
        child.expect(WIRE.ASLEEP)
        return ours, profile, child

    def instance(self, entry, over=None, env=(), name="f", flags=("record",)):
        log = tempfile.TemporaryFile()
        child = self.fork("instance", (None, log.fileno(), log.fileno()), over=over)
        child.log = log
        child.expect(WIRE.READY)
        child.send(WIRE.GO, 0, {WIRE.T_ENTRY: list(entry), WIRE.T_ENV: list(env),
                                WIRE.T_NAME: name, WIRE.T_CWD: self.app, WIRE.T_FLAGS: list(flags)})
        return child


def stdin_of(data):
    f = tempfile.TemporaryFile()
    if data is not None:
        f.write(data if isinstance(data, bytes) else data.encode())
        f.seek(0)
    return f


def as_list(env):
    """The variables of a test: what both kinds of start find in their environment."""
    found = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/user", "LANG": "C.UTF-8"}
    found.update(env or {})
    return ["%s=%s" % pair for pair in found.items()]


class Child:
    def __init__(self, zygote, stream, pid):
        self.zygote, self.stream, self.pid = zygote, stream, pid

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.stream.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def recv(self):
        head = self.read(12)
        return WIRE.decode(head + self.read(int.from_bytes(head[8:12], "little")))

    def expect(self, wanted):
        kind, self.last_id, fields = self.recv()
        assert kind == wanted, (kind, fields)
        return fields

    def send(self, kind, ident, fields):
        self.stream.sendall(WIRE.encode(kind, ident, fields))

    def call(self, body, ident=7, **more):
        fields = {WIRE.T_BODY: body, WIRE.T_DEADLINE_MS: WIRE.clock_us() // 1000 + 5000,
                  WIRE.T_NAME: "request-1"}
        fields.update(more)
        self.send(WIRE.CALL, ident, fields)
        return self.expect(WIRE.REPLY)

    def rest(self):
        found = []
        while True:
            try:
                found.append(self.recv())
            except EOFError:
                return found

    def wait(self):
        self.stream.close()
        deadline = time.monotonic() + 10
        while True:
            try:
                return os.waitpid(self.pid, 0)[1]
            except ChildProcessError:  # the process between us and it has not ended yet
                assert time.monotonic() < deadline
                time.sleep(0.001)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def words(fields, tag):
    return fields.get(tag, b"").decode().split("\0")[:-1]
