# SPDX-License-Identifier: Apache-2.0
"""Nodes, instances, hints and reseeding, over the stand-in of the extension."""
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from harness import WIRE, words


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


@pytest.fixture
def child_of(zygote):
    """instance(code, ...) of a function; killed at the end."""
    made = []

    def make(code, entry=("f.py:f",), compiled=False, **more):
        # Bytecode is told apart by size and second, which two tests may share.
        shutil.rmtree(zygote.app + "/__pycache__", ignore_errors=True)
        write(zygote.app + "/f.py", code)
        if compiled:  # as a deploy does
            subprocess.run([zygote.python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
                            zygote.app + "/f.py"], check=True)
        child = zygote.instance(entry, **more)
        made.append(child)
        return child
    yield make
    for child in made:
        child.kill()


# ---- instances ----

def answer(reply):
    assert WIRE.T_ERR_KIND not in reply, reply
    assert reply[WIRE.T_KIND] == b"json"
    return json.loads(reply[WIRE.T_BODY])


VALUES = [None, True, 1, -5, 1.5, 1e300, "é日😀\n\"\\", [], {}, [1, [2, {"a": None}]],
          {"a": 1, "b": [True, False]}, 12345678901234567890, ""]


def test_echo(child_of):
    child = child_of("def f(event): return event")
    for n, value in enumerate(VALUES):
        assert answer(child.call(json.dumps(value))) == value
        if n == 0:
            child.expect(WIRE.PROFILE)
    assert child.last_id == 7
    assert answer(child.call(" \n[1]\t")) == [1]
    assert answer(child.call("")) is None


def test_an_instance_runs_no_code_of_the_function_before_a_call(child_of, zygote):
    code = ("import os, sys\nopen('ran', 'w').close()\ndef f(event):\n"
            "    return sorted(sys.modules), sys.path, sorted(os.listdir('.'))\n")
    ran = zygote.app + "/ran"
    child = child_of(code)
    time.sleep(0.2)
    assert not os.path.exists(ran)
    answer(child.call("1"))
    os.unlink(ran)


def test_its_own_module_is_as_the_import_system_makes_it(child_of, zygote):
    """Compiled at deploy, the handler's file is loaded by a short way."""
    code = ("import sys\nme = sys.modules[__name__]\nbusy = __spec__._initializing\ndef f(event):\n"
            "    import importlib.util, inspect\n    spec = importlib.util.find_spec('f')\n"
            "    return [repr(__spec__), repr(spec), repr(__loader__).split(' at ')[0], __file__, __cached__,\n"
            "            __package__, __name__, sorted(globals()), busy, __spec__._initializing,\n"
            "            inspect.getsource(f), repr(me), __spec__.has_location, __spec__.loader is __loader__]\n")
    answers = []
    for compiled in (False, True):
        child = child_of(code, entry=("f.f",), compiled=compiled)
        answers.append(answer(child.call("1")))
        found = words(child.expect(WIRE.PROFILE), WIRE.T_MODULES)
        assert "importlib.util" in found
    assert re.sub(" at 0x[0-9a-f]+", "", str(answers[0])) == re.sub(" at 0x[0-9a-f]+", "", str(answers[1]))


@pytest.mark.parametrize("body", ["{", "[1,]", "1 2", "nul", "\"", "{\"a\" 1}"])
def test_event_is_not_json(child_of, body):
    reply = child_of("def f(event): return event").call(body)
    assert reply[WIRE.T_ERR_KIND] == b"handler"
    assert b"Error" in reply[WIRE.T_ERR_TEXT]


def test_answer_is_not_json_and_the_next_is(child_of):
    child = child_of("x = [1]\ndef f(event):\n    return [x, object()] if event else x\n")
    reply = child.call("1")
    assert reply[WIRE.T_ERR_TEXT] == b"TypeError: Object of type object is not JSON serializable"
    child.expect(WIRE.PROFILE)
    assert answer(child.call("0")) == [1]  # no marks of the failure are left


def test_answer_refers_to_itself(child_of):
    reply = child_of("def f(event):\n    x = []\n    x.append(x)\n    return x\n").call("1")
    assert reply[WIRE.T_ERR_TEXT] == b"ValueError: Circular reference detected"


def test_bytes_pass_through(child_of):
    reply = child_of("def f(event): return b'\\0\\xff'").call("1")
    assert reply[WIRE.T_KIND] == b"bytes" and reply[WIRE.T_BODY] == b"\0\xff"


