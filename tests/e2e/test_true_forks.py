# SPDX-License-Identifier: Apache-2.0
"""A forked function behaves as a fresh one (DESIGN.md 3.4), and siblings are unique (3.3)."""
import json
import os

import pytest

# A package that looks around while it is imported, long enough to be worth a node.
LOOKS = '''
import importlib.metadata as m, importlib.util, os, time
time.sleep(0.01)
try:
    import friend
    FRIEND = "there"
except ImportError:
    FRIEND = None
SPEC = importlib.util.find_spec("friend") is not None
try:
    VERSION = m.version("friend")
except m.PackageNotFoundError:
    VERSION = None
groups = m.entry_points()
groups = groups.select(group="looks.plugins") if hasattr(groups, "select") else groups.get("looks.plugins", ())
PLUGINS = sorted({p.name for p in groups})
MODE = os.environ.get("LOOKS_MODE", "plain")
SEEN = [FRIEND, SPEC, VERSION, PLUGINS, MODE]
'''
HANDLER = "import looks\ndef handler(event):\n    return looks.SEEN\n"
# name -> requirements, [env], what a fresh process would see
WAYS = {
    "alone": ("looks", "", [None, False, None, [], "plain"]),
    "befriended": ("looks\nfriend", "", ["there", True, "1.0", ["p"], "plain"]),
    "moody": ("looks", "[env]\nLOOKS_MODE = \"loud\"\n", [None, False, None, [], "loud"]),
}


@pytest.mark.parametrize("order", [list(WAYS), list(WAYS)[::-1]], ids=["forwards", "backwards"])
def test_a_node_does_not_lie(own_daemon, index, order):
    """Each in its turn makes its node, and all are called again when all nodes are there."""
    index.add("looks", {"looks.py": LOOKS})
    index.add("friend", {"friend.py": "", "friend-1.0.dist-info/entry_points.txt":
                         "[looks.plugins]\np = friend\n"})
    for name in order:
        needs, env, want = WAYS[name]
        own_daemon.deployed(name, {"handler.py": HANDLER, "requirements.txt": needs,
                                   "pipsqueak.toml": "reuse = false\n" + env},
                            settings=index.settings)
        nodes = len(own_daemon.nodes())
        assert own_daemon.call(name).json == want
        if not env:
            own_daemon.becomes(lambda n=nodes: len(own_daemon.nodes()) > n)
    for name in order * 2:
        reply = own_daemon.call(name)
        assert reply.json == WAYS[name][2], (name, reply.start)
    starts = {name: {own_daemon.call(name).start for _ in range(2)} for name in order}
    assert starts["alone"] <= {"fork", "spare"} and starts["befriended"] <= {"fork", "spare"}


def test_settings_outlive_the_daemon(own_daemon, index):
    """A function with a variable keeps away from nodes that read it, after a restart, too."""
    index.add("looks", {"looks.py": LOOKS})
    for name in ("alone", "moody"):
        needs, env, want = WAYS[name]
        own_daemon.deployed(name, {"handler.py": HANDLER, "requirements.txt": needs,
                                   "pipsqueak.toml": "reuse = false\n" + env},
                            settings=index.settings)
        assert own_daemon.call(name).json == want
    own_daemon.stop()
    own_daemon.start()
    for name in ("moody", "alone"):
        assert own_daemon.call(name).json == WAYS[name][2]
    own_daemon.wait_for_node("looks")
    for name in ("moody", "alone", "moody"):
        assert own_daemon.call(name).json == WAYS[name][2]


SEEDED = "import sys\ndef handler(event):\n    return [hash('x'), sys.flags.optimize, sys.warnoptions, event]\n"


def test_variables_of_the_start(daemon):
    """What an interpreter reads when it starts counts, though what is forked started before."""
    toml = "reuse = false\n[env]\nPYTHONHASHSEED = \"0\"\nPYTHONOPTIMIZE = \"2\"\nPYTHONWARNINGS = \"error\"\n"
    daemon.deployed("seeded", {"handler.py": SEEDED, "pipsqueak.toml": toml})
    want = [-3368204716105132637, 2, ["error"]]
    assert [daemon.call("seeded", n).json for n in (1, "a")] == [want + [1], want + ["a"]]
    env = dict(daemon.environment(), PYTHONHASHSEED="0", PYTHONUNBUFFERED="1",
               PYTHONIOENCODING="latin-1")
    made = daemon.cli("run", "--allow-env=PYTHONHASHSEED", "-c", "print(hash('x')); exit(3)", env=env)
    assert (made.stdout, made.returncode) == ("-3368204716105132637\n", 3)
    made = daemon.cli("run", "--allow-env=PYTHONUNBUFFERED", "--allow-env=PYTHONIOENCODING", "-c",
                      "import os, sys; print('a'); sys.stdout.buffer.write(b'b'); os.write(1, b'c');"
                      " print(sys.stdout.encoding)", env=env)
    assert made.stdout == "a\nbciso8859-1\n", made.stderr


