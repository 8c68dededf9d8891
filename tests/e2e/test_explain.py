# SPDX-License-Identifier: Apache-2.0
"""Why a function starts as it does (`tree --explain`), what a node is there for (`tree --why`), and the counters."""
import json
import os
import re
import threading

from conftest import BUILD

FRESH = "reuse = false\n"


def deploy(d, name, code, needs="", toml="", **kwargs):
    return d.deployed(name, {"handler.py": code, "requirements.txt": needs, "pipsqueak.toml": FRESH + toml}, **kwargs)


def explain(d, name):
    """As JSON, and as text."""
    told = d.get("/tree/explain/" + name)
    assert told.status == 200, told.body
    made = d.cli("tree", "--explain", name)
    assert made.returncode == 0, made.stderr
    return told.json, made.stdout


def settled(d, name, event=None):
    """Called, and its node asleep (or known not to be made)."""
    reply = d.call(name, event)
    assert reply.status == 200, reply.body
    d.becomes(lambda: d.get("/tree/explain/" + name).json["own_node"]["state"] in ("asleep", "failed", "not needed"))
    return d.get("/tree/explain/" + name).json


def refusals(told):
    """(node's dists, rule, thing) of all that is refused."""
    return [({t.split()[0] for t in other["dists"]}, reason["rule"], reason["thing"], reason["text"])
            for other in told["others"] for reason in other["reasons"]]


def only(told, rule):
    found = list({r[1:]: r for r in refusals(told) if r[1] == rule}.values())  # of several nodes, maybe
    assert len(found) == 1, told
    return found[0]


JSONS = "import requests.compat\ndef handler(event):\n    return requests.compat.json.__name__\n"


def test_what_was_not_found_there(own_daemon):
    d = own_daemon
    deploy(d, "plain", JSONS, "requests")
    told, text = explain(d, "plain")
    assert not told["known"] and told["own_node"]["state"] == "unknown" and told["start"]["from"] == "root"
    assert "it was not called yet" in text and "bare interpreter" in text
    settled(d, "plain")
    deploy(d, "simple", JSONS, "requests\nsimplejson")
    settled(d, "simple")
    told, text = explain(d, "simple")
    dists, _, thing, why = only(told, "absent")
    assert "requests" in dists and "simplejson" not in dists and thing == "simplejson"
    assert why == "simplejson was looked for and not found there; the function has it"
    assert "refused (absent, S10): " + why in text
    start = told["start"]
    assert start["from"] == "node" and any(t.startswith("simplejson ") for t in start["dists"])
    assert start["saves_ms"] > 10 and abs(start["saves_ms"] + start["left_ms"] - start["of_ms"]) < 0.01
    assert "forks from node %d\n" % start["node"] in text and "it is node %d" % told["own_node"]["node"] in text
    told, _ = explain(d, "plain")  # the other way round it is the closure
    assert only(told, "closure")[2].startswith("simplejson ")


def test_what_it_does_not_load_and_what_it_has_not(own_daemon):
    d = own_daemon
    code = "import %s\ndef handler(event):\n    return 1\n"
    deploy(d, "frames", code % "pandas", "pandas")
    settled(d, "frames")
    deploy(d, "fewer", code % "numpy", "pandas")
    settled(d, "fewer")
    told, text = explain(d, "fewer")
    loaded = [r for r in refusals(told) if r[1] == "loaded"]
    assert {r[2].split()[0] for r in loaded} >= {"pandas"} and {r[1] for r in refusals(told)} == {"loaded"}
    assert re.search(r"refused \(loaded, S3\): it imported pandas \S+, which the function has, but was not seen loading", text)
    assert told["start"]["from"] == "node" and {t.split()[0] for t in told["start"]["dists"]} == {"numpy"}
    deploy(d, "alone", code % "numpy", "numpy")
    settled(d, "alone")
    told, text = explain(d, "alone")
    assert "pandas" in {r[2].split()[0] for r in refusals(told) if r[1] == "closure"}
    assert re.search(r"refused \(closure, S2\): it imported pandas \S+, which the function has not", text)