@pytest.mark.parametrize("code", [
    "def f(event): return 'ok'",
    "def f(event, context): return context.function_name and 'ok'",
    "def f(event, context=None): return context and 'ok'",
    "def f(*args): return len(args) == 2 and 'ok'",
    "async def f(event): return 'ok'",
    "class F:\n    def __call__(self, event): return 'ok'\nf = F()",
    "class F:\n    def g(self, event, context): return 'ok'\nf = F().g",
    "f = lambda e: 'ok'",
    "import functools\ndef d(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n    return w\n"
    "@d\ndef f(event): return 'ok'",
])
def test_kinds_of_handler(child_of, code):
    assert answer(child_of(code).call("1")) == "ok"


def test_context(child_of):
    code = ("def f(event, context):\n    return [context.function_name, context.request_id,\n"
            "        context.aws_request_id, context.get_remaining_time_in_millis(),\n"
            "        context.memory_limit_in_mb]\n")
    name, request, aws, left, memory = answer(child_of(code, name="thumb").call(
        "1"))
    assert (name, request, aws) == ("thumb", "request-1", "request-1")
    assert 0 < left <= 5000 and memory == 0


def test_raises(child_of, zygote):
    child = child_of("def g(): raise ValueError('no\\nsecond')\ndef f(event): g()\n")
    for again in range(2):
        reply = child.call("1")
        assert reply[WIRE.T_ERR_KIND] == b"handler"
        assert reply[WIRE.T_ERR_TEXT] == b"ValueError: no"
        text = reply[WIRE.T_BODY].decode()
        assert text.startswith('Traceback (most recent call last):\n  File "%s/f.py", line 2, in f'
                               % zygote.app)
        assert "pipsqueak" not in text and "importlib" not in text and "bootstrap" not in text
        if not again:
            child.expect(WIRE.PROFILE)


@pytest.mark.parametrize("code,text", [
    ("import sys\ndef f(event): sys.exit(3)", b"SystemExit: 3"),
    ("def f(event): raise KeyboardInterrupt", b"KeyboardInterrupt"),
    ("def f(event): raise SystemExit", b"SystemExit"),
])
def test_exits(child_of, code, text):
    child = child_of(code)
    assert child.call("1")[WIRE.T_ERR_TEXT] == text
    child.expect(WIRE.PROFILE)
    assert child.call("1")[WIRE.T_ERR_TEXT] == text  # and it still answers


@pytest.mark.parametrize("code,entry,text", [
    ("import nothere_at_all", ["f.py:f"], b"ModuleNotFoundError: No module named 'nothere_at_all'"),
    ("x = (", ["f.py:f"], b"SyntaxError: "),
    ("1 / 0", ["f.py:f"], b"ZeroDivisionError: division by zero"),
    ("g = 1", ["f.py:f"], b"LookupError: f has no function called f"),
    ("f = 1", ["f.py:f"], b"LookupError: f has no function called f"),
    ("", ["no.py:f", "nor.this"], b"LookupError: no handler: none of no.py:f, nor.this is there"),
    ("import sys; sys.exit(1)", ["f.py:f"], b"SystemExit: 1"),
])
def test_handler_cannot_be_loaded(child_of, code, entry, text):
    reply = child_of(code, entry).call("1")
    assert reply[WIRE.T_ERR_KIND] == b"start"
    assert reply[WIRE.T_ERR_TEXT].startswith(text)
    shown = reply[WIRE.T_BODY].decode()
    assert "pipsqueak" not in shown and "bootstrap" not in shown


@pytest.mark.parametrize("entry", ["sub/deep.py:go", "sub.deep.go", "sub:go", "sub.go"])
def test_entries(child_of, zygote, entry):
    os.makedirs(zygote.app + "/sub", exist_ok=True)
    write(zygote.app + "/sub/__init__.py", "def go(event): return 'package'\n")
    write(zygote.app + "/sub/deep.py", "def go(event): return __name__\n")
    if entry == "sub:go":
        entry = "sub/__init__.py:go"
    want = "sub.deep" if "deep" in entry else "package"
    assert answer(child_of("", ["absent.py:f", entry]).call("1")) == want