def test_a_plotter_told_by_its_environment(daemon, workdir):
    code = "import matplotlib\ndef handler(event):\n    return matplotlib.get_backend().lower()\n"
    for name, env, want in (("plots", "", "agg"), ("plots-svg", "[env]\nMPLBACKEND = \"svg\"\n", "svg")):
        daemon.deployed(name, {"handler.py": code, "requirements.txt": "matplotlib",
                               "pipsqueak.toml": "reuse = false\ntimeout = 60\n" + env})
        for _ in range(2):
            assert daemon.call(name).json == want
        daemon.wait_for_node("matplotlib")
    env = dict(daemon.environment(), MPLBACKEND="svg")
    for flags, want in ((["--allow-env=MPLBACKEND"], "svg"), ([], "agg")):
        made = daemon.cli("run", "-q", *flags, "--with", "matplotlib", "-c",
                          "import matplotlib; print(matplotlib.get_backend())", env=env, cwd=workdir)
        assert made.stdout.strip().lower() == want, made.stderr


JSONS = "import requests.compat\ndef handler(event):\n    return requests.compat.json.__name__\n"


def test_a_library_that_prefers_another(daemon):
    for name, needs, want in (("plain-json", "requests", "json"),
                              ("simple-json", "requests\nsimplejson", "simplejson")):
        daemon.deployed(name, {"handler.py": JSONS, "requirements.txt": needs,
                               "pipsqueak.toml": "reuse = false\n"})
        assert daemon.call(name).json == want
        daemon.wait_for_node(needs.split()[-1])
    for name, want in (("plain-json", "json"), ("simple-json", "simplejson")) * 2:
        reply = daemon.call(name)
        assert reply.json == want and reply.start in ("fork", "spare")


PANDAS_LOOKS = """
import pandas as pd
from pandas.core import nanops
from pandas.core.computation import expressions
def handler(event):
    from pandas.compat import pyarrow
    frame = pd.DataFrame({"a": range(300000), "b": 1.5})
    return [nanops._USE_BOTTLENECK, expressions.USE_NUMEXPR, getattr(pyarrow, "HAS_PYARROW", None),
            float(frame.eval("a * 2 + b").sum()), float(pd.Series([1.0, None, 3.0]).mean()),
            str(pd.Series(["x", "y"]).dtype), repr(pd.Series(["x"]).array)]
"""


def test_pandas_with_and_without_what_it_looks_for(daemon):
    """It asks for these when it is imported, and computes by them where they are."""
    needs = {"pandas-alone": "pandas", "pandas-bottle": "pandas\nbottleneck", "pandas-numexpr": "pandas\nnumexpr",
             **({"pandas-arrow": "pandas\npyarrow"} if os.environ.get("PIPSQUEAK_EXHAUSTIVE") else {})}
    fresh = {}
    for name, lines in needs.items():
        daemon.deployed(name, {"handler.py": PANDAS_LOOKS, "requirements.txt": lines,
                               "pipsqueak.toml": "reuse = false\ntimeout = 100\n"})
        plain = daemon.cli("run", "-q", *[w for line in lines.split() for w in ("--with", line)], "-c",
                           "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', %r], capture_output=True, text=True)"
                           ".stdout)" % (PANDAS_LOOKS + "import json; print(json.dumps(handler(0)))"))
        fresh[name] = json.loads(plain.stdout)
        assert daemon.call(name).json == fresh[name]
    assert [fresh["pandas-alone"][0], fresh["pandas-bottle"][0]] == [False, True]
    assert [fresh["pandas-alone"][1], fresh["pandas-numexpr"][1]] == [False, True]
    for name in needs:
        daemon.becomes(lambda n=name: daemon.call(n).start in ("fork", "spare"))
    for name in list(needs) * 3:
        assert daemon.call(name).json == fresh[name], name