PLOTS = "import matplotlib\ndef handler(event):\n    return matplotlib.get_backend().lower()\n"


def test_a_variable(own_daemon):
    d = own_daemon
    deploy(d, "plots", PLOTS, "matplotlib", "timeout = 60\n")
    settled(d, "plots")
    deploy(d, "svg", PLOTS, "matplotlib", "timeout = 60\n[env]\nMPLBACKEND = \"svg\"\n")
    settled(d, "svg")
    told, text = explain(d, "svg")
    found = [r for r in refusals(told) if r[1] == "variable"]
    assert found and {r[2] for r in found} == {"MPLBACKEND"}
    assert "refused (variable, S10): it read the variable MPLBACKEND, which the function sets" in text
    # One with matplotlib failed; of the rest there may be one of its own, or one of the other function's.
    assert told["own_node"]["state"] in ("failed", "asleep")
    assert "a node of its own: %s: " % told["own_node"]["state"] in text
    assert "matplotlib" not in {t.split()[0] for t in told["start"].get("dists", [])}


def test_tenants(own_daemon):
    d = own_daemon
    code = "import numpy\ndef handler(event):\n    return 1\n"
    for name, toml in (("shared", ""), ("acme", "tenant = 'acme'\nisolate = 'tenant'\n"),
                       ("beta", "tenant = 'beta'\nisolate = 'tenant'\n")):
        deploy(d, name, code, "numpy", toml)
        settled(d, name)
    told, text = explain(d, "beta")
    assert {(r[1], r[2]) for r in refusals(told)} == {("tenant", ""), ("tenant", "acme")}
    assert "refused (tenant): it is of the tenant acme alone" in text
    assert "refused (tenant): the function shares with its own tenant alone" in text
    told, _ = explain(d, "shared")
    assert {r[2] for r in refusals(told)} == {"acme", "beta"}
    node = d.get("/tree/nodes/%d" % d.get("/tree/explain/acme").json["start"]["node"]).json
    assert node["tenant"] == "acme" and [u["function"] for u in node["users"]["named"]] == ["acme"]


def test_a_root_of_its_own(own_daemon):
    d = own_daemon
    code = "import numpy\ndef handler(event):\n    return 1\n"
    for name, toml in (("shared", ""), ("gamma", "tenant = 'gamma'\nisolate = 'root'\n")):
        deploy(d, name, code, "numpy", toml)
        settled(d, name)
    told, text = explain(d, "gamma")
    assert "root" in {r[1] for r in refusals(told)}
    assert "refused (root): it is below everybody's root; the function's tenant has its own\n" in text
    told, text = explain(d, "shared")
    assert "refused (root): it is below the root of the tenant gamma alone\n" in text
    assert {r.get("tenant") for r in d.get("/tree").json["roots"]} == {None, "gamma"}


def test_another_interpreter(own_daemon):
    d = own_daemon
    code = "import numpy\ndef handler(event):\n    return 1\n"
    deploy(d, "here", code, "numpy")
    deploy(d, "there", code, "numpy", query="?python=/usr/bin/python3.11&prefix=/usr")
    settled(d, "here")
    settled(d, "there")
    told, text = explain(d, "there")
    assert {r[1] for r in refusals(told)} == {"root"}
    assert "refused (root): it is of another interpreter, /usr/bin/python3\n" in text


READS = "import importlib.metadata, time\ntime.sleep(0.02)\nWHOSE = importlib.metadata.version(\"%s\")\n"
LISTS = "import importlib.metadata, time\ntime.sleep(0.02)\nALL = len(list(importlib.metadata.distributions()))\n"


