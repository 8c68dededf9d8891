# SPDX-License-Identifier: Apache-2.0
"""`pipsqueak run` on a terminal, beside a plain python3: /dev/tty, modes, keys, jobs, the prompt."""
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import CLI, SLOWER, new_base, of_daemon
from test_users import ROOT, UID, UsersDaemon

PLAIN = "/usr/bin/python3"
PROMPT = b">>> "


class Terminal:
    """A pseudo terminal and what was started on it, as the leader of a session: a terminal's window."""

    def __init__(self, argv, env, cwd, size, owner):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.begin = termios.tcgetattr(slave)
        self.slave, self.seen, self.at = slave, b"", 0
        os.chown(os.ttyname(slave), owner, -1)
        self.process = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=Terminal.become_leader)

    @staticmethod
    def become_leader():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in (signal.SIGINT, signal.SIGQUIT):  # who started the tests may ignore them
            signal.signal(number, signal.SIG_DFL)

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 65536)

    def until(self, text, seconds=20):
        """Wait for text beyond what was waited for before."""
        text = text.encode() if isinstance(text, str) else text
        deadline = time.monotonic() + seconds * SLOWER
        while text not in self.seen[self.at:]:
            assert time.monotonic() < deadline, (text, self.seen)
            self.read(0.05)
        self.at = self.seen.index(text, self.at) + len(text)
        return self

    def settles(self):
        """A signal between an interpreter's last look for one and its system call waits for that call's end."""
        time.sleep(0.05)
        return self

    def type(self, text):
        os.write(self.master, text.encode() if isinstance(text, str) else text)
        return self

    def modes(self):
        return termios.tcgetattr(self.slave)

    def becomes(self, what, seconds=20):
        deadline = time.monotonic() + seconds * SLOWER
        while not what():
            assert time.monotonic() < deadline, self.seen
            self.read(0.02)
        return self

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self, seconds=20):
        """Its exit code, once all that it showed was read."""
        self.becomes(lambda: self.process.poll() is not None, seconds)
        while select.select([self.master], [], [], 0)[0]:
            self.read(0)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)


class Person:
    """Someone at terminals, with a daemon: opens windows with us or with a plain python3 in them."""

    def __init__(self, daemon, workdir, cli, owner, proxied):
        self.daemon, self.workdir, self.cli, self.owner = daemon, workdir, cli, owner
        self.prefix = daemon.prefix() if isinstance(daemon, UsersDaemon) else []
        self.windows = []
        # Else the script's terminal is the real one, whose mode stays.
        self.proxied = proxied

    def holds(self, w):
        """Wait until the client of this window copies."""
        return w.becomes(lambda: not self.proxied or not w.modes()[3] & termios.ICANON)

    def window(self, argv, size=(24, 80), **env):
        env = dict(self.daemon.environment(), LANG="C.UTF-8", TERM="xterm", **env)
        env = {k: v for k, v in env.items() if not k.startswith("PYTHON")}
        argv = [*self.prefix, *argv]
        self.windows.append(Terminal(argv, env, self.workdir, size, self.owner))
        return self.windows[-1]

    def ours(self, *args, **kwargs):
        return self.window([self.cli, "run", *args], **kwargs)

    def code(self, code, **kwargs):
        return self.ours("-c", code, **kwargs)

    def shell(self):
        """An interactive shell, with job control."""
        argv = ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"]
        return self.window(argv, PS1="sh$ ", HISTFILE="", PQ=self.cli).until("sh$ ")

    def script(self, text, name="s.py"):
        with open(os.path.join(self.workdir, name), "w") as f:
            f.write(text)
        return name

    def close(self):
        for w in self.windows:
            w.close()


@pytest.fixture
def root_person(shared_daemon, workdir):
    p = Person(shared_daemon, workdir, CLI, os.getuid(), ROOT)
    yield p
    p.close()
    shared_daemon.check_log()


@pytest.fixture(scope="module")
def users_daemon():
    base = new_base()
    d = UsersDaemon(base, "subids" if ROOT else "own")
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(base)


@pytest.fixture(params=["daemon's owner", "user", "user on another's terminal"] if ROOT else ["user"])
def person(request, workdir):
    """At a terminal of their own; or after su, when the terminal is still root's."""
    if request.param == "daemon's owner":
        yield request.getfixturevalue("root_person")
        return
    d = request.getfixturevalue("users_daemon")
    os.chmod(workdir, 0o755)
    p = Person(d, workdir, os.path.join(d.bin, "pipsqueak"),
               UID if request.param == "user" and ROOT else os.getuid(), request.param != "user")
    yield p
    p.close()
    d.check_log()


# ---- /dev/tty ----

GETPASS = "import getpass; print('got', getpass.getpass('secret: '))"


