# SPDX-License-Identifier: Apache-2.0
"""A living daemon, and nonsense on each of its sockets for minutes: HTTP, the socket of `run`, the streams of
instances and of children forked ahead, the control sockets of nodes. What is sent is made of what is
valid, changed a little. After each round an honest function answers, and nothing has grown."""
import array
import os
import shutil
import socket
import struct
import subprocess
import time

from soaking import MINUTES, bare, luck, same

from conftest import CLI, Daemon, new_base, pip_settings, zip_of

SECONDS = max(20, 60 * MINUTES / 5)

# In every process that imports it but the first instance's: frames of all kinds, well and badly made, for a while.
BABBLE = """
import os, random, socket, struct, sys, time
time.sleep(0.01)
def frame(kind, ident, body, length):
    return struct.pack("<HHII", kind, 0, ident, length) + body
def field(r):
    data = os.urandom(r.choice((0, 1, 8, 8, 40, 3000)))
    if r.random() < 0.4:
        data = b"\\0".join(r.choice((b"sys", b"a.b", b"threads=1", b"handler", b"9" * 30, b"../..", b"*")) for _ in range(r.randrange(9))) + b"\\0"
    return struct.pack("<II", r.randrange(48), len(data) if r.random() < 0.9 else r.randrange(1 << 32)) + data
def babble(seconds):
    r = random.Random(os.urandom(8))
    own = []
    for name in os.listdir("/proc/self/fd"):
        try:
            own.append(socket.socket(fileno=os.dup(int(name))))
        except OSError:
            pass
    end = time.monotonic() + seconds
    for _ in range(200):
        if time.monotonic() > end or not own:
            break
        body = b"".join(field(r) for _ in range(r.randrange(6)))
        data = frame(r.choice((33, 34, 48, 51, 52, 53, 54, 56, 57, 58, r.randrange(1 << 16))), r.randrange(12), body,
                     len(body) if r.random() < 0.9 else r.randrange(1 << 32))
        if r.random() < 0.2:
            data = data[:r.randrange(len(data))]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<2i", 0, 1))] if r.random() < 0.1 else []
        try:
            r.choice(own).sendmsg([data], rights, socket.MSG_DONTWAIT)
        except OSError:
            time.sleep(0.002)
IN_NODE = not os.path.exists("/app/handler.py")
MODE = %r
if IN_NODE:
    if "node" in MODE and os.fork() == 0:
        babble(3)
        os._exit(0)
    if "ahead" in MODE:
        os.register_at_fork(after_in_child=lambda: os.path.exists("/app/handler.py") or babble(0.3))
"""
HANDLER = "import %s as m\ndef handler(e):\n    if e: m.babble(0.5)\n    return 'answered'\n"


def changed(r, data):
    """A few of its bytes otherwise: other ones, gone, twice, cut off, numbers at their limits."""
    data = bytearray(data)
    for _ in range(r.choice((0, 1, 1, 2, 5, 30))):
        at = r.randrange(len(data) + 1)
        how = r.randrange(6)
        if how == 0:
            data[at:at + 1] = bytes([r.randrange(256)])
        elif how == 1:
            del data[at:at + r.choice((1, 4, 100))]
        elif how == 2:
            data[at:at] = data[at:at + r.choice((1, 8, 200))]
        elif how == 3:
            data[at:at + 4] = struct.pack("<I", r.choice((0, 1, 0x7fffffff, 0xffffffff, 0x80000000)))
        elif how == 4:
            del data[at:]
        else:
            data[at:at] = r.choice((b"\0", b"%", b"\r\n", b"\r\n\r\n", b"../", b'"', b"{", b"9" * 40, b"\xff\xfe"))
    return bytes(data)


