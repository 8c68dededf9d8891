# SPDX-License-Identifier: Apache-2.0
"""What `run` and `deploy` show of the daemon's work: bars on a terminal, lines in a pipe, events, nothing."""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import time

import conftest
import pytest

import wheels

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@pytest.fixture
def slow_index(index, workdir):
    """Two dists that no run before has seen; the larger comes slowly."""
    index.tag = "p%x" % time.time_ns()
    index.add(index.tag + "a", {index.tag + "a.py": ""},
              requires=[index.tag + "b"])
    index.add(index.tag + "b", {"data.bin": os.urandom(2_000_000), index.tag + "b.py": ""})
    index.slow = 0.02
    return index


def settings_file(index, workdir):
    path = os.path.join(workdir, "pip.conf")
    with open(path, "w") as f:
        f.write("[global]\nindex-url = %s\nfind-links =\n" % index.url)
    return path


def environment(daemon, index, workdir, **more):
    env = {k: v for k, v in daemon.environment().items() if not k.startswith("PIP_")}
    env.update(PIP_CONFIG_FILE=settings_file(index, workdir), TERM="xterm",
               XDG_CACHE_HOME=os.path.join(workdir, "cache"), **more)
    return env


def command(index, *flags):
    return [conftest.CLI, "run", *flags, "--with", index.tag + "a", "-c", "print('ran')"]


def deploy_command(index, workdir, *flags):
    app = os.path.join(workdir, index.tag)
    os.makedirs(app, exist_ok=True)
    with open(os.path.join(app, "handler.py"), "w") as f:
        f.write("import %sa\ndef handler(event):\n    return 'here'\n" % index.tag)
    with open(os.path.join(app, "requirements.txt"), "w") as f:
        f.write(index.tag + "a\n")
    return [conftest.CLI, "deploy", *flags, app]