def lines(seen):
    """What was shown, as a set of lines: two ways lead to a terminal, and they may cross."""
    return sorted(line for line in seen.replace(b"\r", b"").split(b"\n") if line)


def test_a_password_is_not_shown(person):
    shown = []
    for w in (person.window([PLAIN, "-c", GETPASS]), person.code(GETPASS)):
        w.until("secret: ").becomes(lambda w=w: not w.modes()[3] & termios.ECHO)
        w.type("hush\n").until("got hush")
        assert w.end() == 0
        assert w.seen.count(b"hush") == 1
        assert w.modes() == w.begin
        shown.append(w.seen.replace(b"\r", b"").replace(b"\n", b""))
    assert shown[0] == shown[1]


def test_standard_streams_elsewhere(person):
    code = person.script("import getpass, sys\nsecret = getpass.getpass('secret: ')\n"
                         "print(sys.stdin.read().strip(), secret, sys.stdin.isatty())\n")
    for how in (PLAIN, person.cli + " run"):
        w = person.window(["/bin/sh", "-c", "echo piped | %s %s 2>/dev/null | tr a-z A-Z" % (how, code)])
        w.until("secret: ").type("hush\n").until("PIPED HUSH FALSE")
        assert w.end() == 0
        assert b"hush" not in w.seen and w.modes() == w.begin


BOTH = """
import os, sys
tty = open('/dev/tty', 'w+b', buffering=0)
print(os.isatty(tty.fileno()), os.ttyname(tty.fileno()), os.get_terminal_size(tty.fileno()), flush=True)
tty.write(b'to the terminal\\n\\ttabs\\r\\nand returns\\rdone\\n')
print(tty.readline(), flush=True)
os.system('stty -echo < /dev/tty')
tty.write(b'silent: ')
print(tty.readline(), flush=True)
os.system('stty echo < /dev/tty')
os.system('stty size < /dev/tty; stty -a < /dev/tty | grep -o "erase = ..";: < /dev/tty')
tty.write(b'last')
"""


def test_reading_and_writing(person):
    shown = []
    name = person.script(BOTH)
    for w in (person.window([PLAIN, name], size=(33, 77)), person.ours(name, size=(33, 77))):
        w.until("done\r\n").type("a line\n").until("silent: ").type("unseen\n").until("last")
        assert w.end() == 0
        shown.append(lines(w.seen))
        assert w.modes() == w.begin
    assert shown[0] == shown[1]
    assert b"33 77" in shown[0] and b"unseen" not in shown[0]


def test_it_is_opened_again_and_again(person):
    """Also by other processes of the script's; in between the client sleeps."""
    w = person.script("import subprocess, sys, time\nfor i in range(5):\n"
                      "    with open('/dev/tty') as f: print(i, f.readline(), end='', flush=True)\n"
                      "subprocess.run([sys.executable, '-c', 'print(open(\"/dev/tty\").readline())'])\n"
                      "print('idle', flush=True)\ntime.sleep(0.5)\nprint('end')\n")
    w = person.ours(w)
    for i in range(5):
        person.holds(w).type("line %d\n" % i).until("%d line %d" % (i, i))
    person.holds(w).type("other\n").until("other\r\n").until("idle")
    w.becomes(lambda: w.modes()[3] & termios.ICANON)

    def used():
        with open("/proc/%d/stat" % w.process.pid) as f:
            return sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])

    before = used()
    time.sleep(0.3)
    assert used() - before <= 2  # of 30 ticks
    w.until("end")
    assert w.end() == 0


def test_large_output_and_a_raw_mode(person):
    code = "import os, tty\nf = os.open('/dev/tty', os.O_RDWR)\ntty.setraw(f)\n" \
           "for i in range(3000): os.write(f, b'%d line\\n' % i)\nos.write(f, b'ready')\n" \
           "got = os.read(f, 1)\nos.write(f, b'%r' % got)\n"
    w = person.code(code).until("ready")
    assert b"2999 line\nready" in w.seen and w.seen.count(b"\n") == 3000 and b"\r" not in w.seen
    w.type("\x03").until("b'\\x03'")
    assert w.end() == 0
    # The real terminal stays as it was left, as with a plain python3.
    assert w.modes() == w.begin or not person.proxied


def test_without_a_terminal_there_is_none(daemon, workdir):
    code = "try: open('/dev/tty')\nexcept OSError as e: print(e)"
    out = daemon.cli("run", "-c", code, cwd=workdir, start_new_session=True)
    plain = subprocess.run([PLAIN, "-c", code], capture_output=True, text=True, start_new_session=True)
    assert out.stdout == plain.stdout != ""


# ---- keys and signals ----

HOLDS = "import sys, time\nf = open('/dev/tty')\nprint('up', flush=True)\n"


