# SPDX-License-Identifier: Apache-2.0
"""A hundred well-known dists: a line of real work gives the same output in a fresh python3 of the
environment that the daemon built, as a script, as a function, and as a child of a node of a node.

PIPSQUEAK_SOAK_PYTHONS: interpreters, separated by commas (default: the daemon's own).
"""
import ast
import glob
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from conftest import BUILD, SLOWER, TOP, Daemon, new_base

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHONS = os.environ.get("PIPSQUEAK_SOAK_PYTHONS", "/usr/bin/python3").split(",")
with open(os.path.join(HERE, "workloads.jsonl")) as lines:
    WORKLOADS = {row["dist"]: row for row in map(json.loads, lines)}
with open(os.path.join(TOP, "data", "warm.json")) as lines:
    WARMED = {row["dist"] for row in json.load(lines)["lines"]}
# What every zygote has (a library's threads would not survive the fork); a fresh process gets it,
# too, so that it is the same computation.
THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                         "NUMEXPR_NUM_THREADS", "BLOSC_NTHREADS", "POLARS_MAX_THREADS"), "1")


def telling(use):
    """The line with its last expression's value printed, and what was loaded by then."""
    body = ast.parse(use).body
    lines = [ast.unparse(node) for node in body]
    if isinstance(body[-1], ast.Expr):
        lines[-1] = "_last = %s\nprint(type(_last).__name__, repr(_last))" % lines[-1]
    return "\n".join(lines) + "\n"


def function_of(use):
    return ("import contextlib, io\nSOURCE = %r\ndef handler(event):\n"
            "    out = io.StringIO()\n    with contextlib.redirect_stdout(out):\n"
            "        exec(compile(SOURCE, '<string>', 'exec'), {'__name__': 'x'})\n"
            "    return out.getvalue()\n" % telling(use))


def plain(text, site=None):
    """Without what is another's in every process: addresses, ports, the time, where the environment lies."""
    if site:
        text = text.replace(site, "/pipsqueak/env")
    text = re.sub(r"Signature=[^&]*(?=&Expires=)", "Signature=ADDRESS", text)  # signed with the time
    return re.sub(r"0x[0-9a-f]{6,}|127\.0\.0\.1:\d+|\b1[789]\d{8}\b", "ADDRESS", text)


class Fresh:
    """What a new process of the same environment prints, twice: where the two differ, the work is
    random, and only the kind of answer can be compared."""

    def __init__(self, env, dist, use, home):
        self.env = env
        runs = [self.run(telling(use), home) for _ in range(2)]
        self.code, self.stderr = runs[0].returncode, plain(runs[0].stderr, env)
        a, b = (plain(r.stdout, env) for r in runs)
        self.random = a != b
        self.out = self.shape(a)

    def run(self, code, home):
        variables = {"PATH": self.env + "/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
                     "HOME": home, "ORT_DISABLE_TELEMETRY": "1", **THREADS}
        return subprocess.run([self.env + "/bin/python", "-B", "-c", code], env=variables,
                              cwd=home, capture_output=True, text=True, timeout=300)

    def shape(self, text):
        return re.findall(r"(?m)^\w+", text) if self.random else text


def environment(dists):
    """The tree of this lock in the daemon's store."""
    want = {plain_name(d) for d in dists}
    envs = os.path.join(BUILD, "test-cache", "cache", "store", "envs")
    for name in sorted(os.listdir(envs)):
        lib = os.path.join(envs, name, "lib")
        site = os.path.join(lib, os.listdir(lib)[0], "site-packages")
        infos = os.listdir(site) if os.path.exists(site) else ()
        if {plain_name(i[:-10]) for i in infos if i.endswith(".dist-info")} == want:
            yield os.path.join(envs, name)


def plain_name(text):
    name, _, version = text.replace(" ", "-").rpartition("-")
    return re.sub(r"[-_.]+", "_", name).lower() + "-" + re.sub(r"[-_.]", "_", version)


def same_python(env, python):
    return os.path.realpath(env + "/bin/python") == os.path.realpath(python)


def verdict(daemon, name):
    """What the daemon's log says of a node for this function: "node 7", or why there is none."""
    pattern = re.compile(r"(node \d+) for function %s |no node for function %s [\d. ]+: (.*)"
                         % ((re.escape(name),) * 2))
    found = []

    def done():
        found[:] = pattern.findall(daemon.log())
        return found

    daemon.becomes(lambda: describe(daemon, name)["import_ms"] > 0)  # it comes after the answer
    deadline = time.monotonic() + 40 * SLOWER
    while not done() and time.monotonic() < deadline and describe(daemon, name)["import_ms"] > 4:
        time.sleep(0.05)
    return found[-1] if found else ("", "")


def tell(*words):
    """PIPSQUEAK_SOAK_REPORT: a file that gets a line for each dist."""
    if "PIPSQUEAK_SOAK_REPORT" in os.environ:
        with open(os.environ["PIPSQUEAK_SOAK_REPORT"], "a") as f:
            f.write(" | ".join(map(str, words)) + "\n")