def on_terminal(daemon, index, workdir, columns, words=None, **more):
    """What a terminal of this width gets, and when."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    run = subprocess.Popen(words or command(index), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=slave, env=environment(daemon, index, workdir, **more))
    os.close(slave)
    pieces = []
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        pieces.append((time.monotonic(), piece.decode()))
    os.close(master)
    out = run.stdout.read()
    assert run.wait() == 0
    assert out == b"ran\n" if not words else out.startswith(index.tag.encode() + b", version 1: ")
    return pieces


@pytest.mark.parametrize("columns", [20, 80])
def test_bars(daemon, slow_index, workdir, columns):
    pieces = on_terminal(daemon, slow_index, workdir, columns, NO_COLOR="1")
    text = "".join(piece for _, piece in pieces)
    assert "resolving" in text  # what goes by between two pictures is not drawn
    assert slow_index.tag in text
    assert "\x1b[32m" not in text, "NO_COLOR"
    assert ("####" in text) == (columns == 80)
    for line in ESCAPE.sub("", text.replace("\r", "\n")).splitlines():
        assert len(line) < columns
    # all that was drawn is taken away again: as many lines up as were written
    assert text.endswith("\x1b[J")
    drawn = text.count("\n")
    up = sum(int(n) for n in re.findall(r"\x1b\[(\d+)A", text))
    assert drawn == up
    pictures = text.count("\x1b[?7l")
    assert pictures <= 20 * (pieces[-1][0] - pieces[0][0]) + 2


def test_color(daemon, slow_index, workdir):
    text = "".join(p for _, p in on_terminal(daemon, slow_index, workdir, 80))
    assert "\x1b[32m#" in text


def run_piped(daemon, index, workdir, *flags):
    done = subprocess.run(command(index, *flags), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env=environment(daemon, index, workdir), timeout=100)
    assert done.returncode == 0 and done.stdout == "ran\n", done.stderr
    return done.stderr.splitlines()


def test_lines_in_a_pipe(daemon, slow_index, workdir):
    lines = run_piped(daemon, slow_index, workdir)
    assert lines[0] == "pipsqueak: resolving"
    assert lines[-1] == "pipsqueak: installing 2 packages"
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert run_piped(daemon, slow_index, workdir) == [], "the second time nothing is to be told"


def test_quiet(daemon, slow_index, workdir):
    assert run_piped(daemon, slow_index, workdir, "-q") == []


def test_events(daemon, slow_index, workdir):
    events = [json.loads(line) for line in run_piped(daemon, slow_index, workdir, "--json")]
    kinds = [e["event"] for e in events]
    assert kinds[0] == "resolve" and kinds.count("resolved") == 1
    assert kinds.count("installed") == 2
    name = slow_index.tag + "b"
    loads = [e for e in events if e["event"] == "download" and e["name"] == name]
    assert loads[-1]["done"] > 2_000_000
    amounts = [e.get("done", 0) for e in loads]
    assert amounts == sorted(amounts)


def test_an_error_is_an_event(daemon, slow_index, workdir):
    done = subprocess.run([conftest.CLI, "run", "--json", "--with", "nowhere-at-all", "-c", ""],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
                          env=environment(daemon, slow_index, workdir))
    assert done.returncode == 3
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "error" and last["kind"] == "not_found"
    assert "nowhere-at-all" in last["text"]


def test_offline(daemon, slow_index, workdir):
    def run(*flags):
        return subprocess.run(command(slow_index, *flags), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=100,
                              env=environment(daemon, slow_index, workdir))

    first = run("--offline")
    assert first.returncode == 9 and "--offline" in first.stderr, first.stderr
    assert run().returncode == 0
    slow_index.status = 500
    assert run("--offline").stdout == "ran\n"


def deploy_piped(daemon, index, workdir, *flags, code=0):
    done = subprocess.run(deploy_command(index, workdir, *flags), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=100,
                          env=environment(daemon, index, workdir))
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr.splitlines()


def test_deploy_bars(daemon, slow_index, workdir):
    words = deploy_command(slow_index, workdir)
    pieces = on_terminal(daemon, slow_index, workdir, 80, words)
    text = "".join(piece for _, piece in pieces)
    assert "resolving" in text and "\x1b[32m#" in text and slow_index.tag in text
    assert text.endswith("\x1b[J")
    assert len(pieces) > 5 and pieces[-1][0] - pieces[0][0] > 0.5, "as it goes on, not at the end"


def test_deploy_lines_in_a_pipe(daemon, slow_index, workdir):
    out, lines = deploy_piped(daemon, slow_index, workdir)
    assert "version 1: %sa 1.0" % slow_index.tag in out
    assert lines[0] == "pipsqueak: resolving"
    assert lines[-1] == "pipsqueak: installing 2 packages"
    assert daemon.call(slow_index.tag).json == "here"


def test_deploy_quiet(daemon, slow_index, workdir):
    out, lines = deploy_piped(daemon, slow_index, workdir, "-q")
    assert "version 1: " in out and lines == []


def test_deploy_events(daemon, slow_index, workdir):
    out, lines = deploy_piped(daemon, slow_index, workdir, "--json")
    events = [json.loads(line) for line in lines]
    kinds = [e["event"] for e in events]
    assert kinds[0] == "resolve" and kinds.count("resolved") == 1 and kinds.count("installed") == 2
    assert "answer" not in kinds
    assert json.loads(out)["name"] == slow_index.tag and json.loads(out)["version"] == 1


def test_deploy_that_fails_midway(daemon, slow_index, workdir):
    """The status is that of the end, whatever was told before; the version before goes on serving."""
    deploy_piped(daemon, slow_index, workdir)
    later = wheels.Index()
    later.tag = slow_index.tag
    later.add(later.tag + "a", {"x.py": ""}, version="2.0", requires=["nowhere-at-all"])
    out, lines = deploy_piped(daemon, later, workdir, "--json", code=3)
    later.close()
    last = json.loads(lines[-1])
    assert json.loads(lines[0])["event"] == "resolve"
    assert out == "" and last["event"] == "error" and last["kind"] == "not_found"
    assert "nowhere-at-all" in last["text"]
    assert daemon.call(slow_index.tag).json == "here"


def put(daemon, index, workdir, *headers):
    """As curl would: the whole of the answer."""
    settings = [("X-Pip-Settings", index.settings), *headers]
    body = conftest.zip_of({"handler.py": "def handler(event):\n    return 1\n",
                            "requirements.txt": index.tag + "a\n"})
    return daemon.request("PUT", "/functions/" + index.tag, body, settings)


def test_who_does_not_ask_gets_one_answer(daemon, slow_index, workdir):
    reply = put(daemon, slow_index, workdir)
    assert reply.status == 200 and reply.json["name"] == slow_index.tag
    assert "application/json" in reply.headers and "chunked" not in reply.headers


def test_the_last_line_is_the_answer(daemon, slow_index, workdir):
    ask = ("Accept", "application/x-ndjson")
    reply = put(daemon, slow_index, workdir, ask)
    assert reply.status == 200 and "chunked" in reply.headers
    lines = [json.loads(line) for line in reply.body.splitlines() if line.startswith(b"{")]
    assert lines[0]["event"] == "resolve"
    assert lines[-1]["event"] == "answer" and lines[-1]["status"] == 200
    assert lines[-1]["body"]["name"] == slow_index.tag
    # nothing to tell: what is refused at once has its own status
    refused = daemon.request("PUT", "/functions/" + slow_index.tag, b"no zip", [ask])
    assert refused.status == 400 and refused.error["kind"] == "usage"


def test_a_client_that_leaves_midway(daemon, slow_index, workdir):
    """Its deploy goes on, and the daemon with it."""
    go = subprocess.Popen(deploy_command(slow_index, workdir), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env=environment(daemon, slow_index, workdir))
    assert "resolving" in go.stderr.readline()
    go.kill()
    go.communicate()
    daemon.becomes(lambda: daemon.request("POST", "/run/" + slow_index.tag, b"null").status == 200)


def test_a_daemon_that_ends_midway(own_daemon, slow_index, workdir):
    go = subprocess.Popen(deploy_command(slow_index, workdir), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment(own_daemon, slow_index, workdir))
    assert "resolving" in go.stderr.readline()
    own_daemon.stop(kill=True)
    out, err = go.communicate(timeout=20)
    assert go.returncode not in (0, -11) and out == "" and "the daemon" in err