def test_metadata_and_lists(own_daemon, index):
    """Made here: no popular package reads another's metadata only when it is there."""
    d = own_daemon
    index.add("curious", {"curious.py": "try:\n" + "".join("    " + line + "\n" for line in
                                                          (READS % "friend").splitlines()) + "except Exception:\n    pass\n"})
    index.add("lister", {"lister.py": LISTS})
    index.add("friend", {"friend.py": ""})
    code = "import %s\ndef handler(event):\n    return 1\n"
    for name, module, needs in (("reads", "curious", "curious\nfriend"), ("reads-not", "curious", "curious"),
                                ("lists", "lister", "lister"), ("lists-more", "lister", "lister\nfriend")):
        deploy(d, name, code % module, needs, settings=index.settings)
        settled(d, name)
    told, text = explain(d, "reads-not")
    assert only(told, "metadata")[2] == "friend 1.0"
    assert "refused (metadata, S2): it read the metadata of friend 1.0, which the function has not" in text
    told, text = explain(d, "reads")
    assert only(told, "absent")[3] == "the metadata of friend was looked for and not found there; the function has it"
    told, text = explain(d, "lists-more")
    assert only(told, "listed") and "it listed all its dists; the function has others" in text


def test_another_version_and_a_file_of_that_name(own_daemon, index):
    d = own_daemon
    for version in ("1.0", "2.0"):
        index.add("slow", {"slow.py": "import time, colorsys\ntime.sleep(0.03)\n"}, version=version)
    code = "import slow\ndef handler(event):\n    return 1\n"
    deploy(d, "old", code, "slow==1.0", settings=index.settings)
    deploy(d, "new", code, "slow==2.0", settings=index.settings)
    d.deployed("own", {"handler.py": code, "colorsys.py": "", "requirements.txt": "slow==1.0", "pipsqueak.toml": FRESH},
               settings=index.settings)
    for name in ("old", "new", "own"):
        settled(d, name)
    told, _ = explain(d, "new")
    assert ({"slow"}, "closure", "slow 1.0", "it imported slow 1.0; the function has 2.0") in refusals(told)
    told, text = explain(d, "own")
    assert "refused (absent, S10): it imported colorsys; the function has a file of that name" in text


SPINS = "import socket, time\ntime.sleep(0.02)\nkept = socket.socketpair()\n"


def test_what_cannot_sleep(own_daemon, index):
    d = own_daemon
    index.add("restless", {"restless/__init__.py": "", "restless/spins.py": SPINS,
                           "restless/calm.py": "import time\ntime.sleep(0.02)\n",
                           "uses_restless.py": "try:\n    from restless import spins\nexcept Exception:\n    spins = None\n"})
    index.add("polars", {"polars.py": "import time\ntime.sleep(0.02)\n"})  # in name only: see data/forksafe.json
    code = "from restless import calm\nimport uses_restless, polars\ndef handler(event):\n    return uses_restless.spins is None\n"
    deploy(d, "half", code, "restless\npolars", settings=index.settings)
    told = settled(d, "half")
    assert told["own_node"]["state"] == "asleep", told
    told, text = explain(d, "half")
    bad = {m["module"]: m for m in told["cannot_sleep"]}
    assert told["cannot_sleep"][0]["module"] == "restless.spins"  # who is to blame comes first
    assert "descriptor=socket" in bad["restless.spins"]["text"] and bad["restless.spins"]["dist"] == "restless 1.0"
    assert bad["uses_restless"]["how"] == "imports"
    assert re.search(r"cannot sleep:\n  restless.spins of restless 1.0: descriptor=socket", text)
    assert [m["module"] for m in told["idle_threads"]] == ["polars"]
    with open(os.path.join(BUILD, "lib", "forksafe.json")) as f:
        row = [r for r in json.load(f)["idle_threads"] if r["module"] == "polars"][0]
    assert "polars, up to %d: %s (proof: %s)" % (row["threads"], row["reason"], row["proof"]) in text
    assert told["start"]["left_ms"] > 15 and told["start"]["saves_ms"] > 15