def describe(daemon, name):
    return next(f for f in daemon.get("/functions").json["functions"] if f["name"] == name)


def check_calls(daemon, name, dist, fresh):
    """Three calls, the first cold, the others after the node was made. How they were started."""
    starts = []
    for n in range(3):
        reply = daemon.call(name)
        assert reply.status == 200, (n, reply.body)
        assert fresh.shape(plain(reply.json)) == fresh.out, (n, reply.start)
        starts.append(reply.start)
        if n == 0:
            node, why = verdict(daemon, name)
    if dist in WARMED and node:
        told = daemon.get("/tree/explain/" + name).json
        assert dist in [w.split()[0] for w in told["start"]["warmed"]] and not told["not_warmed"], told
    if not node and not why and describe(daemon, name)["import_ms"] > 4:
        assert starts[2] in ("fork", "spare"), "neither a node nor a reason"
    return starts, node or why or "no node of its own"


def check_run(daemon, python, dist, use, fresh, where):
    for n in range(2):
        made = daemon.cli("run", "-q", "--python", python, "--with", ",".join(requirements(dist)),
                          "-c", telling(use), cwd=where)
        assert (made.returncode, fresh.shape(plain(made.stdout))) == (fresh.code, fresh.out), (
            n, made.stderr)
        assert plain(made.stderr) == fresh.stderr, n


def dependencies(fresh, dist, use, home):
    """The other packages that this work loads: what a node for a node to stand on imports."""
    script = telling(use) + (
        "import sys\nsys.stdout.flush()\n"
        "print('TOPS', *[n for n, m in sys.modules.items() if '.' not in n and 'site-packages' "
        "in (getattr(m, '__file__', None) or '')])\n")
    out = fresh.run(script, home).stdout.rpartition("TOPS")[2].split()
    own = own_modules(fresh.env, dist)
    return [name for name in out if name not in own and not name.startswith("_")]


def own_modules(env, dist):
    """The top-level names that this dist's RECORD lists."""
    for record in glob.glob(env + "/lib/*/site-packages/*.dist-info/RECORD"):
        info = os.path.basename(os.path.dirname(record))
        if re.sub(r"[-_.]+", "-", info.partition("-")[0]).lower() == dist:
            with open(record) as f:
                return {line.split("/")[0].split(".")[0].split(",")[0] for line in f}
    return set()


def depths(daemon):
    """How many nodes lie how deep."""
    def walk(node, depth, found):
        found[depth] = found.get(depth, 0) + 1
        for child in node["children"]:
            walk(child, depth + 1, found)
        return found

    return [walk(root, 0, {}) for root in daemon.get("/tree").json["roots"]]


def deployed(daemon, name, code, dist, python):
    toml = ('reuse = false\ntimeout = 120\nmemory = "2G"\nnetwork = "loopback"\n'
            'processes = 256\npython = "%s"\n' % python)
    # A script's client shows the daemon an interpreter that lies where the daemon may not look.
    met = daemon.cli("run", "-q", "--python", python, "-c", "pass")
    assert met.returncode == 0, met.stderr
    made = daemon.deployed(name, {"handler.py": code, "pipsqueak.toml": toml,
                                  "requirements.txt": "\n".join(requirements(dist))})
    envs = [e for e in environment(made["dists"]) if same_python(e, made["python"])]
    assert envs, made["dists"]
    return envs[0]


def requirements(dist):
    return [dist, *WORKLOADS[dist].get("needs", ())]


def tag(dist, python):
    version = re.search(r"3\.(\d+)", python)
    return re.sub(r"\W", "-", dist) + ("-" + version.group(1) if version else "")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("dist", WORKLOADS)
def test_the_same_work_however_started(daemon, workdir, dist, python):
    use, name = WORKLOADS[dist]["use"], "full-" + tag(dist, python)
    fresh = Fresh(deployed(daemon, name, function_of(use), dist, python), dist, use, workdir)
    assert fresh.code == 0, fresh.stderr
    starts, node = check_calls(daemon, name, dist, fresh)
    check_run(daemon, python, dist, use, fresh, workdir)
    tell(dist, python, *starts, node)


@pytest.fixture(scope="module")
def nested_daemon():
    d = Daemon(new_base())
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("dist", WORKLOADS)
def test_a_node_below_a_node(nested_daemon, workdir, dist, python):
    daemon, use, name = nested_daemon, WORKLOADS[dist]["use"], "full-" + tag(dist, python)
    env = deployed(daemon, name, function_of(use), dist, python)
    fresh = Fresh(env, dist, use, workdir)
    below = "half-" + tag(dist, python)
    names = dependencies(fresh, dist, use, workdir)
    if not names:
        return
    code = "def handler(event):\n" + "".join(
        "    try:\n        import %s\n    except ImportError:\n        pass\n" % n for n in names)
    deployed(daemon, below, code, dist, python)
    reply = daemon.call(below)
    assert reply.status == 200, reply.body
    node, why = verdict(daemon, below)
    starts, deeper = check_calls(daemon, name, dist, fresh)
    tell("below", dist, python, node or why, *starts, deeper, depths(daemon))
