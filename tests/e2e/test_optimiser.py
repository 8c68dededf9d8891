# SPDX-License-Identifier: Apache-2.0
"""The tree under a small budget: what is shared is held once, the budget always, what is called more stays."""
import json
import os
import random
import shutil
import subprocess
import threading
import time

import pytest

import chaos
from conftest import SLOWER, Daemon, groups_of, new_base

# A package that is slow to import and stays in memory: so many MiB, so many ms.
BODY = "import time\n%stime.sleep(%g)\nKEPT = bytearray(b'x') * (%d << 20)\n"
HANDLER = "%s\ndef handler(event):\n    return %s\n"


def add(index, name, mib, ms, needs=()):
    body = BODY % ("".join("import %s\n" % n for n in needs), ms / 1000, mib)
    index.add(name, {"%s.py" % name: body}, requires=needs)


def deploy(d, index, name, needs):
    loaded = "sorted(m for m in %r if m in __import__('sys').modules)" % (needs,)
    code = HANDLER % ("".join("import %s\n" % n for n in needs), loaded)
    d.deployed(name, {"handler.py": code, "requirements.txt": "\n".join(needs), "pipsqueak.toml": "reuse = false\n"},
               settings=index.settings)


class Watched(Daemon):
    """Asks all the time whether the nodes are within the budget."""

    def __init__(self, mib, *options):
        self.worst, self.samples, self.over = 0, 0, threading.Event()
        super().__init__(new_base(), ["--memory", "%dM" % mib, *options])
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.over.is_set():
            try:
                status = self.get("/status").json
            except (AssertionError, OSError, ValueError):  # it is being started again
                time.sleep(0.05)
                continue
            self.worst = max(self.worst, status["nodes_bytes"] / status["memory_budget_bytes"])
            self.samples += 1
            time.sleep(0.01)

    def end(self):
        self.over.set()
        self.thread.join()
        self.stop()
        self.check_log()
        shutil.rmtree(self.base)


@pytest.fixture
def tight():
    made = []

    def make(mib, *options):
        made.append(Watched(mib, *options))
        return made[-1]
    yield make
    for d in made:
        d.end()


def sets(d):
    """What each node holds, its parents' too, by name."""
    def below(node, above):
        has = above | {a.split()[0] for a in node["adds"]}
        return [has] + [s for c in node["children"] for s in below(c, has)]
    return [s for root in d.get("/tree").json["roots"] for s in below(root, frozenset())]


def settled(d, seconds=1.5):
    """Until the tree has not changed for so long."""
    last, since = None, time.monotonic()
    end = since + 60
    while time.monotonic() < end:
        now = sorted(n["id"] for n in d.nodes())
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > seconds:
            return
        time.sleep(0.1)
    raise AssertionError("the tree does not come to rest:\n" + d.log()[-3000:])


def test_what_is_common_is_held_once(tight, index):
    """Six functions with a base of 40 MiB each: there is room for one of it, and for some of the rest."""
    d = tight(128)
    add(index, "base", 40, 120)
    for n in range(6):
        add(index, "part%d" % n, 10, 40, ["base"])
        deploy(d, index, "uses%d" % n, ["base", "part%d" % n])
    for _ in range(8):
        for n in range(6):
            assert d.call("uses%d" % n).json == ["base", "part%d" % n]
    settled(d)
    held = sets(d)
    assert {"base"} in held, (held, d.log()[-3000:])
    assert sum("base" in n["adds"][0] for n in d.nodes() if n["adds"]) == 1, json.dumps(d.get("/tree").json, indent=1)
    for n in range(6):  # everybody is forked from something
        assert d.call("uses%d" % n).start in ("fork", "spare")
    assert d.samples > 50 and d.worst <= 1, (d.worst, d.log()[-3000:])


def test_what_is_called_more_stays(tight, index):
    d = tight(100)
    for n in range(4):
        add(index, "big%d" % n, 30, 100)
        deploy(d, index, "calls%d" % n, ["big%d" % n])
    for _ in range(12):
        assert d.call("calls0").status == d.call("calls1").status == 200
    for n in (2, 3, 2, 3):
        assert d.call("calls%d" % n).json == ["big%d" % n]
        settled(d, 1)
    held = sets(d)
    assert {"big0"} in held and {"big1"} in held, (held, d.log()[-3000:])
    assert d.worst <= 1, d.worst
    # The others' turn: what nobody calls any more gives way.
    for _ in range(40):
        assert d.call("calls2").status == d.call("calls3").status == 200
    d.becomes(lambda: {"big2"} in sets(d) and {"big3"} in sets(d))
    assert d.worst <= 1, d.worst


