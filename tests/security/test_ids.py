# SPDX-License-Identifier: Apache-2.0
"""Ids fence off what namespaces do not (DESIGN.md, S8): no two nodes or instances have one, however many there are."""
import os

from conftest import of_daemon
from test_zygote_lies import hostile

WIDE, DEEP, BELOW = 24, 6, 8


def ids(daemon):
    """host id -> user namespaces in which it is used by a process of the daemon's sandboxes."""
    found = {}
    for p in of_daemon(daemon.process.pid)[0]:
        try:
            uid, space = os.stat("/proc/%d" % p.pid).st_uid, os.stat("/proc/%d/ns/user" % p.pid).st_ino
        except OSError:
            continue
        found.setdefault(uid, set()).add(space)
    return found


def height(node):
    return 1 + max(map(height, node["children"]), default=0)


def test_nobody_shares_an_id(own_daemon, index):
    for n in range(WIDE):
        own_daemon.call(hostile(index, own_daemon, "wide %d" % n, ""))
    for n in range(DEEP + BELOW):  # one below the other, then beside each other: more than there are ids for
        needs = [i for i in range(n + 1) if i < DEEP or i == n]
        index.add("deep-%d" % n, {"deep_%d.py" % n: "import time\ntime.sleep(0.01)\n"})
        own_daemon.deployed("deep-%d" % n, {
            "handler.py": "".join("import deep_%d\n" % i for i in needs) + "def handler(e): return 1",
            "requirements.txt": "".join("deep-%d\n" % i for i in needs)}, settings=index.settings)
        assert own_daemon.call("deep-%d" % n).json == 1
        own_daemon.wait_for_node("deep-%d" % n)
    own_daemon.becomes(lambda: len(own_daemon.nodes()) > WIDE + DEEP + BELOW, 60)
    nodes = {os.stat("/proc/%d" % n["pid"]).st_uid for n in own_daemon.nodes()}
    assert len(nodes) == len(own_daemon.nodes())
    assert max(map(height, own_daemon.nodes())) > DEEP
    used = ids(own_daemon)
    assert len(used) > WIDE + 2 * (DEEP + BELOW)  # warm instances of the deep ones, too
    assert {uid: spaces for uid, spaces in used.items() if len(spaces) > 1} == {}