def test_log_timing_profile_environment(child_of, zygote):
    code = ("import os, sys, wsgiref\nprint('importing')\ndef f(event):\n    import colorsys\n"
            "    print('called')\n    print('bad', file=sys.stderr)\n    import time\n"
            "    return [dict(os.environ), sys.argv, sys.path[0], os.getcwd(), time.tzname[0],\n"
            "            sorted(n for n in sys.modules if 'pipsqueak' in n), 'json' in sys.modules]\n")
    child = child_of(code, env=["A=1", "B=x=y", "TZ=XYZ+3"])
    reply = child.call("1")
    environ, argv, path, cwd, zone, ours, has_json = answer(reply)
    assert environ.pop("PATH").startswith(zygote.env + "/bin:")
    assert environ == {"A": "1", "B": "x=y", "TZ": "XYZ+3", "HOME": "/home/user", "LANG": "C.UTF-8"}
    assert (argv, path, cwd, zone, ours) == ([""], zygote.app, zygote.app, "XYZ", [])
    assert not has_json  # a function finds only what it imports itself
    assert [t.split("=")[0] for t in words(reply, WIRE.T_TIMING)] == ["import", "handler"]
    names = words(child.expect(WIRE.PROFILE), WIRE.T_MODULES)
    assert "wsgiref" in names and "colorsys" in names and "f" in names
    child.log.seek(0)
    assert child.log.read() in (b"importing\ncalled\nbad\n", b"bad\nimporting\ncalled\n")


def test_end_of_link_ends_the_instance(child_of):
    child = child_of("def f(event): return 1")
    child.call("1")
    child.expect(WIRE.PROFILE)
    assert child.wait() == 0
    child.kill = lambda: None


# ---- nodes ----

ASKS = """
import os
os.environ.get('ASKED_GET')
os.getenv('ASKED_GETENV')
'ASKED_IN' in os.environ
os.environb.get(b'ASKED_BYTES')
os.environ.setdefault('ASKED_DEFAULT', '1')
try:
    os.environ['ASKED_ITEM']
except KeyError:
    pass
try:
    import absent_module
except ImportError:
    pass
import importlib.util
importlib.util.find_spec('absent_spec')
try:
    import json.absent_part
except ImportError:
    pass
from importlib import metadata
for name in ('absent-dist', 'Asks.Things'):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
"""


def add_dist(zygote, module, text, dist):
    zygote.add_package(module + ".py", text)
    zygote.add_package("%s-1.0.dist-info/METADATA" % dist, "Name: %s\nVersion: 1.0\n" % dist)


@pytest.fixture
def node_of(zygote):
    made = []

    def make(modules, over=None):
        control, profile, child = zygote.node(modules, over=over)
        made.append((control, child))
        return control, profile
    yield make
    for control, child in reversed(made):
        control.close()
        child.wait()


def test_what_a_node_asked_for(zygote, node_of):
    add_dist(zygote, "asks_things", ASKS, "asks_things")
    add_dist(zygote, "asks_more", "import os\nlist(os.environ)\nimport absent_two\n", "asks_more")
    add_dist(zygote, "asks_nothing", "", "asks_nothing")
    first, profile = node_of(["asks_nothing", "asks_things"])
    absent = set(words(profile, WIRE.T_ABSENT))
    assert {"import:absent_module", "import:absent_spec", "import:json.absent_part",
            "meta:absent-dist"} <= absent
    assert "import:json" not in absent and "meta:asks-things" not in absent
    asked = {"ASKED_GET", "ASKED_GETENV", "ASKED_IN", "ASKED_BYTES", "ASKED_DEFAULT", "ASKED_ITEM"}
    assert asked <= set(words(profile, WIRE.T_ENV_READ))
    assert "*" not in words(profile, WIRE.T_ENV_READ)
    assert "asks-things" in words(profile, WIRE.T_READS)
    assert words(profile, WIRE.T_LEFT) == []
    names = words(profile, WIRE.T_MODULES)
    origin = dict(zip(names, words(profile, WIRE.T_ORIGIN)))
    assert origin["asks_things"] == zygote.site + "/asks_things.py"
    # A node below inherits; what fails to import is left out.
    _, below = node_of(["asks_more"], over=first)
    assert "*" in words(below, WIRE.T_ENV_READ) and asked <= set(words(below, WIRE.T_ENV_READ))
    assert {"import:absent_two", "import:absent_module"} <= set(words(below, WIRE.T_ABSENT))
    assert "asks_more" not in words(below, WIRE.T_MODULES)
    assert "asks_things" in words(below, WIRE.T_MODULES)


def test_entry_point_groups(zygote, node_of):
    add_dist(zygote, "asks_group", "from importlib.metadata import entry_points\n"
             "import sys\nentry_points(group='plug.ins') if sys.version_info >= (3, 10) else "
             "entry_points()\n", "asks_group")
    add_dist(zygote, "asks_all", "from importlib.metadata import distributions\n"
             "list(distributions())\n", "asks_all")
    _, profile = node_of(["asks_group"])
    if zygote.minor >= 10:
        assert "group:plug.ins" in words(profile, WIRE.T_ABSENT)
    else:
        assert "*" in words(profile, WIRE.T_READS)
    _, profile = node_of(["asks_all"])
    assert "*" in words(profile, WIRE.T_READS)


