# SPDX-License-Identifier: Apache-2.0
"""What the attacks share: programs that try, and say of each attempt how it ended."""
import re

# Beside `tries`, for function code: `scan` looks for marks in all that can be read from here. A mark comes in
# halves, for a program that has it whole would find itself.
TRIES = r"""
import ctypes, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def tries(f):
    try:
        return ['done', repr(f())[:200]]
    except (NameError, AttributeError, TypeError, KeyError) as e:
        return ['broken', repr(e)]  # was no attempt at all
    except BaseException as e:
        return ['refused', type(e).__name__ + ': ' + str(e)[:200]]
def sys_(nr, *a):
    r = libc.syscall(nr, *[ctypes.c_char_p(x) if isinstance(x, bytes) else ctypes.c_long(x) for x in a])
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r
def run_off():  # into a session of its own, deaf to signals, its parent gone
    import signal
    os.setsid()
    for n in range(1, 65):
        try:
            signal.signal(n, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork():
        os._exit(0)
def frame(kind, ident=0, body=b"", length=None):
    return struct.pack("<HHII", kind, 0, ident, len(body) if length is None else length) + body
def field(tag, data):
    return struct.pack("<II", tag, len(data)) + data
def stream():
    for n in os.listdir('/proc/self/fd'):
        path = '/proc/self/fd/' + n
        if int(n) > 2 and os.path.lexists(path) and os.readlink(path).startswith('socket:'):
            return socket.socket(fileno=os.dup(int(n)))
def block(path, size=1 << 20):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b''
    try:
        return os.read(fd, size)
    except OSError:
        return b''
    finally:
        os.close(fd)
def memory(pid):
    try:
        with open('/proc/%s/maps' % pid) as maps, open('/proc/%s/mem' % pid, 'rb', 0) as mem:
            for line in maps:
                if line.split()[1][0] != 'r':
                    continue
                a, b = (int(n, 16) for n in line.split()[0].split('-'))
                while a < b and a < 1 << 47:
                    mem.seek(a)
                    try:
                        yield mem.read(min(b - a, 1 << 22))
                    except OSError:
                        pass
                    a += 1 << 22
    except OSError:
        pass
def scan(halves, own_memory=True):
    places, seen = 0, []
    def look(where, data):
        for a, b in halves:
            at = data.find(a.encode())
            while at >= 0:
                if data[at + len(a):at + len(a) + len(b)] == b.encode():
                    seen.append(where + ': ' + a)
                    break
                at = data.find(a.encode(), at + 1)
    for top in ('/app', '/tmp', '/dev/shm', '/home', '/run', '/var', '/pipsqueak', '/mnt', '/opt', '/root', '/srv',
            '/sys'):
        for where, dirs, files in os.walk(top):
            if where != top and 'site-packages/' in where:
                dirs.clear()
            for name in files:
                places += 1
                look('file ' + os.path.join(where, name),
                        os.path.join(where, name).encode() + block(os.path.join(where, name)))
    for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
        for name in ('cmdline', 'environ', 'status', 'comm'):
            places += 1
            look('/proc/%s/%s' % (pid, name), block('/proc/%s/%s' % (pid, name)))
        if own_memory or int(pid) != os.getpid():
            for data in memory(pid):
                places += 1
                look('memory of %s' % pid, data)
    return {'places': places, 'seen': sorted(set(seen))}
"""


def deploy(daemon, name, body, settings=None, toml="", requirements=""):
    files = {"handler.py": TRIES + body, "pipsqueak.toml": toml}
    if requirements:
        files["requirements.txt"] = requirements
    daemon.deployed(name, files, settings=settings)


def attack(daemon, name, body, event=None, **kwargs):
    """Deploy, call, and take away; what the program reports."""
    deploy(daemon, name, body, **kwargs)
    reply = daemon.call(name, event)
    assert reply.status == 200, reply.body
    daemon.request("DELETE", "/functions/" + name)
    return reply.json


def all_refused(report, count=None):
    """So many attempts were made (or at least one), and all were in vain."""
    assert report and len(report) == (count or len(report)) and all(r[0] == "refused" for r in report), report


def said(daemon, since, word):
    """Lines in the daemon's log that a node printed: "word ..."."""
    return re.findall(r"node \(pid \d+\) says: (?:%s) ?(.*)" % word, daemon.log()[since:])