@pytest.mark.parametrize("held", [True, False])
def test_interrupt(person, held):
    name = person.script("import sys\nf = open('/dev/tty') if %s else sys.stdin\ntry: print('up', flush=True); f.readline()\n"
                         "except KeyboardInterrupt: print('no', flush=True)\n"
                         "print(f.readline(), 'again', flush=True); f.readline()\n" % held)
    shown = []
    for w in (person.window([PLAIN, name]), person.ours(name)):
        w.until("up").until("\n")  # Ctrl-C drops what is not yet read, of output, too
        if held and w is not person.windows[0]:
            person.holds(w)
        w.settles().type("dropped\x03").until("no").type("kept\n").until("again").until("\n").settles().type("\x03")
        assert w.end() == -signal.SIGINT
        assert w.modes() == w.begin
        assert w.seen.count(b"^C") == 2
        shown.append([line for line in lines(w.seen.replace(b"^C", b"")) if not line.startswith(b"  ")])
    assert shown[0] == shown[1]
    assert any(line.startswith(b"KeyboardInterrupt") for line in shown[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_mode_is_restored_when_the_client_dies(person, number):
    """In a shell, which outlives it, without job control, which would restore it too."""
    cli = " ".join([person.cli, "run"])
    w = person.window(["/bin/sh", "-c", cli + ' -c "$0" & wait $!; sleep 60', HOLDS + "time.sleep(60)"])
    w.until("up")
    # In sh without job control a background process has the foreground's group.
    person.holds(w)
    with open("/proc/%d/task/%d/children" % (w.process.pid, w.process.pid)) as f:
        os.kill(int(f.read().split()[0]), number)
    w.becomes(lambda: w.modes() == w.begin)


def test_the_mode_is_restored_when_the_script_dies(person):
    w = person.code("import os, tty\nf = open('/dev/tty')\ntty.setraw(f)\nos.kill(os.getpid(), 9)")
    assert w.end() == -9
    assert w.modes() == w.begin


def test_window_size(person):
    for held in ("f = open('/dev/tty')", "f = sys.stdout"):
        w = person.code("import os, signal, sys, time\n%s\nn = []\nsignal.signal(signal.SIGWINCH, lambda *a: n.append(1))\n"
                        "print(os.get_terminal_size(f.fileno()), flush=True)\nwhile not n: time.sleep(0.01)\n"
                        "print(os.get_terminal_size(f.fileno()), len(n))" % held, size=(20, 60))
        w.until("columns=60, lines=20")
        w.resize(30, 90)
        w.until("columns=90, lines=30) 1")
        assert w.end() == 0


def test_stop_and_go_on(person):
    for text in ("print('up', flush=True)\nprint('got', input())\n", HOLDS + "print('got', f.readline())\n"):
        name = person.script(text)
        w = person.shell()
        w.type("$PQ run %s\n" % name).until("up\r\n")
        time.sleep(0.1)
        w.type("\x1a").until("Stopped").until("sh$ ")
        w.type("echo the-shell-$((1+1))\n").until("the-shell-2").until("sh$ ")
        w.type("fg\n").until("$PQ run")
        time.sleep(0.2)
        w.type("typed\n").until("got typed").until("sh$ ")
        w.type("stty | grep -c -e -icanon -e -echo; exit\n").until("0\r\n")
        w.end()


def test_a_script_may_ignore_or_catch_stops(person):
    w = person.shell()
    name = person.script("import os, signal\nsignal.signal(signal.SIGTSTP, lambda *a: os.write(1, b'caught'))\n"
                         "print('up', flush=True)\nprint('got', input())\n")
    w.type("$PQ run %s\n" % name).until("up\r\n")
    time.sleep(0.3)  # until it reads: the interpreter sees a signal before that only afterwards
    w.type("\x1a").until("caught").type("x\n").until("got x")
    w.until("sh$ ")
    name = person.script("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('awake')\n", "t.py")
    w.type("$PQ run %s\n" % name).until("Stopped").until("sh$ ").type("fg\n").until("awake").until("sh$ ")
    w.type("exit\n").end()


def test_no_shell_no_stop(person):
    """Nobody could continue it: then the key does nothing, as with a plain python3."""
    for argv in ([PLAIN], [person.cli, "run"]):
        w = person.window([*argv, "-c", "print('up', flush=True)\nprint('got', input())"])
        w.until("up\r\n")
        time.sleep(0.1)
        w.type("\x1ax\n").until("got x")
        assert w.end() == 0


def test_in_the_background(person):
    """It neither stops, nor takes what is typed to the shell, nor changes the mode; in front it does."""
    w = person.shell()
    name = person.script(HOLDS + "open('/dev/tty', 'w').write('writes\\n')\nprint('got', f.readline())\n")
    w.type("$PQ run %s &\n" % name).until("writes")
    time.sleep(0.5)
    w.type("echo the-shell-$((1+1))\n").until("the-shell-2\r\n").until("sh$ ")
    w.type("jobs\n").until("Running").until("sh$ ").type("fg\n").until("$PQ run")
    time.sleep(0.5)
    w.type("mine\n").until("got mine").until("sh$ ")
    w.type("stty | grep -c -e -icanon -e -echo; exit\n").until("0\r\n")
    w.end()


def test_death_of_the_client_ends_the_script(person):
    before = {p.key for p in of_daemon(person.daemon.process.pid)[0]}
    w = person.code("import time\nf = open('/dev/tty')\nprint('up', flush=True)\ntime.sleep(60)").until("up")
    script = [p for p in of_daemon(person.daemon.process.pid)[0]
              if p.key not in before and os.readlink("/proc/%d/cwd" % p.pid) == person.workdir]
    assert len(script) == 1
    w.process.kill()
    w.process.wait()
    w.becomes(lambda: not os.path.exists("/proc/%d" % script[0].pid))


def test_nothing_can_be_typed_for_the_caller(person):
    """TIOCSTI pushes input into a terminal, for the shell to execute after the script."""
    code = "import fcntl, os, termios\nfor f in (0, os.open('/dev/tty', os.O_RDWR)):\n" \
           "    for bits in (0, 1 << 32):\n        try: fcntl.ioctl(f, termios.TIOCSTI, b'!'); print('pushed')\n" \
           "        except OSError as e: print('refused', e.errno)\n"
    w = person.code(code)
    w.end()
    assert w.seen.count(b"refused 1\r\n") == 4 and b"pushed" not in w.seen


# ---- the prompt ----

def rewritten(seen):
    return re.sub(rb"0x[0-9a-f]+", b"0x", seen)


SESSIONS = {
    "values": ["1 + 1", "_ + 1", "def f():", "    return 5", "", "f()", "x = (", ")", "exit()"],
    "errors": ["1 / 0", "x y", "import ", "nosuch", "def g(): raise ValueError('x')", "", "g()", "raise SystemExit(3)"],
    "editing": ["print(12)\x01\x1b[C\x02\x05\x7f\x7f34)", "\x10", "\x04"],
    "help": ["help", "exit", "copyright", "help()", "quit", "quit(4)"],
    "names": ["dir()", "__name__, __spec__, __loader__", "import sys", "sys.argv, sys.path[0], sys.ps1, sys.flags",
              "sys.stdin, sys.stdout.line_buffering", "sys.exit('bye')"],
    "interrupted": ["abc\x03", "2", "\x04"],
}


def prompt_of(w, typed):
    w.until(PROMPT)
    for text in typed:
        if text.endswith("\x03"):
            time.sleep(0.2)  # between the prompt and its wait readline loses a signal
        w.type(text if text[-1:] in ("\x03", "\x04") else text + "\n")
        if text == "\x04" or text.startswith(("exit(", "quit(", "sys.exit", "raise SystemExit")):
            break
        wait_prompt(w)
    return w.end(), rewritten(w.seen)


def wait_prompt(w):
    """What was printed may hold ">>> ", too: a prompt is what stands at the end."""
    w.becomes(lambda: re.search(rb"\n(>>> |\.\.\. |help> )$", w.seen[w.at:]))
    w.at = len(w.seen)


@pytest.mark.parametrize("name", SESSIONS)
def test_prompt(root_person, name):
    plain, ours = (prompt_of(root_person.window(argv), SESSIONS[name])
                   for argv in ([PLAIN], [CLI, "run", "--python", PLAIN]))
    assert ours[1].decode() == plain[1].decode()
    assert ours[0] == plain[0]


def test_prompt_interrupted_at_work(root_person):
    shown = []
    for argv in ([PLAIN], [CLI, "run", "--python", PLAIN]):
        w = root_person.window(argv).until(PROMPT).type("import time; print('u' + 'p'); [time.sleep(0.01) for _ in range(9999)]\n").until("\r\nup\r\n")
        w.type("\x03").until("KeyboardInterrupt").until(PROMPT).type("exit(5)\n")
        assert w.end() == 5
        shown.append(w.seen)
    assert shown[0] == shown[1]


def test_prompt_of_other_interpreters(root_person):
    found = 0
    for version in ("3.9", "3.10", "3.12", "3.13"):
        w = root_person.ours("--python", version)
        try:
            w.until(PROMPT, 5)
        except AssertionError:
            assert b"no interpreter" in w.seen  # not on this machine
            continue
        w.type("import sys; sys.version_info[:2]\n").until("(3, %s)" % version[2:]).until(PROMPT).type("\x04")
        assert w.end() == 0
        found += 1
    assert found or shutil.which("pyenv") is None