@pytest.mark.parametrize("text,what", [
    ("import threading, time\nt = threading.Thread(target=time.sleep, args=(99,), daemon=True)\n"
     "t.start()", "threads=1"),
    ("import socket\nkept = socket.socketpair()", "descriptor=socket:"),
    ("import select\nkept = select.epoll()", "descriptor=anon_inode:[eventpoll]"),
    ("kept = open('/tmp/pipsqueak-test-left', 'w')", "descriptor=/tmp/pipsqueak-test-left"),
    ("kept = open('/etc/passwd')", "descriptor=/etc/passwd"),
    ("import os\nkept = os.pipe()", "descriptor=pipe:"),
    ("import signal\nsignal.signal(signal.SIGTERM, lambda *a: 0)", "signal handlers=15"),
    ("import signal\nsignal.signal(signal.SIGUSR2, signal.SIG_IGN)", "signal handlers=12"),
    ("import ctypes\nctypes.CDLL(None).signal(10, ctypes.cast(ctypes.CDLL(None).abs, "
     "ctypes.c_void_p))", "signal handlers=10"),
    ("import mmap\nkept = mmap.mmap(-1, 4096)", "shared mappings=1"),
    ("kept = open(__file__)", None),
    ("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)", None),
])
def test_what_an_import_leaves(zygote, node_of, text, what):
    zygote.add_package("leaves.py", text + "\n")
    for name in os.listdir(zygote.site):
        if name == "__pycache__":
            for cached in os.listdir(zygote.site + "/__pycache__"):
                os.unlink("%s/__pycache__/%s" % (zygote.site, cached))
    _, profile = node_of(["leaves"])
    left = words(profile, WIRE.T_LEFT)
    assert "leaves" in words(profile, WIRE.T_MODULES)
    assert left == [] if what is None else any(line.startswith(what) for line in left)


def test_the_recorder_leaves_no_trace(zygote, node_of):
    add_dist(zygote, "asks_things", ASKS, "asks_things")
    code = ("import os, sys, _frozen_importlib as b\n"
            "print(sys.meta_path, sorted(vars(type(os.environ))), os.environ.get('PATH'))\n")
    node, _ = node_of(["asks_things"])
    run = zygote.run("code", code, ["-c"], over=node)
    plain = zygote.plain(["-c", code])
    assert run.out == plain.out and run.code == 0


def test_node_memory_is_frozen(zygote, node_of):
    node, _ = node_of(["json"])
    run = zygote.run("code", "import gc; print(gc.get_freeze_count() > 0, gc.isenabled())", ["-c"],
                     over=node)
    assert run.out == "True True\n"


def test_depth(zygote, node_of):
    """Four below one another; a script from the last one has what all of them imported."""
    over, names = None, ["json", "decimal", "wsgiref", "colorsys"]
    for n, name in enumerate(names):
        over, profile = node_of([name], over=over)
        assert set(names[:n + 1]) <= set(words(profile, WIRE.T_MODULES))
    run = zygote.run("code", "import sys; print('colorsys' in sys.modules, 'json' in sys.modules)",
                     ["-c"], over=over, flags=["record"])
    assert run.out == "True True\n"
    names_run = words(run.messages[0][2], WIRE.T_MODULES)
    assert "json" in names_run and "decimal" in names_run


# ---- siblings are unique ----

SEEDED = ("import random, uuid, multiprocessing\nmine = random.Random(7)\nuuid.uuid1()\n"
          "random.seed(1)\n")
DRAW = ("import seeded, random, uuid, multiprocessing, tempfile, secrets\n"
        "print(seeded.mine.random(), random.random(), uuid.uuid1().clock_seq, uuid.uuid4(),\n"
        "      multiprocessing.current_process().authkey.hex() if hasattr(bytes, 'hex') else '',\n"
        "      secrets.token_hex(), next(tempfile._get_candidate_names()))\n")


def test_siblings_differ(zygote, node_of):
    zygote.add_package("seeded.py", SEEDED)
    node, _ = node_of(["seeded", "secrets", "tempfile"])
    runs = [zygote.run("code", DRAW, ["-c"], over=node) for _ in range(8)]
    assert all(run.code == 0 for run in runs), runs[0]
    columns = list(zip(*(run.out.split() for run in runs)))
    assert len(columns) == 7
    for n, column in enumerate(columns):
        assert len(set(column)) >= (7 if n == 2 else 8), (n, column)  # 14 bits may meet once


