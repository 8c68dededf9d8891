# SPDX-License-Identifier: Apache-2.0
"""Functions with real packages: cold, forked from a sleeping interpreter, warm."""
import json
import subprocess
import time

import pytest

FRESH = "reuse = false\n"
# dist, what the handler does: the answer must not depend on how the process came to be.
USES = {
    "numpy": "import numpy as np\ndef handler(e):\n    a = np.arange(12.).reshape(3, 4)\n"
             "    return np.linalg.svd(a @ a.T)[1].round(6).tolist()\n",
    "pandas": "import pandas as pd\ndef handler(e):\n    f = pd.DataFrame({'a': [1, 2, 2], 'b': [1., 2., 3.]})\n"
              "    return f.groupby('a').sum().to_json()\n",
    "requests": "import requests\ndef handler(e):\n    r = requests.Request('GET', 'http://localhost/x', params={'a': 1})\n"
                "    return r.prepare().url\n",
    "flask": "import flask\napp = flask.Flask('x')\n@app.route('/')\ndef index():\n    return 'hi'\n"
             "def handler(e):\n    return app.test_client().get('/').get_data(as_text=True)\n",
    "pydantic": "import pydantic\nclass M(pydantic.BaseModel):\n    a: int\n"
                "def handler(e):\n    return M(a='5').model_dump()\n",
    "sqlalchemy": "import sqlalchemy as s\ndef handler(e):\n    with s.create_engine('sqlite://').connect() as c:\n"
                  "        return c.execute(s.text('select 6 * 7')).scalar()\n",
    "pillow": "from PIL import Image\ndef handler(e):\n    return list(Image.new('RGB', (9, 9), 'red').resize((4, 4)).getpixel((1, 1)))\n",
    "matplotlib": "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as p, io\n"
                  "def handler(e):\n    p.plot([1, 2])\n    b = io.BytesIO()\n    p.savefig(b)\n    return b.getvalue()[:4].hex()\n",
}
ANSWERS = {"requests": "http://localhost/x?a=1", "flask": "hi", "pydantic": {"a": 5}, "sqlalchemy": 42,
           "pillow": [255, 0, 0], "matplotlib": "89504e47"}


@pytest.mark.parametrize("dist", USES)
def test_a_package_cold_and_forked(daemon, dist):
    name = "use-" + dist
    daemon.deployed(name, {"handler.py": USES[dist], "requirements.txt": dist,
                           "pipsqueak.toml": FRESH})
    cold = daemon.call(name)
    assert cold.status == 200, cold.body
    if dist in ANSWERS:
        assert cold.json == ANSWERS[dist]
    daemon.wait_for_node(dist)
    daemon.becomes(lambda: daemon.call(name).start != "cold")  # that may have been another function's
    imports = []
    for _ in range(3):
        forked = daemon.call(name)
        assert forked.status == 200, forked.body
        assert forked.json == cold.json
        assert forked.start in ("fork", "spare")
        imports.append(forked.stage("import"))
    assert min(imports) < cold.stage("import") / 2  # of three: a busy machine delays one


def test_every_stage_is_told(daemon):
    # So many that no child forked ahead will do: the fork is a stage, too.
    daemon.deployed("stages", {"handler.py": "def handler(e): return e", "pipsqueak.toml": "open_files = 1500\n"})
    reply = daemon.call("stages", {"a": [1, "ü", None, 2.5, True]})
    assert reply.json == {"a": [1, "ü", None, 2.5, True]}
    for stage in ("queue", "fork", "sandbox", "import", "handler", "total"):
        assert reply.stage(stage) is not None, reply.headers
    warm = daemon.call("stages", 1)
    assert warm.start == "warm" and warm.stage("fork") is None and warm.json == 1


def test_instances_are_kept_or_fresh_as_asked(daemon):
    code = "n = 0\ndef handler(e):\n    global n\n    n += 1\n    return n\n"
    daemon.deployed("kept", {"handler.py": code})
    assert [daemon.call("kept").json for _ in range(3)] == [1, 2, 3]
    daemon.deployed("anew", {"handler.py": code, "pipsqueak.toml": FRESH})
    assert [daemon.call("anew").json for _ in range(3)] == [1, 1, 1]


def test_siblings_draw_different_numbers(daemon):
    code = ("import random, uuid, numpy as np\nr = random.Random(7)\n"
            "def handler(e):\n    return [random.random(), str(uuid.uuid4()), float(np.random.rand()), __import__('os').getpid()]\n")
    daemon.deployed("lots", {"handler.py": code, "requirements.txt": "numpy", "pipsqueak.toml": FRESH})
    daemon.call("lots")
    daemon.wait_for_node("numpy")
    rows = [daemon.call("lots").json for _ in range(20)]
    for column in range(3):
        assert len({row[column] for row in rows}) == 20
    assert 2 in {row[3] for row in rows}  # a cell of its own; later ones are children of spares


def test_entry_settings_and_environment(daemon):
    daemon.deployed("settings", {
        "app/main.py": "import os\ndef go(event, context):\n"
                       "    return [os.environ['GREETING'], context.function_name, context.memory_limit_in_mb,"
                       " context.get_remaining_time_in_millis() > 1000]\n",
        "app/__init__.py": "",
        "pipsqueak.toml": 'entry = "app.main.go"\nmemory = "128M"\ntimeout = 5\n[env]\nGREETING = "hello"\n'})
    assert daemon.call("settings").json == ["hello", "settings", 128, True]