def test_django_told_by_its_environment(daemon):
    code = "import django\nfrom django.conf import settings\ndjango.setup()\ndef handler(event):\n" \
           "    from django.utils import translation\n    return [settings.NAMED, translation.get_language()]\n"
    for name, language in (("here", "de"), ("there", "fr"), ("here2", "es")):
        daemon.deployed("django-" + name, {
            "handler.py": code, "set_%s.py" % name: "NAMED = %r\nLANGUAGE_CODE = %r\nUSE_I18N = True\n" % (name, language),
            "requirements.txt": "django",
            "pipsqueak.toml": "reuse = false\ntimeout = 60\n[env]\nDJANGO_SETTINGS_MODULE = \"set_%s\"\n" % name})
        assert daemon.call("django-" + name).json == [name, language]
    daemon.wait_for_node("django")
    for name, language in (("here", "de"), ("there", "fr"), ("here2", "es")) * 3:
        assert daemon.call("django-" + name).json == [name, language]


SPINS = "import socket, threading, time\ntime.sleep(0.01)\nkept = socket.socketpair()\n"


def test_what_cannot_sleep_works(daemon, index):
    """One module leaves sockets; a package imports it in the middle. The rest sleeps without them,
    and they are imported after the fork."""
    index.add("restless", {
        "restless/__init__.py": "", "restless/spins.py": SPINS,
        "restless/calm.py": "import time; time.sleep(0.01)\n",
        "uses_restless.py": "import time; time.sleep(0.01)\n"
        "try:\n    from restless import calm, spins\nexcept Exception:\n    spins = None\n"})
    code = ("from restless import calm\nimport uses_restless\ndef handler(event):\n"
            "    a, b = uses_restless.spins.kept\n    a.send(event.encode())\n    return b.recv(9).decode()\n")
    daemon.deployed("restless", {"handler.py": code, "requirements.txt": "restless",
                                 "pipsqueak.toml": "reuse = false\n"}, settings=index.settings)
    assert daemon.call("restless", "a").json == "a"
    daemon.wait_for_node("restless")
    for text in ("b", "c", "d"):
        reply = daemon.call("restless", text)
        assert reply.json == text and reply.start in ("fork", "spare")
    told = [line for line in daemon.get("/tree").json["unforkable"] if line.startswith("restless 1.0:")]
    assert len(told) == 1 and "restless.spins: descriptor=socket" in told[0]


# random and the like are unique in any child; these share what the node had drawn, unless reseeded.
DRAWS = """
import multiprocessing, random, uuid
import faker, numpy
def handler(event):
    return {"numpy": numpy.random.rand(2).tolist(), "faker": faker.Faker().pystr(),
            "random": random.random(), "uuid1": str(uuid.uuid1())[19:], "uuid4": str(uuid.uuid4()),
            "generator": faker.generator.random.random(),
            "authkey": multiprocessing.current_process().authkey.hex()}
"""


def test_siblings_are_unique(daemon):
    daemon.deployed("draws", {"handler.py": DRAWS, "requirements.txt": "numpy\nfaker\n",
                              "pipsqueak.toml": "reuse = false\n"})
    drawn = [daemon.call("draws").json]
    daemon.wait_for_node("faker")
    starts = []
    for _ in range(30):
        reply = daemon.call("draws")
        drawn.append(reply.json)
        starts.append(reply.start)
    assert set(starts) <= {"fork", "spare"}
    for source in drawn[0]:
        assert len({json.dumps(d[source]) for d in drawn}) == len(drawn), source


def test_a_script_without_packages_is_as_in_no_environment(own_daemon, workdir):
    """Its node imported in a function's environment, but nothing of its packages."""
    d = own_daemon
    code = "import asyncio.base_events, xml.dom.minidom, decimal, json, sys, subprocess\n"
    where = "[sys.executable, sys.prefix, sys.path[1:], subprocess.run([sys.executable, '-c', 'print(42)'], " \
            "capture_output=True).stdout.decode()]"
    d.deployed("with-env", {"handler.py": code + "def handler(e): return " + where, "requirements.txt": "six"})
    assert d.call("with-env").json[0] == "/pipsqueak/env/bin/python"
    d.becomes(lambda: d.get("/status").json["nodes"] > 1)
    script = code + "print(json.dumps(%s))" % where
    for _ in range(3):
        out = d.cli("run", "-c", script, cwd=workdir)
        assert out.returncode == 0 and json.loads(out.stdout)[:2] == ["/usr/bin/python3", "/usr"], out
        assert json.loads(out.stdout)[3] == "42\n"
    assert any(n["uses"] > 1 for n in d.nodes() if n["modules"])  # it was that node