def test_demand_survives(tight, index):
    """After a restart the nodes come back by themselves, before anything is called."""
    d = tight(128)
    add(index, "known", 10, 60)
    deploy(d, index, "first", ["known"])
    for _ in range(3):
        assert d.call("first").status == 200
    d.becomes(lambda: {"known"} in sets(d))
    d.stop()
    d.start()
    d.becomes(lambda: {"known"} in sets(d))
    assert d.call("first").start == "fork"


def took_ms(d, name):
    began = time.monotonic()
    assert d.call(name).status == 200
    return (time.monotonic() - began) * 1e3


def most_of(values):
    return sorted(values)[len(values) * 95 // 100]


def test_no_call_waits_for_a_node(tight, index):
    """Thirty nodes that take 0.2 s each, two at a time: neither other functions' calls wait for them, nor those they are for.

    Imports sleep, so processors are free: bench/daemon.py has the figures with real packages."""
    d = tight(512)
    d.deployed("bare", {"handler.py": "def handler(event):\n    return 1\n", "pipsqueak.toml": "reuse = false\n"})
    for n in range(30):
        add(index, "slow%d" % n, 1, 200)
        deploy(d, index, "slow%d" % n, ["slow%d" % n])
    took_ms(d, "bare")
    quiet = [took_ms(d, "bare") for _ in range(100)]
    ended, own = threading.Event(), []

    def teach():
        for n in range(30):
            took_ms(d, "slow%d" % n)  # its node is wanted from now on
            own.append(took_ms(d, "slow%d" % n))
        ended.set()

    teacher = threading.Thread(target=teach)
    teacher.start()
    busy = []
    while not ended.is_set() or len(d.nodes()) < 25:
        busy.append(took_ms(d, "bare"))
        assert len(busy) < 20000, d.cli("tree").stdout
    teacher.join()
    # Of the time: many quick calls between two nodes would hide that each node stops the daemon.
    slow = sum(ms for ms in busy if ms > 3 * most_of(quiet) + 50 * SLOWER)
    assert slow < sum(busy) / 6, (slow, sum(busy), most_of(quiet))
    assert most_of(own) < 200 + 150 * SLOWER, own  # who waits for a node and then imports takes twice 0.2 s


def test_history_fits_a_tree_that_another_daemon_starts_with(tight, index, workdir):
    """history -> fit -> --tree: its nodes are there before the first call of a function that has the packages."""
    add(index, "stem", 20, 80)
    for n in range(3):
        add(index, "leaf%d" % n, 5, 40, ["stem"])
    d = tight(128)
    for n in range(3):
        deploy(d, index, "leaf%d" % n, ["stem", "leaf%d" % n])
        assert d.call("leaf%d" % n).status == 200
    d.becomes(lambda: all({"stem", "leaf%d" % n} in sets(d) for n in range(3)))
    made = d.cli("history", "-o", workdir + "/seen")
    assert made.returncode == 0, made.stderr
    packages = json.load(open(workdir + "/seen/packages.json"))
    assert 60 < packages["stem==1.0"]["import_ms"] < 1000, packages
    assert ["leaf0==1.0", "stem==1.0"] in [sorted(c) for c in json.load(open(workdir + "/seen/closures.json"))["leaf0==1.0"]]
    made = d.cli("fit", "--memory", "500M", "--from", workdir + "/seen", "-o", workdir + "/tree.json")
    assert made.returncode == 0, made.stderr
    assert "stem==1.0" in open(workdir + "/tree.json").read()
    has = "tree:" + workdir + "/seen/tree.json"  # the daemon's own tree leaves nothing of these
    made = d.cli("simulate", workdir + "/seen", "--memory", "500M", "--policy", "lru,online,none," + has, "--json")
    left = {row["policy"]: row["residual_ms"]["mean"] for row in json.loads(made.stdout)}
    assert left["none"] > 100 and left["tree.json"] < 1, left
    other = tight(128, "--tree", workdir + "/tree.json")
    assert not other.nodes() or sets(other) == [frozenset()]
    deploy(other, index, "new", ["stem", "leaf1"])
    other.becomes(lambda: {"stem", "leaf1"} in sets(other))
    assert {"stem", "leaf0"} not in sets(other)  # nobody has it
    assert other.call("new").start == "cold"  # what it loads is not known yet (S3)
    other.becomes(lambda: other.call("new").start in ("fork", "spare"))
    assert other.worst <= 1


def test_no_tree(tight, index, workdir):
    """Nothing sleeps but roots; what is called is known all the same."""
    d = tight(128, "--no-tree")
    add(index, "plain", 1, 60)
    deploy(d, index, "rooted", ["plain"])
    assert [d.call("rooted").start for _ in range(4)].count("fork") == 0
    time.sleep(2)
    assert d.call("rooted").stage("import") > 50 and sets(d) == [frozenset()]
    status = d.get("/status").json
    assert status["nodes"] == 1 and status["grow_cpu_s"] == 0
    assert d.cli("history", "-o", workdir + "/seen").returncode == 0
    line = json.loads(open(workdir + "/seen/functions.jsonl").readline())
    assert line["requirements"] == ["plain==1.0"] and line["calls"] > 4


@pytest.mark.parametrize("text,sentence", [("", "line"), ("{}", "list of packages"), ("[1]", "list of packages"),
                                           ('{"packages": ["a"], "children": []}', "NAME==VERSION")])
def test_bad_trees(own_daemon, workdir, text, sentence):
    with open(workdir + "/tree.json", "w") as f:
        f.write(text)
    base = new_base()
    made = subprocess.run([*own_daemon.command()[:1], "--dir", base, *own_daemon.command()[3:], "--tree", workdir + "/tree.json"],
                          capture_output=True, text=True, timeout=60)
    assert made.returncode != 0 and sentence in made.stderr, made.stderr
    if os.path.exists(base):
        shutil.rmtree(base)


def test_whatever_happens(tight, index):
    """tests/soak has it for minutes."""
    seed = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    print("SOAK_SEED=%d" % seed)
    d = tight(72)
    d.allowed += ["forks|forking|BrokenPipe|ConnectionReset|EOFError|Traceback|went away|ended with status|could not start as a zygote"]
    mad = chaos.Chaos(d, index, random.Random(seed))
    assert mad.run(12, 0) > 20 and mad.calls > 30
    settled(d)
    assert not chaos.duplicates(d), json.dumps(d.get("/tree").json, indent=1)
    assert d.worst <= 1


def kinds(node, above=frozenset(), modules=0):
    """(dists, modules) of each node below this one."""
    dists, modules = above | frozenset(node["adds"]), modules + node["modules"]
    if dists:
        yield dists, modules
    for child in node["children"]:
        yield from kinds(child, dists, modules)


def test_free_memory_is_not_filled(own_daemon):
    """With room for all, what was called gets its nodes, what may come gets some, and that is all."""
    d = own_daemon
    dists = {"numpy": "numpy", "pandas": "pandas", "jinja2": "jinja2", "flask": "flask", "six": "six", "click": "click",
             "pillow": "PIL.Image", "certifi": "certifi"}
    pick = random.Random(1)
    for n in range(16):
        mine = pick.sample(sorted(dists), pick.randint(1, 4))
        d.deployed("many%d" % n, {"handler.py": "".join("import %s\n" % dists[m] for m in mine) + "def handler(e): return 1\n",
                                  "requirements.txt": "\n".join(mine)})
        assert d.call("many%d" % n).json == 1
    seen, calm = None, time.monotonic() + 3
    while time.monotonic() < calm:
        now = [s for root in d.get("/tree").json["roots"] for s in kinds(root)]
        assert len(now) < 48, d.cli("tree").stdout
        # A few may be: one that was made before it was known what its dists look for.
        assert len(set(now)) >= len(now) - 3, d.cli("tree").stdout
        if now != seen:
            seen, calm = now, max(calm, time.monotonic() + 3)
        time.sleep(0.2)
    assert len(seen) >= 8


def shares(d):
    """cgroup of the daemon's -> what it weighs, of those that have processes; version 1 and 2."""
    found = {}
    for where, _, files in os.walk("/sys/fs/cgroup"):
        if not set(where.split("/")) & set(groups_of(d.process.pid)):
            continue
        for name in {"cpu.shares", "cpu.weight"} & set(files):
            with open(where + "/" + name) as f, open(where + "/cgroup.procs") as procs:
                if procs.read():
                    found[where] = (name, int(f.read()))
    return found


LOW = {("cpu.shares", 128), ("cpu.weight", 12)}


def test_nodes_are_made_below_calls(own_daemon, index):
    """Whoever imports in the background gets an eighth of what others get, and its full share once it sleeps."""
    d = own_daemon
    index.add("slow-one", {"slow_one.py": "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\n"})
    d.deployed("slow", {"handler.py": "import slow_one\ndef handler(e): return 1\n", "requirements.txt": "slow-one"},
               settings=index.settings)
    assert d.call("slow").json == 1
    if not d.get("/status").json["host"]["cgroups"]:
        return
    d.becomes(lambda: LOW & set(shares(d).values()))
    d.wait_for_node("slow-one")
    d.becomes(lambda: not LOW & set(shares(d).values()))