def test_bytes_and_async(daemon):
    daemon.deployed("bytes", {"handler.py": "def handler(e): return b'\\x00\\xff'"})
    assert daemon.call("bytes").body == b"\x00\xff"
    daemon.deployed("async", {"handler.py": "import asyncio\nasync def handler(e):\n"
                                            "    await asyncio.sleep(0.01)\n    return 'done'\n"})
    assert daemon.call("async").json == "done"


def test_a_tree_of_depth_two(own_daemon):
    d = own_daemon
    d.deployed("one", {"handler.py": "import numpy\ndef handler(e): return numpy.__name__",
                       "requirements.txt": "numpy", "pipsqueak.toml": FRESH})
    d.call("one")
    d.wait_for_node("numpy")
    d.deployed("two", {"handler.py": USES["pandas"], "requirements.txt": "pandas",
                       "pipsqueak.toml": FRESH})
    first = d.call("two")
    d.wait_for_node("pandas")
    again = d.call("two")
    assert again.json == first.json and again.start in ("fork", "spare")
    numpy_node = [n for n in d.nodes() if any(a.startswith("numpy ") for a in n["adds"])]
    assert any(a.startswith("pandas ") for n in numpy_node for c in n["children"] for a in c["adds"]), (
        json.dumps(d.get("/tree").json, indent=1))


def test_absent_packages_keep_a_node_from_functions_that_have_them(daemon):
    """requests picks simplejson when it is there: a node without it would lie (DESIGN 3.4)."""
    code = "import requests\ndef handler(e): return requests.compat.json.__name__\n"
    daemon.deployed("plain-json", {"handler.py": code, "requirements.txt": "requests",
                                   "pipsqueak.toml": FRESH})
    assert daemon.call("plain-json").json == "json"
    daemon.wait_for_node("requests")
    daemon.deployed("simple-json", {"handler.py": code, "requirements.txt": "requests\nsimplejson",
                                    "pipsqueak.toml": FRESH})
    for _ in range(4):
        assert daemon.call("simple-json").json == "simplejson"
    assert daemon.call("plain-json").json == "json"


def test_calls_by_tcp(daemon):
    daemon.deployed("tcp", {"handler.py": "def handler(e): return e"})
    out = subprocess.run(["/usr/bin/python3", "-c", "import urllib.request as u, sys\n"
                          "print(u.urlopen(u.Request(sys.argv[1], b'[1]'), timeout=20).read().decode())",
                          "http://localhost:%d/run/tcp" % daemon.port], capture_output=True, text=True)
    assert out.stdout.strip() == "[1]", out.stderr


def test_cpu_and_descriptors_are_limited(daemon):
    daemon.deployed("little", {"handler.py": "import resource, time\ndef handler(e):\n"
                               "    wall, used = time.monotonic(), time.process_time()\n"
                               "    while time.monotonic() < wall + 1: pass\n"
                               "    opened = []\n    try:\n        while True: opened.append(open('/dev/null'))\n"
                               "    except OSError as error: opened.append(error.errno)\n"
                               "    return [time.process_time() - used, len(opened), opened.pop()]\n",
                               "pipsqueak.toml": "cpu = 0.25\nopen_files = 40\n"})
    used, opened, error = daemon.call("little").json
    assert opened <= 40 and error == 24  # EMFILE
    if daemon.get("/status").json["host"]["cgroups"]:
        assert used < 0.5, used


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_cpu_seconds(daemon, reuse):
    """Of one call and all its processes; waiting costs nothing, nor do calls before."""
    daemon.deployed("burns", {"handler.py": "import os, time\ndef burn(s):\n    end = time.process_time() + s\n"
                              "    while time.process_time() < end: pass\n"
                              "def handler(e):\n    if e['forks']:\n        for _ in range(2):\n"
                              "            if os.fork() == 0: burn(60)\n"
                              "    burn(e['burn'])\n    time.sleep(e['sleep'])\n    return 'done'\n",
                              "pipsqueak.toml": "cpu_seconds = 1.0\ntimeout = 50\nreuse = %s\n" % reuse})
    for _ in range(4):
        assert daemon.call("burns", {"forks": False, "burn": 0.4, "sleep": 0.1}).json == "done"
    assert daemon.call("burns", {"forks": False, "burn": 0, "sleep": 1.6}).json == "done"
    for event in ({"forks": False, "burn": 40, "sleep": 0}, {"forks": True, "burn": 0, "sleep": 40}):
        began = time.monotonic()
        reply = daemon.call("burns", event)
        assert reply.status == 504 and "1 s of CPU time" in reply.error["message"], reply.body
        assert time.monotonic() - began < 25
    assert daemon.call("burns", {"forks": False, "burn": 0.1, "sleep": 0}).json == "done"


@pytest.mark.parametrize("text", ["cpu_seconds = 0", "cpu = 0", "cpu = 'all'", "cpu = 1000", "open_files = 3", "open_files = 2.5"])
def test_bad_limits(daemon, text):
    reply = daemon.deploy("badlimits", {"handler.py": "def handler(e): pass\n", "pipsqueak.toml": text})
    assert reply.status == 400 and "must be a number" in reply.error["message"], reply.body