def test_what_starts_afresh(daemon):
    deploy(daemon, "hashed", "def handler(event):\n    return 1\n", "", "[env]\nPYTHONHASHSEED = \"0\"\n")
    assert daemon.call("hashed").json == 1
    told, text = explain(daemon, "hashed")
    assert told["start"]["from"] == "fresh" and told["own_node"]["state"] == "unused"
    assert told["others"] == []
    assert "an interpreter of its own, which imports all" in text


def test_why_a_node_is_there(own_daemon, index):
    d = own_daemon
    for name in ("one", "two"):
        index.add(name, {name + ".py": "import time\ntime.sleep(0.05)\n"})
        deploy(d, "uses-" + name, "import %s\ndef handler(event):\n    return 1\n" % name, name, settings=index.settings)
        settled(d, "uses-" + name)
    first, second = (d.get("/tree/explain/uses-" + name).json["start"]["node"] for name in ("one", "two"))
    for name in ("two", "two", "one", "one", "one"):
        assert d.call("uses-" + name).start in ("fork", "spare")
    d.becomes(lambda: not any(n["busy"] for n in d.nodes()))
    node = d.get("/tree/nodes/%d" % first).json
    assert node["made_for"] == "function uses-one" and node["dists"] == ["one 1.0"] and node["parent"] == 1
    assert node["calls"] == 3 and node["uses"] >= 3 and node["child_ids"] == [] and node["depth"] == 1
    assert [u["function"] for u in node["users"]["named"]] == ["uses-one"] and node["users"]["scripts"] == 0
    user, saves = node["users"]["named"][0], node["saves"]
    assert user["saves_ms"] >= 50 and user["calls"] == 4
    # later calls refine what the first said that its import takes
    assert abs(saves["per_use_ms"] - user["saves_ms"]) < 0.3 * user["saves_ms"]
    assert abs(saves["all_ms"] - saves["per_use_ms"] * node["uses"]) < 0.01 * node["uses"]
    assert saves["uses_per_s"] > 0 and saves["saved_ms_per_s"] > 0
    assert node["subtree_bytes"] == node["memory_bytes"] > 0
    # The one that was used less lately goes first.
    other = d.get("/tree/nodes/%d" % second).json
    assert (node["drop"]["next"], other["drop"]["next"]) == (False, True)
    assert node["drop"]["first"] == second
    root = d.get("/tree/nodes/1").json
    assert sorted(root["child_ids"]) == sorted([first, second]) and root["parent"] is None
    assert "roots are not dropped" in root["drop"]["text"]
    text = d.cli("tree", "--why", str(first)).stdout
    assert "made for: function uses-one\n" in text and "which served 3 calls" in text
    assert "next to be dropped: no: another is to be dropped first" in text and "  uses-one: saves " in text
    assert "next to be dropped: yes" in d.cli("tree", "--why", str(second)).stdout
    assert json.loads(d.cli("tree", "--why", str(first), "--json").stdout)["id"] == first


def test_nodes_being_made_and_queued(own_daemon, index):
    """More at a time than are made at a time."""
    d, names = own_daemon, ["slow-%d" % i for i in range(4)]
    for name in names:
        module = name.replace("-", "_")
        index.add(name, {module + ".py": "import time\ntime.sleep(1.5)\n"})
        deploy(d, name, "import %s\ndef handler(event):\n    return 1\n" % module, name, settings=index.settings)
    calls = [threading.Thread(target=d.call, args=(name,)) for name in names]
    for call in calls:
        call.start()
    seen = {}
    d.becomes(lambda: states(d, names, seen) == ["asleep"] * 4)
    for call in calls:
        call.join()
    made, queued = seen["being made"], seen["queued"]
    assert re.fullmatch(r"for \d\.\d s by now", made["text"]) and made["tries"] == 1 and "next_try" not in made
    assert re.fullmatch(r"it waits for its turn, [12] of [12]", queued["text"]) and queued["next_try"], queued


