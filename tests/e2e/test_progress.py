# SPDX-License-Identifier: Apache-2.0
"""What `run` shows of the daemon's work: bars on a terminal, lines in a pipe, events, nothing."""
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

ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@pytest.fixture
def slow_index(index, workdir):
    """Two dists that no run before has seen; the larger comes slowly."""
    index.tag = "p%x" % time.time_ns()
    index.add(index.tag + "a", {index.tag + "a.py": os.urandom(1_500_000).hex()[:2]},
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


def on_terminal(daemon, index, workdir, columns, **more):
    """What a terminal of this width gets, and when."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    run = subprocess.Popen(command(index), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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
    assert run.stdout.read() == b"ran\n"
    assert run.wait() == 0
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