def requests():
    body = zip_of({"handler.py": "def handler(e): return e\n", "pipsqueak.toml": "memory = '64M'\n"})
    yield b"PUT /functions/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\nX-Pip-Settings: %s\r\n" \
          b"Content-Length: %d\r\n\r\n" % (pip_settings().encode(), len(body)) + body
    yield b'POST /run/honest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n{"a": 1}'
    yield b'POST /run/honest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n"ab"\r\n0\r\n\r\n'
    for path in ("status", "metrics", "functions", "tree", "tree/explain/honest", "tree/why/1", "history", "functions/x/logs", "cache"):
        yield b"GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode()
    yield b"DELETE /functions/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def fuzz_http(d, r, seeds):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(0.2)
    try:
        sock.connect(os.path.join(d.base, "run", "api.sock"))
        for _ in range(r.randrange(1, 4)):
            data = changed(r, r.choice(seeds))
            sock.sendall(data)
        if r.random() < 0.7:
            sock.recv(1 << 16)
    except OSError:
        pass  # refused, in whatever way
    finally:
        sock.close()


def captured(d):
    """The packets, and how many descriptors they carry, of a client of `run`; the daemon in between is ours."""
    base, found = new_base(), []
    os.makedirs(base + "/run", exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(base + "/run/run.sock")
    listener.listen(4)
    for words in (["-c", "print(1)"], ["--with", "six", "-c", "import six"], ["-A", "-c", "pass"]):
        client = subprocess.Popen([CLI, "run", *words], env=dict(d.environment(), PIPSQUEAK_DIR=base), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        mine, _ = listener.accept()
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.connect(os.path.join(d.base, "run", "run.sock"))
        mine.send(theirs.recv(1 << 18))  # HELLO
        mine.settimeout(20)
        data, rights, _, _ = mine.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 64))
        fds = array.array("i")
        for _, _, some in rights:
            fds.frombytes(some[:len(some) // 4 * 4])
        found.append((data, list(fds)))
        mine.close()
        theirs.close()
        client.wait(30)
    listener.close()
    shutil.rmtree(base)
    return found


def fuzz_run(d, r, seeds):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(0.3)
    try:
        sock.connect(os.path.join(d.base, "run", "run.sock"))
        for _ in range(r.randrange(1, 4)):
            data, fds = r.choice(seeds)
            fds = list(fds)
            if r.random() < 0.3:
                fds = [r.choice(fds + [0, 1, 2]) for _ in range(r.randrange(20))]
            sock.sendmsg([changed(r, data)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
            if r.random() < 0.5:
                sock.recv(1 << 16)
    except OSError:
        pass
    finally:
        sock.close()


def hostile(d, index):
    """One function for each place that its package babbles from."""
    names = []
    for mode in ("instance", "node", "ahead", "node ahead"):
        dist = "babbles-" + mode.replace(" ", "-")
        module = dist.replace("-", "_")
        index.add(dist, {module + ".py": BABBLE % mode})
        for n in range(2):
            name = "%s-%d" % (dist, n)
            d.deployed(name, {"handler.py": HANDLER % module, "requirements.txt": dist, "pipsqueak.toml": "timeout = 2\nreuse = %s\n"
                              % ("false" if n else "true")}, settings=index.settings)
            names.append(name)
    return names


def test_nonsense_on_every_socket(index):
    r, d = luck("sockets"), Daemon(new_base(), ["--root-age", "60"])
    # What such packages do is theirs to say; and calls of functions that they have are refused as they should be.
    d.allowed += ["Traceback|says: |violation|killed|sent |went away|ended|could not start as a zygote|forks|broken|is not what was asked for"]
    d.deployed("honest", {"handler.py": "def handler(e): return ['honest', e]\n", "pipsqueak.toml": "reuse = false\n"})
    assert d.call("honest", 1).json == ["honest", 1]
    seeds, packets, names = list(requests()), captured(d), hostile(d, index)
    for name in names:
        assert d.call(name).status == 200
    begin, rounds, end = bare(d), 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        for _ in range(40):
            fuzz_http(d, r, seeds)
        for _ in range(40):
            fuzz_run(d, r, packets)
        for name in names:
            assert d.call(name, r.choice((0, 1))).status in (200, 500, 502, 503, 504)
        for n in range(3):
            assert d.call("honest", n).json == ["honest", n]
        rounds += 1
    assert rounds >= 2
    assert d.get("/status").json["violations"] > 0
    for _, fds in packets:
        for fd in fds:
            os.close(fd)
    for name in [*names, "x"]:
        d.request("DELETE", "/functions/" + name)
    same(begin, bare(d))
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)
