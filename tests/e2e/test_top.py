# SPDX-License-Identifier: Apache-2.0
"""`top` on a terminal and in a pipe, `tree --dot`; and that no name steers a terminal. The answers of a made-up daemon
stand for what is hard to provoke: names with control characters, hundreds of nodes, silence."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import CLI, SLOWER, new_base
from test_terminal import Terminal

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
IN, OUT = "\x1b[?1049h", "\x1b[?1049l"


# ---- DOT, as much of its grammar as we use ----

TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([A-Za-z_][A-Za-z_0-9]*)|(->|[{}\[\]=,;]))', re.S)


def tokens(text):
    at, found = 0, []
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, "no DOT: %r" % text[at:at + 40]
        found.append(match.group(0).strip())
        at = match.end()
    return found


def attributes(words):
    """`[a=b, c=d]`, from behind the bracket."""
    found = {}
    while words[0] != "]":
        name, equals, value = (words.pop(0) for _ in range(3))
        assert equals == "=" and name not in "[]{}=,;"
        found[name] = value
        if words[0] == ",":
            words.pop(0)
    words.pop(0)
    return found


def parse_dot(text):
    """Nodes (id -> label) and edges."""
    words = tokens(text)
    assert [words.pop(0) for _ in range(3)] == ["digraph", "pipsqueak", "{"]
    nodes, edges = {}, []
    while words[0] != "}":
        name = words.pop(0)
        assert re.fullmatch(r"\w+", name), name
        mark = words.pop(0)
        if mark == "->":
            edges.append((name, words.pop(0)))
        elif mark == "=":
            words.pop(0)
        else:
            assert mark == "["
            nodes[name] = attributes(words).get("label")
        assert words.pop(0) == ";"
    assert words == ["}"]
    nodes.pop("node")
    assert all(end in nodes for edge in edges for end in edge)
    return nodes, edges


def test_dot(daemon):
    daemon.deployed("dotted", {"handler.py": "import numpy\ndef handler(e):\n    return 1\n", "requirements.txt": "numpy",
                               "pipsqueak.toml": "reuse = false\n"})
    assert daemon.call("dotted").json == 1
    daemon.wait_for_node("numpy")
    made = daemon.cli("tree", "--dot")
    nodes, edges = parse_dot(made.stdout)
    known = {n["id"]: n for n in daemon.nodes()}
    assert set(nodes) == {"n%d" % i for i in known} and len(edges) == len(nodes) - len(daemon.get("/tree").json["roots"])
    for i, node in known.items():
        assert ("n%d" % i, "n%d" % node["children"][0]["id"]) in edges if node["children"] else True
        assert all(a in nodes["n%d" % i] for a in node["adds"][:6])
        assert re.search(r'\\n[\d.]+ MB, \d+ uses"$', nodes["n%d" % i])


# ---- a made-up daemon ----

def node(number, adds, children=(), **more):
    return {"id": number, "python": "/usr/bin/python3", "pid": 7, "memory_bytes": 2500000, "uses": 3, "calls": 2, "adds": adds,
            "modules": 4, "age_s": 10.0, "unused_s": 1.0, "busy": 0, "children": list(children), **more}


def status(calls=10, **started):
    return {"version": "0.1.0", "uptime_s": 100.0, "calls_now": 1, "runs_now": 0, "calls_total": calls, "errors_total": 1,
            "runs_total": 5, "functions": 2, "instances": 5, "idle_instances": 3, "spares": 4, "nodes": 2,
            "nodes_bytes": 250000000, "memory_budget_bytes": 1000000000,
            "calls_started": {"warm": 0, "spare": 0, "node": 0, "root": 0, "none": 0, **started}}


class FakeDaemon:
    def __init__(self):
        self.base = new_base()
        os.mkdir(os.path.join(self.base, "run"))
        self.answers, self.silent, self.asked = {}, False, 0
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(os.path.join(self.base, "run", "api.sock"))
        self.sock.listen(16)
        self.kept = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                conn, _ = self.sock.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += conn.recv(4096)
                self.asked += 1
                if self.silent:
                    self.kept.append(conn)
                    continue
                answer = self.answers[head.split()[1].decode()]
                body = json.dumps(answer() if callable(answer) else answer, ensure_ascii=False).encode()
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                conn.close()
            except OSError:
                return

    def environment(self, **more):
        return {**os.environ, "PIPSQUEAK_DIR": self.base, "TERM": "xterm", "LC_ALL": "C.UTF-8", **more}

    def cli(self, *args, **kwargs):
        return subprocess.run([CLI, *args], capture_output=True, text=True, timeout=60 * SLOWER, stdin=subprocess.DEVNULL,
                              env=self.environment(), **kwargs)

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for conn in self.kept:
            conn.close()
        shutil.rmtree(self.base)


@pytest.fixture
def fake():
    d = FakeDaemon()
    d.answers = {"/status": status(), "/tree": {"roots": [node(1, [], [node(2, ["numpy 2.0"])])], "unforkable": []}}
    yield d
    d.close()


@pytest.fixture
def terminal(fake, workdir):
    opened = []

    def start(*words, rows=24, columns=80, **env):
        opened.append(Terminal([CLI, "top", *words], fake.environment(**env), workdir, (rows, columns), os.getuid()))
        return opened[-1]

    yield start
    for t in opened:
        t.close()


EVIL = 'a\x1b[2J"b\\c\x9bd\x07\ne\x7f'
SEEN = 'a?[2J"b\\c??d??e?'
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def test_no_name_steers_the_terminal(fake):
    reason = {"rule": EVIL, "promise": EVIL, "thing": EVIL, "text": EVIL}
    fake.answers.update({
        "/tree": {"roots": [node(1, [], [node(2, [EVIL], tenant=EVIL)], python=EVIL)], "unforkable": [EVIL]},
        "/functions": {"functions": [{"name": EVIL, "dists": []}]},
        "/tree/explain/f": {
            "function": EVIL, "version": 1, "python": EVIL, "known": True, "spares": 1,
            "start": {"from": "node", "node": 2, "saves_ms": 1.0, "left_ms": 1.0, "of_ms": 2.0, "dists": [EVIL]},
            "others": [{"node": 3, "dists": [EVIL], "saves_ms": 1.0, "admitted": False, "reasons": [reason]}],
            "cannot_sleep": [{"module": EVIL, "dist": EVIL, "how": EVIL, "text": EVIL}],
            "idle_threads": [{"module": EVIL, "threads": 1, "reason": EVIL, "proof": EVIL}],
            "own_node": {"state": EVIL, "text": EVIL, "next_try": EVIL}},
        "/tree/nodes/2": {**node(2, [EVIL], made_for=EVIL, tenant=EVIL, dists=[EVIL], child_ids=[]),
                          "users": {"named": [{"function": EVIL}], "functions": 1}, "drop": {"text": EVIL}}})
    for words in (["tree"], ["tree", "--dot"], ["tree", "--explain", "f"], ["tree", "--why", "2"], ["ls"], ["top", "--once"]):
        made = fake.cli(*words)
        assert made.returncode == 0 and not CONTROL.search(made.stdout), (words, made.stdout)
        assert SEEN[:5] in made.stdout, words
    nodes, edges = parse_dot(fake.cli("tree", "--dot").stdout)
    quoted = SEEN.replace("\\", "\\\\").replace('"', '\\"')
    assert edges == [("n1", "n2")]
    assert nodes == {n: '"%s\\n2.5 MB, 3 uses"' % quoted for n in ("n1", "n2")}


# ---- top ----

def screen(text):
    """The last picture, as lines."""
    return ESCAPE.sub("", text[text.rindex("\x1b[H"):]).replace("\r", "").split("\n")


def shown(t):
    return screen(t.seen.decode().split(OUT)[0])


def test_pictures_in_a_pipe(fake):
    numbers = iter((10, 40))
    fake.answers["/status"] = lambda: status(next(numbers), warm=6, spare=2, node=1, root=1)
    made = fake.cli("top", "-n", "2", "-d", "1")
    assert made.returncode == 0 and "\x1b" not in made.stdout, made
    first, second = made.stdout.strip().split("\n\npipsqueak ")
    assert re.match(r"pipsqueak 0.1.0, up 100 s, \d\d:\d\d:\d\d\n", first)
    assert "calls   0.1/s, 1 now, 10 in all; errors 0.0/s, 1 in all\n" in first  # means since the start
    assert "procs   2 busy, 3 warm, 4 spare; 2 functions\n" in first
    assert "memory  250.0 of 1000.0 MB in 2 nodes  [#####---------------]\n" in first
    assert "starts  warm   60.0%  spare   20.0%  node   10.0%  root   10.0%  none    0.0%\n" in first
    rate = float(re.search(r"calls   ([\d.]+)/s, 1 now, 40 in all", second)[1])
    assert 10 < rate <= 30  # 30 in a second, or a little more
    assert "lately  warm      -  spare      -" in second
    assert re.search(r"\n    2      2.5        3     0.0        2     0.0  └─ numpy 2.0", "\n" + second)
    assert re.search(r"\n    2      2.5        3     0.3        2     0.2  └─ numpy 2.0", "\n" + first)


def test_once_on_a_terminal(terminal):
    t = terminal("--once")
    assert t.end() == 0
    t.until("numpy 2.0")
    assert b"\x1b" not in t.seen


def test_keys_and_signals_give_the_terminal_back(terminal):
    for how in ("q", "Q", "\x03", signal.SIGTERM, signal.SIGHUP):
        t = terminal("-d", "0.2").until(IN).until("numpy 2.0").until("numpy 2.0")
        assert t.modes()[3] != t.begin[3]
        if isinstance(how, str):
            t.type(how)
        else:
            t.process.send_signal(how)
        code = t.end()
        t.until(OUT)
        assert code == {"q": 0, "Q": 0, "\x03": -signal.SIGINT}.get(how, -how if not isinstance(how, str) else None)
        assert t.modes() == t.begin, how
        assert t.seen.count(b"\x1b[?25h") == t.seen.count(b"\x1b[?25l") == 1
        assert t.seen.count(b"\x1b[?7h") == t.seen.count(b"\x1b[?7l") == 1


def test_so_many_pictures(terminal, fake):
    t = terminal("-n", "3", "-d", "0.1")
    assert t.end() == 0
    t.until(OUT)
    assert t.seen.count(b"\x1b[H") == 3 and t.modes() == t.begin


@pytest.mark.parametrize("rows, columns", [(24, 80), (10, 40), (3, 10), (1, 1), (200, 300)])
def test_sizes(terminal, fake, rows, columns):
    many = [node(i, ["päckage-%d 1.0" % i] * 3) for i in range(2, 100)]
    fake.answers["/tree"]["roots"] = [node(1, [], many)]
    t = terminal("-n", "2", "-d", "0.1", rows=rows, columns=columns)
    assert t.end() == 0
    t.until(OUT)
    lines = shown(t)
    assert len(lines) <= rows and all(len(line) <= columns for line in lines), lines
    if rows < 100:
        assert lines[-1] == ("%d more rows" % (9 + 99 - (rows - 1)))[:columns]
    else:
        assert sum("päckage" in line for line in lines) == 98 and lines[-1] == ""


def test_a_window_that_changes(terminal):
    t = terminal("-d", "60").until("numpy 2.0")
    before = t.seen.count(b"\x1b[H")
    t.resize(4, 20)
    t.becomes(lambda: t.read(0.05) or t.seen.count(b"\x1b[H") > before)  # at once, not after a minute
    t.settles().read(0.2)
    lines = shown(t)
    assert len(lines) == 4 and all(len(line) <= 20 for line in lines) and lines[-1] == "8 more rows"
    t.type("q")
    assert t.end() == 0


def test_stopped_and_continued(fake, workdir):
    """By a shell's job control."""
    shell = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]
    t = Terminal(shell, fake.environment(PS1="sh$ ", HISTFILE="", PQ=CLI), workdir, (24, 80), os.getuid())
    try:
        t.until("sh$ ").type("$PQ top -d 0.2\n").until(IN).until("numpy 2.0").type("\x1a").until(OUT).until("Stopped").until("sh$ ")
        assert t.modes()[3] == t.begin[3]
        t.type("fg\n").until(IN).until("numpy 2.0").type("q").until(OUT).until("sh$ ")
        t.type("echo $?; exit\n").until("0")
        assert t.end() == 0
    finally:
        t.close()