def states(d, names, seen):
    own = [d.get("/tree/explain/" + name).json["own_node"] for name in names]
    seen.update({o["state"]: o for o in own})
    return [o["state"] for o in own]


def test_a_script_is_a_user(own_daemon, workdir):
    d = own_daemon
    for _ in range(2):
        made = d.cli("run", "-q", "--with", "numpy", "-c", "import numpy; print(numpy.__name__)", cwd=workdir)
        assert made.stdout == "numpy\n", made.stderr
        d.wait_for_node("numpy")
    node = [n for n in d.nodes() if any(t.startswith("numpy ") for t in n["adds"])][0]
    assert node["made_for"] == "a script"
    assert d.get("/tree/nodes/%d" % node["id"]).json["users"]["scripts"] == 1
    started = d.get("/status").json
    assert started["runs_total"] == 2 and started["runs_started"] == {
        "warm": 0, "spare": 0, "node": 1, "root": 1, "none": 0}


def test_how_calls_were_started(own_daemon):
    d = own_daemon
    d.deployed("again", {"handler.py": "def handler(e):\n    return 1 / e\n"})
    assert d.call("again", 1).start == "cold"
    for _ in range(3):
        assert d.call("again", 1).start == "warm"
    assert d.call("again", 0).status == 500
    assert d.call("nothing").status == 404 and d.call("again", raw=b"{").status == 400  # were no calls
    s = d.get("/status").json
    assert (s["calls_total"], s["errors_total"]) == (5, 1)
    assert s["calls_started"] == {"warm": 4, "spare": 0, "node": 0, "root": 1, "none": 0}
    assert sum(n["calls"] for n in d.nodes()) == 5
    # One that waited for its turn in vain.
    d.deployed("gone", {"handler.py": "import time\ndef handler(e):\n    time.sleep(2)\n",
                        "pipsqueak.toml": "concurrency = 1\n"})
    calls = [threading.Thread(target=d.call, args=("gone",)) for _ in range(2)]
    for call in calls:
        call.start()
    d.becomes(lambda: [f["queued"] for f in d.get("/functions").json["functions"] if f["name"] == "gone"] == [1])
    assert d.request("DELETE", "/functions/gone").status == 200
    for call in calls:
        call.join()
    assert d.get("/status").json["calls_started"] == {"warm": 4, "spare": 0, "node": 0, "root": 2, "none": 1}
    metrics = d.get("/metrics").body.decode()
    assert 'pipsqueak_calls_started_total{from="warm"} 4\n' in metrics and "pipsqueak_errors_total 2\n" in metrics


def test_bad_questions(daemon):
    for path, status, kind in (("/tree/explain/nobody", 404, "not_found"), ("/tree/nodes/4000000000", 404, "not_found"),
                               ("/tree/nodes/x", 400, "usage"), ("/tree/nodes/-1", 400, "usage"),
                               ("/tree/nodes/0", 400, "usage"), ("/tree/nodes/1.0", 400, "usage"),
                               ("/tree/nodes/99999999999", 400, "usage"), ("/tree/nodes/", 404, "not_found")):
        reply = daemon.get(path)
        assert (reply.status, reply.error["kind"]) == (status, kind), path
    assert daemon.request("POST", "/tree/nodes/1").status == 405
    for words, code in ((["--explain", "nobody"], 3), (["--why", "4000000000"], 3), (["--why", "x"], 2), (["--why"], 2),
                        (["--explain", "../status"], 2), (["--dot", "--json"], 2), (["--dot", "--why", "1"], 2),
                        (["--explain", "a", "--why", "1"], 2), (["--what"], 2)):
        made = daemon.cli("tree", *words)
        assert made.returncode == code and made.stderr.startswith("pipsqueak: "), (words, made)
    paths = daemon.get("/openapi.json").json["paths"]
    assert paths["/tree/nodes/{id}"]["get"]["parameters"][0]["name"] == "id"
    assert paths["/tree/explain/{name}"]["get"]["parameters"][0]["name"] == "name"
