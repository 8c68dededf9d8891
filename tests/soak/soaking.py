# SPDX-License-Identifier: Apache-2.0
"""What the long tests share: how long, with which luck, and what must not grow."""
import os
import random
import signal
import threading
import time

from conftest import groups_of, of_daemon

# The whole of `make soak` takes about so long on two cores; everything scales with it.
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def luck(what):
    """Chance that can be had again: the seed is shown when a test fails."""
    print("SOAK_SEED=%d" % SEED)
    return random.Random("%d %s" % (SEED, what))


def together(*calls):
    """Start each (function, arguments...) in a thread of its own; join them later."""
    threads = [threading.Thread(target=c[0], args=c[1:]) for c in calls]
    for t in threads:
        t.start()
    return threads


def joined(threads, seconds):
    for t in threads:
        t.join(seconds)
    assert not any(t.is_alive() for t in threads), "a request was never answered"


def count_groups(d):
    return sum(len(folders) for where, folders, _ in os.walk("/sys/fs/cgroup")
               if set(where.split("/")) & set(groups_of(d.process.pid)))


def memory_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(next(line for line in f if line.startswith("RssAnon")).split()[1])


def census(d):
    """What the daemon has of everything that could leak."""
    with open("/proc/%d/mountinfo" % d.process.pid) as f:
        mounts = len(f.readlines())
    return {"descriptors": d.descriptors(), "processes": len(of_daemon(d.process.pid)[0]), "mounts": mounts,
            "cgroups": count_groups(d), "memory_kb": memory_kb(d.process.pid)}


def interpreters(d):
    return [p for p in of_daemon(d.process.pid)[0] if b"bootstrap" in p.words and p.state != "Z"]


def bare(d):
    """Kill every interpreter, whose pools of cells would make any comparison vague; what has the daemon
    then? It may make its root anew meanwhile."""
    before = interpreters(d)
    for p in before:
        try:
            os.kill(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    d.becomes(lambda: not {p.key for p in before} & {p.key for p in interpreters(d)})
    d.becomes(lambda: d.get("/status").json["nodes"] <= 1)
    least, since = census(d), time.monotonic()
    while time.monotonic() < since + 3:  # what is being taken apart goes
        now = census(d)
        if sum(now.values()) < sum(least.values()):
            least, since = now, time.monotonic()
        time.sleep(0.1)
    return least


# cgroups are kept and used again: as many as were ever in use at once, in three controllers on v1.
AT_ONCE = 3 * 64


def same(begin, end):
    """No more of anything than in the beginning; a root may be there or not."""
    assert end["mounts"] == begin["mounts"]
    assert end["processes"] <= begin["processes"] + 4, (begin, end)
    assert end["descriptors"] <= begin["descriptors"] + 16, (begin, end)
    assert end["memory_kb"] <= begin["memory_kb"] + 8192, (begin, end)
    assert end["cgroups"] <= AT_ONCE


def temporary(base):
    """Half-made files and directories: none when a daemon has just started."""
    found = []
    for top in ("cache/index/tmp", "cache/store/tmp", "state/tmp"):
        for where, folders, files in os.walk(os.path.join(base, top)):
            found += [os.path.join(where, name) for name in folders + files]
    return found


def versions(base):
    """function -> the versions whose code is on disk."""
    apps = os.path.join(base, "state", "apps")
    return {name: sorted(os.listdir(os.path.join(apps, name))) for name in os.listdir(apps)}
