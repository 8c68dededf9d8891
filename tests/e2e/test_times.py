# SPDX-License-Identifier: Apache-2.0
"""How long imports take is learnt once more when the first profile was taken on a slow machine."""
import time

TOML = "reuse = false\n"
HANDLER = "import %s\ndef handler(event):\n    return 1\n"
# An instance is process 2 of its cell; a node never is.
SLOW_IN_INSTANCES = "import os, time\ntime.sleep(0.4 if os.getpid() == 2 else 0.02)\n"
SLOW_AT_FIRST = "import time\ntime.sleep(0.4 if time.time() < %f else 0.02)\n"
RESTLESS = "import socket\nkept = socket.socketpair()\n"  # cannot sleep: imported after the fork


def import_ms(d, name):
    return next(f["import_ms"] for f in d.get("/functions").json["functions"] if f["name"] == name)


def deployed(d, index, name, module):
    d.deployed(name, {"handler.py": HANDLER % module, "requirements.txt": module, "pipsqueak.toml": TOML},
               settings=index.settings)


def test_a_node_measures(own_daemon, index):
    """Once for all functions that load the same, and it outlives a restart."""
    d = own_daemon
    index.add("sluggish", {"sluggish.py": SLOW_IN_INSTANCES})
    for name in ("first", "second"):
        deployed(d, index, name, "sluggish")
    for name in ("second", "first"):
        assert d.call(name).json == 1
    d.wait_for_node("sluggish")
    assert d.call("first").json == d.call("second").json == 1  # whose profile came after it
    d.becomes(lambda: import_ms(d, "first") < 60)
    assert d.call("second").start in ("fork", "spare")
    d.becomes(lambda: import_ms(d, "second") < 60)
    assert d.get("/tree/explain/first").json["start"]["saves_ms"] < 60
    d.stop()
    d.start()
    assert min(import_ms(d, "first"), import_ms(d, "second")) < 60


def test_later_calls_measure(own_daemon, index):
    """What every call imports after its fork; some of them, long after profiles are known, say how long that takes."""
    d = own_daemon
    until = time.time() + 8
    index.add("busy-once", {"busy_once.py": SLOW_AT_FIRST % until + RESTLESS})
    d.deployed("f", {"handler.py": HANDLER % "busy_once", "requirements.txt": "busy-once", "pipsqueak.toml": TOML},
               settings=index.settings)
    for _ in range(5):
        assert d.call("f").json == 1
    d.becomes(lambda: import_ms(d, "f") > 300)
    time.sleep(max(0.0, until - time.time()))
    calls = 0
    while import_ms(d, "f") > 100:  # by half each time
        assert d.call("f").json == 1
        calls += 1
        assert calls < 2000
        time.sleep(0.05)
    assert calls > 30  # one of sixteen, and each five seconds