def test_a_daemon_that_is_silent_or_gone(terminal, fake):
    t = terminal("-d", "0.2").until("numpy 2.0")
    fake.silent = True
    t.until("the daemon does not answer", 30)
    fake.silent = False
    t.until(":", 30)
    begin = time.monotonic()
    fake.silent = True
    t.type("\x03")
    assert t.end(30) == -signal.SIGINT and time.monotonic() - begin < 10 * SLOWER
    assert t.modes() == t.begin
    fake.silent = False
    t = terminal("-d", "0.2").until("numpy 2.0")
    os.unlink(os.path.join(fake.base, "run", "api.sock"))
    assert t.end(30) == 3
    t.until(OUT).until("no daemon runs")
    assert t.modes() == t.begin


def test_no_color(terminal):
    assert b"\x1b[7m" in terminal("-n", "2", "-d", "0.1").until(OUT).seen
    assert b"\x1b[7m" not in terminal("-n", "2", "-d", "0.1", NO_COLOR="1").until(OUT).seen
    t = terminal("-n", "2", "-d", "0.1", TERM="dumb").until("NODE").until("NODE")
    assert t.end() == 0 and b"\x1b" not in t.seen


def test_bad_flags(fake):
    for words in (["-n"], ["-n", "0"], ["-n", "1.5"], ["-d", "0"], ["-d", "nan"], ["-d"], ["x"]):
        made = fake.cli("top", *words)
        assert made.returncode == 2 and "pipsqueak help top" in made.stderr, words
    reader = subprocess.Popen([CLI, "top", "-d", "0.1"], env=fake.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.readline()
    reader.stdout.close()  # as `| head -1`
    assert reader.wait(20) == -signal.SIGPIPE and reader.stderr.read() == b""


def test_of_a_real_daemon(daemon):
    daemon.deployed("seen", {"handler.py": "def handler(e):\n    return 1\n"})
    assert daemon.call("seen").json == 1
    made = daemon.cli("top", "--once")
    assert made.returncode == 0 and made.stderr == ""
    s = daemon.get("/status").json
    assert ", %d in all; errors" % s["calls_total"] in made.stdout and "/usr/bin/python3" in made.stdout
