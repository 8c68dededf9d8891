# SPDX-License-Identifier: Apache-2.0
"""Roots made anew on a timer, below calls that go on; tenants that share nothing but roots."""
import shutil
import threading
import time

import pytest

from conftest import Daemon, new_base

NUMPY = {"requirements.txt": "numpy",
         "handler.py": "import numpy, time\ndef handler(e):\n    time.sleep(e or 0)\n    return [hash('a'), id(numpy)]\n"}
FRESH = dict(NUMPY, **{"pipsqueak.toml": "reuse = false\n"})


@pytest.fixture
def restless():
    """Its roots are made anew every two seconds."""
    d = Daemon(new_base(), ["--root-age", "2"])
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)


def test_roots_are_made_anew_and_no_call_notices(restless):
    d = restless
    d.deployed("fresh", FRESH)
    d.deployed("kept", NUMPY)
    assert d.call("fresh").status == 200
    d.wait_for_node("numpy")
    d.becomes(lambda: d.call("fresh").start != "cold")
    long_one = []
    t = threading.Thread(target=lambda: long_one.append(d.call("kept", 8)))
    t.start()
    roots, replies, end = set(), [], time.monotonic() + 60
    while len(roots) < 4:
        assert time.monotonic() < end, d.log()[-2000:]
        replies.append(d.call("fresh"))
        roots.update(r["id"] for r in d.get("/tree").json["roots"])
    t.join()
    assert {r.status for r in replies} == {200} and long_one[0].status == 200
    assert "cold" not in {r.start for r in replies}
    assert len({r.json[0] for r in replies}) >= 2 and len({r.json[1] for r in replies}) >= 2
    newest = max(roots)
    d.becomes(lambda: newest not in [r["id"] for r in d.get("/tree").json["roots"]])  # it, too, is dropped
    assert len(d.get("/tree").json["roots"]) <= 2
    assert d.call("fresh").start != "cold"


def test_a_renewal_of_an_empty_tree(restless):
    d, seen = restless, set()
    d.becomes(lambda: seen.update(r["id"] for r in d.get("/tree").json["roots"]) or len(seen) > 2)


def toml(tenant, isolate="tenant"):
    return dict(NUMPY, **{"pipsqueak.toml": "reuse = false\ntenant = '%s'\nisolate = '%s'\n" % (tenant, isolate)})


def holders(d):
    return sorted((n.get("tenant", ""), n["uses"] > 0) for n in d.nodes()
                  if any(a.startswith("numpy ") for a in n["adds"]))


def test_tenants_share_no_node(own_daemon):
    d = own_daemon
    files = {"a": toml("acme"), "b": toml("umbrella"), "c": FRESH, "a2": toml("acme"), "d": toml("acme", "none")}
    for name in ("a", "b", "c"):
        d.deployed(name, files[name])
        d.becomes(lambda n=name: d.call(n).start != "cold")
    apart = [("", True), ("acme", True), ("umbrella", True)]
    d.becomes(lambda: [d.call(n) for n in ("a", "b", "c")] and holders(d) == apart)  # a spare may be of the root yet
    for name in ("a2", "d"):  # of the same tenant; of one that asks for nothing
        d.deployed(name, files[name])
        d.becomes(lambda n=name: d.call(n).start != "cold")
    assert holders(d) == apart
    assert d.cli("tree").stdout.count("tenant acme") == 1


def test_a_root_of_a_tenants_own(own_daemon):
    """Another hash seed and address layout; it goes with the tenant's last function, and is there again after a restart."""
    d = own_daemon
    for name, files in (("all", FRESH), ("own", toml("acme", "root")), ("own2", toml("acme", "root")), ("others", toml("umbrella", "root"))):
        d.deployed(name, files)
        d.becomes(lambda n=name: d.call(n).start != "cold")
    seeds = {name: d.call(name).json[0] for name in ("all", "own", "own2", "others")}
    assert seeds["own"] == seeds["own2"] and len(set(seeds.values())) == 3, seeds
    assert len(d.get("/tree").json["roots"]) == 3
    for name in ("own", "own2"):
        d.request("DELETE", "/functions/" + name)
    d.becomes(lambda: len(d.get("/tree").json["roots"]) == 2)
    assert d.call("all").json[0] == seeds["all"] and d.call("others").json[0] == seeds["others"]
    d.stop()
    d.start()
    assert d.call("all").json[0] != d.call("others").json[0]
    assert len(d.get("/tree").json["roots"]) == 2
    d.deployed("own", toml("acme", "root"))
    assert d.call("own").json[0] not in (d.call("all").json[0], d.call("others").json[0])


@pytest.mark.parametrize("text,sentence", [("isolate = 'tenant'", "needs a tenant"), ("isolate = 'all'", "isolate must be"),
                                           ("tenant = 'a b'", "tenant must be"), ("tenant = ''", "tenant must be")])
def test_bad_tenants(daemon, text, sentence):
    reply = daemon.deploy("badtenant", {"handler.py": "def handler(e): pass\n", "pipsqueak.toml": text})
    assert reply.status == 400 and sentence in reply.error["message"], reply.body