def test_a_failing_reseed_is_told_and_harmless(zygote, node_of):
    zygote.add_package("faker/__init__.py", "")
    zygote.add_package("faker/generator.py", "import sys\nsys.modules['faker'].generator = None\n")
    node, _ = node_of(["faker.generator"])
    run = zygote.run("code", "print('runs')", ["-c"], over=node)
    assert run.out == "runs\n" and run.code == 0
    assert run.err.startswith("pipsqueak: reseeding faker: AttributeError")


SNAPSHOT = """
before, after = [], []
def register_before_snapshot(f, *a, **k):
    before.append((f, a, k))
    return f
def register_after_restore(f, *a, **k):
    after.append((f, a, k))
    return f
def get_before_snapshot():
    return before
def get_after_restore():
    return after
"""


def test_snapshot_hooks(zygote, node_of):
    zygote.add_package("snapshot_restore_py.py", SNAPSHOT)
    zygote.add_package("hooked.py", "import snapshot_restore_py as s\nlog = []\n"
                       "s.register_before_snapshot(log.append, 'b1')\n"
                       "s.register_before_snapshot(log.append, 'b2')\n"
                       "s.register_after_restore(log.append, 'a1')\n"
                       "s.register_after_restore(log.append, 'a2')\n")
    node, _ = node_of(["hooked"])
    run = zygote.run("code", "import hooked; print(hooked.log)", ["-c"], over=node)
    assert run.out == "['b2', 'b1', 'a1', 'a2']\n"


# ---- hints ----

def last_line(zygote, code, flags=()):
    return zygote.run("code", code, ["-c"], flags=flags).err.splitlines()[-1]


def test_hint_module(zygote):
    assert last_line(zygote, "import cv2") == (
        "pipsqueak: no package given provides 'cv2'; try --with opencv-python")
    assert last_line(zygote, "import foo_bar.x").endswith("try --with foo-bar")
    assert not last_line(zygote, "import json.nothing").startswith("pipsqueak")
    assert not last_line(zygote, "from os import nothing").startswith("pipsqueak")


def test_hint_variable(zygote):
    code = "import os; os.environ['API_KEY']"
    assert last_line(zygote, code) == (
        "pipsqueak: to pass the variable on, give --allow-env=API_KEY (or -A)")
    for flags in (["allow-all"], ["env=API_KEY"]):
        assert last_line(zygote, code, flags) == "KeyError: 'API_KEY'"
    assert last_line(zygote, "{}['API_KEY']") == "KeyError: 'API_KEY'"


@pytest.mark.parametrize("error,line", [
    ("OSError(30, 'Read-only', '/data/out.csv')",
     "writing here needs --allow-write=/data/out.csv (or -A)"),
    ("PermissionError(13, 'No', '/data/out.csv')",
     "writing here needs --allow-write=/data/out.csv (or -A)"),
    ("FileNotFoundError(2, 'No', '/nowhere/at/all')",
     "what is outside needs --allow-read=/nowhere/at/all, or --allow-write to write (or -A)"),
    ("FileNotFoundError(2, 'No', 'relative')", None),
    ("OSError(101, 'Network is unreachable')", "the network needs --allow-net (or -A)"),
    ("OSError(28, 'No space left', '/data/x')", None),
])
def test_hint_files_and_network(zygote, error, line):
    said = last_line(zygote, "raise " + error)
    assert said == "pipsqueak: " + line if line else not said.startswith("pipsqueak")
    assert not last_line(zygote, "raise " + error, ["allow-all"]).startswith("pipsqueak")


def test_hint_network_below_other_errors(zygote):
    code = ("import socket, urllib.error\ntry:\n    raise socket.gaierror(-2, 'not known')\n"
            "except OSError as e:\n    raise urllib.error.URLError(e)\n")
    assert last_line(zygote, code) == "pipsqueak: the network needs --allow-net (or -A)"
    assert not last_line(zygote, code, ["allow-net"]).startswith("pipsqueak")


def test_hint_already_given(zygote):
    code = "raise OSError(30, 'Read-only', '/data/sub/x')"
    assert not last_line(zygote, code, ["write=/data"]).startswith("pipsqueak")
    assert last_line(zygote, code, ["write=/da"]).startswith("pipsqueak")
